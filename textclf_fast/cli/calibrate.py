"""`textclf-fast calibrate`: probabilities that mean what they say."""

from __future__ import annotations

import json

from textclf_fast.cli import arguments


def calibrate(
    directory: arguments.Model,
    file: arguments.File,
    text: arguments.TextAsTrained = None,
    label: arguments.LabelAsTrained = None,
    group: arguments.GroupAsTrained = None,
    part: arguments.Part = None,
    held_out: arguments.HeldOutAsTrained = None,
    as_json: arguments.Json = False,
) -> None:
    """Fits a temperature to labelled texts that the model was not trained on, and stores it with the model.

    Logits are divided by it before they become probabilities: a model that is too sure of itself is less so, and what
    it predicts stays the same. What it is worth is measured on each half of the texts with the temperature of the
    other half. The same again replaces it. The model's card is written anew. (Guo et al., On Calibration of Modern
    Neural Networks, 2017.)

    Example:

        textclf-fast calibrate model reviews.csv
    """
    from textclf_fast.cli.judged import JudgedTexts
    from textclf_fast.judging.calibration import cross_fitted, fit_temperature, reliability
    from textclf_fast.judging.card import CARD, card_files
    from textclf_fast.judging.evaluations import EVALUATIONS, read_evaluations
    from textclf_fast.judging.judgement import judge
    from textclf_fast.text import DataError
    from textclf_fast.text.files import write_atomically
    from textclf_fast.training import load_model, store_temperature

    saved = load_model(directory)
    evaluations = read_evaluations(directory)
    texts = JudgedTexts.read(saved, file, text, label, group, part, held_out)
    if len(texts.data) < 2:
        raise DataError(f"{file}: there is one text, expected at least two to fit a temperature to")
    judgement = judge(saved.model, texts.encode(saved), saved.labels)
    logits, truth = judgement.logits * saved.temperature, judgement.truth
    temperature = fit_temperature(logits, truth)
    before = reliability(logits, truth).error
    after = reliability(cross_fitted(logits, truth), truth).error
    store_temperature(directory, temperature, texts.sha256)
    has_card = (directory / EVALUATIONS).exists()  # and not a README.md of somebody's own
    if has_card:
        card = card_files(directory.resolve().name, load_model(directory), evaluations)[CARD]
        write_atomically(directory / CARD, card)
    if as_json:
        found = {
            "model": str(directory),
            "data": file,
            "part": texts.part,
            "texts": len(texts.data),
            "temperature": temperature,
            "calibration_error_before": before,
            "calibration_error": after,
            "notes": texts.notes,
        }
        print(json.dumps(found, ensure_ascii=False))
        return
    print(f"{file} ({texts.part}): {len(texts.data):,} texts")
    print(f"temperature {temperature:.4f}: expected calibration error {before:.4f} before, {after:.4f} with it")
    for note in texts.notes:
        print(f"note: {note}")
    if has_card:
        print(f"written: {directory / CARD}")
    print(f"{directory}: its probabilities are calibrated from now on")
