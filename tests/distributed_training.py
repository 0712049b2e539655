"""The trainer as one of two processes: ``torchrun --nproc-per-node 2 distributed_training.py FOLDER [ENCODER]``.

Everything but the command line is in float64, so that what differs in the order of sums alone agrees to many digits.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from textclf_fast import TextClassifier
from textclf_fast.cli import training_run, training_start
from textclf_fast.cli.app import main
from textclf_fast.text import Vocabulary, WordTokenizer, read_labelled
from textclf_fast.training import Checkpoints, EncodedTexts, Schedule, TrainingOptions
from textclf_fast.training.distributed import ALONE, Ranks, joined_ranks
from textclf_fast.training.transfer import LayerwiseTraining, fit_by_layers

TOY = Path(__file__).parent / "text" / "toy.csv"
SMALL = ("--embedding-dim", "8", "--hidden-dim", "8", "--epochs", "2", "--checkpoint-every", "2")
# 30 texts: batches of 7 are shared out as 4 and 3, the last one, of 2, as 1 and 1; of batches of 1 one has nothing.
# 9 held out make two batches of 7, one for each; one of 20, for one process alone.
OPTIONS = {
    "uneven": TrainingOptions(epochs=6, batch_size=7, learning_rate=0.02, keep="last"),
    "large": TrainingOptions(epochs=2, batch_size=20, learning_rate=0.02),
    "nothing for one": TrainingOptions(epochs=1, batch_size=1, learning_rate=0.02, bucket=False),
    "everything": TrainingOptions(
        epochs=3,
        batch_size=7,
        learning_rate=0.02,
        schedule=Schedule("one-cycle"),
        weight_decay=0.1,
        clip_norm=0.1,
        label_smoothing=0.1,
        class_weights=(0.3, 2.0),
        patience=2,
        monitor="loss",
    ),
    # One layer more in each epoch, and texts of which there are probabilities of the classes.
    "thawing": TrainingOptions(epochs=4, batch_size=7, learning_rate=0.02, class_weights=(0.3, 2.0), keep="last"),
}


class Result(NamedTuple):
    losses: list[float]
    held_out: list[tuple[float, float, float]]
    state: dict[str, Tensor]


class Stopped(Exception):
    pass


def run(
    options: TrainingOptions,
    ranks: Ranks = ALONE,
    checkpoints: Checkpoints | None = None,
    stop: int | None = None,
    signal_rank: int | None = None,
    dropout: float = 0.0,
) -> Result:
    """Trains; ends after `stop` steps, by an error, or by a signal to one of the processes."""
    data = read_labelled(TOY).select(range(39))
    tokenizer = WordTokenizer()
    vocabulary = Vocabulary.build(map(tokenizer, data.texts))
    train, held_out = (
        EncodedTexts.from_texts(data.select(rows), data.classes, vocabulary, tokenizer)
        for rows in (range(30), range(30, 39))
    )
    if options is OPTIONS["everything"]:
        train, held_out = (
            EncodedTexts(part.tokens, part.labels, 1 + torch.arange(len(part)).double() % 3)
            for part in (train, held_out)
        )
    if options is OPTIONS["thawing"]:
        share = torch.linspace(0, 1, len(train), dtype=torch.float64)
        train = EncodedTexts(train.tokens, train.labels, None, torch.stack([share, 1 - share], 1))
    torch.manual_seed(1)
    model = TextClassifier(len(vocabulary), 5, 6, 2, sparse=True, dropout=dropout).double()
    steps = 0

    def on_step(unused: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == stop:
            if signal_rank is None:
                raise Stopped
            if ranks.rank == signal_rank:
                os.kill(os.getpid(), signal.SIGINT)

    layers = LayerwiseTraining(model, options, gradual=True) if options is OPTIONS["thawing"] else None
    history = fit_by_layers(model, train, held_out, options, layers, on_step, checkpoints=checkpoints, ranks=ranks)
    return Result(
        [step.loss for result in history.epochs for step in result.steps],
        [(r.held_out.loss, r.held_out.accuracy, r.held_out.macro_f1) for r in history.epochs],
        model.state_dict(),
    )


def _resumed(folder: Path, ranks: Ranks) -> Result:
    """Stopped by an error, then by Ctrl-C that the second process alone has seen, then to the end."""
    path = folder / "checkpoint"
    for how in ({"stop": 5}, {"stop": 4, "signal_rank": 1}):
        try:
            run(OPTIONS["everything"], ranks, Checkpoints(path, 2, resume=True), dropout=0.4, **how)  # type: ignore[arg-type]
        except (Stopped, KeyboardInterrupt):
            pass
        else:
            raise AssertionError("it was not stopped")
        ranks.wait()
    places: list[tuple[int, int]] = []
    checkpoints = Checkpoints(path, 2, resume=True, on_resume=lambda *place: places.append(place))
    result = run(OPTIONS["everything"], ranks, checkpoints, dropout=0.4)
    assert places == [(1, 3)], places  # 4 steps to the checkpoint, and 4 more
    return result


def _without_labels(folder: Path, ranks: Ranks, encoder: list[str]) -> None:
    """Trains with texts that have none, at one go, and with Ctrl-C after the first epoch, and then resumed."""
    few = folder / f"few{ranks.rank}.csv"
    few.write_text("".join(TOY.read_text().splitlines(keepends=True)[:60]))
    command = ["train", str(few), *SMALL, "--unlabelled", str(TOY), "--teachers", "1"]
    for each in encoder:
        taught = [*command, "--teacher", each, "--teacher-epochs", "1", "--variants", "1"]
        assert main([*taught, "--out", str(folder / "taught")]) == 0
        command += ["--distil", each, "--distil-epochs", "2"]
    assert main([*command, "--out", str(folder / "at once")]) == 0
    line = training_run._line

    def interrupted(*args: Any) -> str:  # of the first process, which alone speaks
        os.kill(os.getpid(), signal.SIGINT)
        return line(*args)

    training_run._line = interrupted
    assert main([*command, "--out", str(folder / "again")]) == 130
    training_run._line = line
    assert main([*command, "--out", str(folder / "again"), "--resume"]) == 0


def _generated(folder: Path, ranks: Ranks) -> None:
    """Trains with texts that a language model generates: of the first process, and both have them."""
    small = ["--min-frequency", "1", "--hidden-dim", "8", "--embedding-dim", "8"]
    small += ["--batch-size", "4", "--steps", "8", "--epochs", "1"]
    if ranks.rank == 0:
        assert main(["pretrain", str(TOY), "--out", str(folder / "lm"), "--held-out", "0.1", *small]) == 0
    else:
        training_start.generate_texts = None  # type: ignore[assignment]
    ranks.wait()
    options = ["--from", str(folder / "lm"), "--generated", "100", "--teachers", "1", "--epochs", "1"]
    assert main(["train", str(TOY), "--out", str(folder / "generated"), *options]) == 0
    assert ranks.first_has(b"") == b""
    assert ranks.first_has(bytes([ranks.rank + 65, 0]) * (ranks.rank + 1)) == b"A\0"


def _main(folder: Path, *encoder: str) -> None:
    torch.set_num_threads(1)
    with joined_ranks() as ranks:
        results = {name: run(options, ranks) for name, options in OPTIONS.items()}
        results["not stopped"] = run(OPTIONS["everything"], ranks, dropout=0.4)
        results["resumed"] = _resumed(folder, ranks)
        torch.save({name: tuple(result) for name, result in results.items()}, folder / f"rank{ranks.rank}.pt")
        assert main(["train", str(TOY), "--out", str(folder / "model"), *SMALL]) == 0
        for wrong in (["nowhere.csv"], [str(TOY), "--distil", "nowhere"]):
            try:
                status = main(["train", *wrong, "--out", str(folder / "other")])
            except SystemExit as error:
                status = int(error.code or 0)
            assert status == 2
        _without_labels(folder, ranks, list(encoder))
        _generated(folder, ranks)
        ranks.wait()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), *sys.argv[2:])
