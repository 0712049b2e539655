"""`textclf-fast evaluate`: what a model is worth on labelled texts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textclf_fast.cli import arguments
from textclf_fast.cli.arguments import OUTPUT

if TYPE_CHECKING:
    from textclf_fast.judging import Judgement


def evaluate(
    directory: arguments.Model,
    file: arguments.File,
    text: arguments.TextAsTrained = None,
    label: arguments.LabelAsTrained = None,
    group: arguments.GroupAsTrained = None,
    part: arguments.Part = None,
    held_out: arguments.HeldOutAsTrained = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Directory for pictures: confusion matrix, reliability, ROC and precision-recall of two classes, "
            "learning curves; it is made. The model's own: its card shows them.",
            rich_help_panel=OUTPUT,
            show_default=False,
        ),
    ] = None,
    no_card: Annotated[
        bool,
        typer.Option("--no-card", help="Leave the card in the model's directory as it is.", rich_help_panel=OUTPUT),
    ] = False,
    as_json: arguments.Json = False,
) -> None:
    """Says how good a model is on a file of labelled texts: all of them, or the part that training held out.

    Of the file that the model was trained on, it is the part held out; of any other, all texts. What was found is added
    to evaluations.json and README.md, the model's card, in its directory.

    The calibration error is the mean difference between how sure the model is and how often it is right; see
    `calibrate`.

    Examples:

        textclf-fast evaluate model reviews.csv

        textclf-fast evaluate model new-reviews.csv --text review --label stars --output pictures
    """
    from textclf_fast.cli.judged import JudgedTexts
    from textclf_fast.cli.judging_report import print_judgement
    from textclf_fast.judging import judge, reliability
    from textclf_fast.judging.card import CARD, card_files
    from textclf_fast.judging.evaluations import add_evaluation, evaluation_record, read_evaluations
    from textclf_fast.text.files import write_atomically
    from textclf_fast.training import load_model

    if output is not None:
        _check_matplotlib()
    saved = load_model(directory)
    writes_card = not no_card and os.access(directory, os.W_OK)
    earlier = read_evaluations(directory) if writes_card else []
    texts = JudgedTexts.read(saved, file, text, label, group, part, held_out)
    if not (writes_card or no_card):
        texts.notes.append(f"{directory} is not writable: its card stays as it is")
    if saved.temperature != 1 and saved.extra.get("temperature_fitted_to") == texts.sha256:
        texts.notes.append("the temperature was fitted to texts of this file: loss and calibration error are too low")
    judgement = judge(saved.model, texts.encode(saved), saved.labels)
    record = evaluation_record(judgement, file, texts.part, texts.sha256, texts.share, texts.group)
    if saved.temperature != 1:
        before = reliability(judgement.logits * saved.temperature, judgement.truth).error
        record.update(temperature=saved.temperature, calibration_error_before=before)
    pictures = [] if output is None else _draw(judgement, directory, output)
    if output is not None and output.resolve() == directory.resolve():
        record["pictures"] = [picture.name for picture in pictures]
    if as_json:
        found = {"model": str(directory), **record, "pictures": list(map(str, pictures)), "notes": texts.notes}
        print(json.dumps(found, ensure_ascii=False))
    else:
        print_judgement(judgement, record, texts)
        for picture in pictures:
            print(f"written: {picture}")
    if writes_card:
        for name, content in card_files(directory.resolve().name, saved, add_evaluation(earlier, record)).items():
            write_atomically(directory / name, content)
        if not as_json:
            print(f"written: {directory / CARD}")


def _draw(judgement: Judgement, directory: Path, output: Path) -> list[Path]:
    from textclf_fast.judging.pictures import draw_all

    return draw_all(judgement, directory / "log.jsonl", output)


def _check_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise typer.BadParameter(
            f"needs matplotlib: pip install 'textclf_fast[report]' ({error})", param_hint="'--output'"
        ) from error
