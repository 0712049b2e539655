"""`textclf-fast demo`: one classifier trained with nn.LSTM and with ours, side by side."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from torch import nn

    from textclf_fast.text import LabelledTexts
    from textclf_fast.training import EncodedTexts, EpochResult, TrainingOptions

EMBEDDING_DIM = 100
HIDDEN_DIM = 128
VOCAB_SIZE = 10_000


@dataclass(frozen=True)
class Run:
    """One way to train the classifier, and what came of it."""

    name: str
    about: str
    model: nn.Module
    options: TrainingOptions
    epochs: list[EpochResult]

    @property
    def seconds(self) -> float:
        """The median time of an epoch."""
        return statistics.median(result.seconds for result in self.epochs)

    @property
    def tokens_per_second(self) -> float:
        """Real tokens a second, in an epoch of the median time."""
        return sum(step.tokens for step in self.epochs[0].steps) / self.seconds


def demo(
    out: Annotated[Path, typer.Option(help="Directory for demo.png and demo.json.")] = Path(),
    epochs: Annotated[int, typer.Option(min=1, help="How often each text is seen.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the initial weights and of the order of the batches.")] = 0,
) -> None:
    """Trains a classifier on sentences of movie reviews with nn.LSTM and with ours, and compares speed and accuracy.

    All start from the same weights. They take turns, an epoch each, so that whatever else the machine does slows all of
    them.
    """
    from textclf_fast.cli.demo_report import draw, print_table
    from textclf_fast.cli.machine import describe_machine
    from textclf_fast.text import Vocabulary, WordTokenizer, load_dataset, split
    from textclf_fast.text.files import write_atomically
    from textclf_fast.training import EncodedTexts

    out.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)

    data = load_dataset("rt", say=lambda line: print(line, flush=True))
    parts = split(data)
    tokenizer = WordTokenizer()
    vocabulary = Vocabulary.build(map(tokenizer, parts[0].texts), VOCAB_SIZE)
    train, held_out = (EncodedTexts.from_texts(part, data.classes, vocabulary, tokenizer) for part in parts)
    task = (
        f"{len(train):,} sentences to train on, {len(held_out):,} of other movies to test on; "
        f"Embedding({len(vocabulary)}, {EMBEDDING_DIM}), LSTM({EMBEDDING_DIM}, {HIDDEN_DIM}), "
        f"Linear({HIDDEN_DIM}, {len(data.classes)}); Adam 1e-3, batches of 32, {epochs} epochs"
    )
    print(task)
    print(_always_the_commonest(parts[1]), flush=True)

    runs = _runs(len(vocabulary), len(data.classes), epochs, seed)
    for run in runs:
        print(f"  {run.name}: {run.about}", flush=True)
    _take_turns(runs, train, held_out)
    print_table(runs)

    record = {
        "machine": machine,
        "task": task,
        "seed": seed,
        "runs": [_record(run, runs[0]) for run in runs],
    }
    write_atomically(out / "demo.json", json.dumps(record, indent=2) + "\n")
    print(f"The numbers are in {out / 'demo.json'}")
    try:
        draw(runs, out / "demo.png", f"{machine['CPU']}, {machine['threads']} threads, torch {machine['torch']}")
    except ImportError as error:
        print(f"No picture ({error}): pip install 'textclf_fast[report]'")
    else:
        print(f"The picture is {out / 'demo.png'}")


def _runs(vocab_size: int, num_classes: int, epochs: int, seed: int) -> list[Run]:
    import torch

    from textclf_fast.models import PlainTextClassifier, TextClassifier
    from textclf_fast.training import TrainingOptions

    sizes = (vocab_size, EMBEDDING_DIM, HIDDEN_DIM, num_classes)
    # The loop of everyday code: padded batches of any lengths, PyTorch's default Adam.
    usual = TrainingOptions(epochs=epochs, seed=seed, layout="padded", bucket=False, fused_adam=False)
    torch.manual_seed(seed)
    padded = PlainTextClassifier(*sizes, layout="padded")
    runs = [
        Run("nn.LSTM, padded", "the usual code: computes the padding too, reads the last step", padded, usual, []),
        Run(
            "nn.LSTM, packed",
            "the same loop, through pack_padded_sequence: right whatever the lengths",
            PlainTextClassifier(*sizes, layout="packed"),
            usual,
            [],
        ),
        Run("ours, same loop", "the same loop and batches, the model swapped", TextClassifier(*sizes), usual, []),
        Run(
            "ours, our trainer",
            "packed batches of similar lengths, Adam on the rows in use",
            TextClassifier(*sizes, sparse=True),
            TrainingOptions(epochs=epochs, seed=seed),
            [],
        ),
    ]
    for run in runs[1:]:
        run.model.load_state_dict(padded.state_dict())
    return runs


def _take_turns(runs: list[Run], train: EncodedTexts, held_out: EncodedTexts) -> None:
    from textclf_fast.training import train_epochs

    trainings = [train_epochs(run.model, train, held_out, run.options) for run in runs]
    width = max(len(run.name) for run in runs)
    for epoch in range(runs[0].options.epochs):
        for run, training in zip(runs, trainings, strict=True):
            result = next(training)
            run.epochs.append(result)
            print(
                f"epoch {epoch + 1}  {run.name:<{width}}  {result.seconds:5.2f} s  loss {result.loss:.3f}  "
                f"held-out accuracy {result.held_out.accuracy:.1%}",
                flush=True,
            )


def _always_the_commonest(held_out: LabelledTexts) -> str:
    commonest = max(held_out.classes, key=held_out.labels.count)
    share = held_out.labels.count(commonest) / len(held_out)
    return f"(Always answering {commonest!r} would be right {share:.1%} of the time.)"


def _record(run: Run, first: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "about": run.about,
        "options": asdict(run.options),
        "median_seconds_per_epoch": run.seconds,
        "tokens_per_second": run.tokens_per_second,
        "times_the_first": first.seconds / run.seconds,
        "epochs": [
            {"seconds": result.seconds, "loss": result.loss, "held_out": asdict(result.held_out)}
            for result in run.epochs
        ],
    }
