"""What `autotune` does once its options are known."""

from __future__ import annotations

import dataclasses
import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from textclf_fast.cli.beginnings import FromScratch
from textclf_fast.cli.inputs import Inputs, about_vectors, missing_classes
from textclf_fast.cli.machine import describe_machine
from textclf_fast.judging import judge
from textclf_fast.judging.card import first_card_files
from textclf_fast.models import Classifier
from textclf_fast.text import LabelledTexts
from textclf_fast.training import EpochResult, Evaluation, SavedModel, Step, save_model
from textclf_fast.training.autotune import Search, Trial, Tuner
from textclf_fast.training.interrupts import StopSignals

_DEFAULTS = {"embedding_dim": 100, "hidden_dim": 128}  # those of `train`


class TuningRun:
    """One search.

    Args:
        file: what the texts are from.
        out: the model's directory.
        as_json: print one object instead of lines.
    """

    def __init__(self, file: str, out: Path, as_json: bool) -> None:
        self._file = file
        self._out = out
        self._as_json = as_json
        self._start: dict[str, str] = {}  # what the models began with, other than random numbers
        self._console = Console(highlight=False, soft_wrap=True, stderr=as_json)

    def say(self, line: str) -> None:
        """Prints it, for people."""
        if not self._as_json:
            self._console.print(line, markup=False)

    def encode(
        self,
        parts: Sequence[LabelledTexts],
        labels: list[str],
        tokenizer: str,
        vocab_size: int,
        min_frequency: int,
        vectors: Sequence[str] = (),
    ) -> Inputs:
        """The parts to train on, to choose by and to hold out, as numbers; and word vectors to begin with, if any."""
        if missing := missing_classes(self._file, parts[0], labels):
            self.say(f"note: the texts to train on have none labelled {', '.join(map(repr, missing))}")
        inputs = Inputs.encode(parts, labels, tokenizer, vocab_size, min_frequency, vectors, console=self._console)
        train, chooser, test = map(len, inputs.parts)
        total = train + chooser + test
        self.say(
            f"{total:,} texts, {len(labels)} classes; {train:,} to train on, "
            f"{chooser:,} to choose by, {test:,} held out; vocabulary of {len(inputs.vocabulary):,}"
        )
        if inputs.vectors is not None:
            self._start = about_vectors(inputs.vectors, self.say)
        return inputs

    def search(self, inputs: Inputs, minutes: float, seed: int) -> Tuner:
        """As long as there is time, and nobody stops it."""

        def make_model(chosen: dict[str, Any]) -> Classifier:
            return _beginning(inputs, chosen)(inputs, seed)[0]

        begin = time.monotonic()
        end = begin + 60 * minutes
        best = 0.0
        with self._console.status("") as status, StopSignals() as signals:

            def on_step(trial: Trial, step: Step) -> None:
                if step.step % 20 == 0:
                    left = max(0, round(end - time.monotonic()))
                    status.update(
                        f"trial {trial.number + 1}, epoch {step.epoch + 1}, step {step.step + 1}; "
                        f"best so far {best:.1%}; {left // 60}:{left % 60:02} left"
                    )

            def on_epoch(trial: Trial, result: EpochResult) -> None:
                nonlocal best
                mark = "  best so far" if result.held_out.accuracy > best else ""
                best = max(best, result.held_out.accuracy)
                chosen = ", ".join(f"{name} {value}" for name, value in {**trial.model, **trial.training}.items())
                self.say(
                    f"trial {trial.number + 1}, epoch {result.epoch + 1}: accuracy {result.held_out.accuracy:.1%} "
                    f"({chosen or 'the defaults'}){mark}"
                )

            train, chooser, _ = inputs.parts
            tuner = Tuner(make_model, train, chooser, Search(), seed, on_step, on_epoch)
            tuner.run(end - begin, lambda: bool(signals.asked))
        if signals.asked:
            self.say("stopped")
        return tuner

    def save(self, tuner: Tuner, inputs: Inputs, source: dict[str, Any], overwrite: bool) -> None:
        """Writes the best model, its card and all trials; says what it is worth on the texts that had no part in it.

        `source` is as of `describe_source`.
        """
        trial = tuner.best
        assert trial is not None  # the search goes on until there is one
        model, _ = _beginning(inputs, trial.model)(inputs, 0)
        model.load_state_dict(tuner.weights)
        judgement = judge(model, inputs.parts[2], inputs.labels)
        held_out = Evaluation(judgement.loss, judgement.accuracy, judgement.macro_f1)
        found = {
            "data": self._file,
            "source": source,
            "machine": describe_machine(),
            "trial": trial.number + 1,
            "model": _sizes(inputs, trial.model),
            "training": trial.training,
            "start": self._start,
            "accuracy_chosen_by": trial.accuracy,
            "held_out": dataclasses.asdict(held_out),
        }
        saved = SavedModel(model, inputs.vocabulary, inputs.tokenizer, inputs.labels, found)
        trials = json.dumps([_record(inputs, trial) for trial in tuner.trials], indent=2) + "\n"
        save_model(
            self._out,
            model,
            inputs.vocabulary,
            inputs.labels,
            found,
            overwrite,
            tokenizer=inputs.tokenizer,
            more_files={"trials.json": trials, **first_card_files(self._out.resolve().name, saved, judgement)},
        )
        if self._as_json:
            print(json.dumps({"directory": str(self._out), "trials": len(tuner.trials), **found}, ensure_ascii=False))
        self._say_result(trial, len(tuner.trials), held_out)

    def _say_result(self, trial: Trial, trials: int, held_out: Evaluation) -> None:
        self.say(
            f"{self._out}: the model of trial {trial.number + 1} of {trials}, "
            f"held-out accuracy {held_out.accuracy:.1%} ({trial.accuracy:.1%} on the texts it was chosen by)"
        )
        self.say(f"To use it: echo 'a text' | textclf-fast predict {shlex.quote(str(self._out))}")


def _sizes(inputs: Inputs, chosen: dict[str, Any]) -> dict[str, Any]:
    """What a trial's model is made of: its vectors are as wide as those that it begins with at least."""
    sizes = {**_DEFAULTS, **chosen}
    least = 0 if inputs.vectors is None else inputs.vectors.dim
    return {**sizes, "embedding_dim": max(sizes["embedding_dim"], least)}


def _beginning(inputs: Inputs, chosen: dict[str, Any]) -> FromScratch:
    return FromScratch({"kind": "lstm", **_sizes(inputs, chosen)})


def _record(inputs: Inputs, trial: Trial) -> dict[str, Any]:
    return {
        "trial": trial.number + 1,
        "model": _sizes(inputs, trial.model),
        "training": trial.training,
        "over": trial.over,
        "epochs": [
            {"loss": result.loss, "seconds": result.seconds, **dataclasses.asdict(result.held_out)}
            for result in trial.epochs
        ],
    }
