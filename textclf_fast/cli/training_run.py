"""The training of `train`, once its model and its texts are there, and what it writes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from textclf_fast.cli.inputs import Inputs
from textclf_fast.cli.job import Job
from textclf_fast.cli.machine import describe_machine
from textclf_fast.judging import judge
from textclf_fast.judging.card import first_card_files
from textclf_fast.models import Classifier
from textclf_fast.training import (
    Checkpoints,
    EpochResult,
    History,
    SavedModel,
    Step,
    TrainingOptions,
    save_model,
)
from textclf_fast.training.log import TrainingLog, epoch_record
from textclf_fast.training.progress import TrainingProgress
from textclf_fast.training.transfer import LayerwiseTraining, fit_by_layers


class TrainingRun:
    """One training.

    Args:
        file: what the texts are from.
        job: whose it is.
    """

    def __init__(self, file: str, job: Job) -> None:
        self._file = file
        self._job = job

    def fit(
        self,
        model: Classifier,
        inputs: Inputs,
        options: TrainingOptions,
        resume: bool,
        every: int | None,
        tensorboard: Path | None,
        layers: LayerwiseTraining | None = None,
    ) -> History:
        """Trains, with a log, checkpoints and a bar; and as `layers` say, where they are given."""
        train, held_out = inputs.parts
        steps = -(-len(train) // options.batch_size)
        if self._job.ranks.rank == 0:
            self._job.unfinished.begin(resume)
        with (
            self._log(model, options, steps, resume, tensorboard) as log,
            TrainingProgress(options.epochs, steps, self._job.console) as progress,
        ):

            def on_step(step: Step) -> None:
                progress.on_step(step)
                if log is not None:
                    log.on_step(step)

            def on_epoch(result: EpochResult) -> None:
                if log is not None:
                    log.on_epoch(result)
                if self._job.speaks:
                    self._job.console.print(_line(result, options.epochs), markup=False)

            def on_resume(epoch: int, step: int) -> None:
                self._job.say(f"goes on in epoch {epoch + 1}, after step {step}")
                if layers is not None:
                    layers.begin_epoch(epoch)
                if log is not None:
                    log.write("resume", epoch=epoch + 1, step=step)

            checkpoints = Checkpoints(self._job.unfinished.checkpoint, every, resume, on_resume)
            history = fit_by_layers(
                model,
                train,
                held_out,
                options,
                layers,
                on_step,
                on_epoch,
                checkpoints=checkpoints,
                ranks=self._job.ranks,
            )
            if log is not None:
                log.write("end", best_epoch=history.best.epoch + 1, epochs=len(history.epochs))
        return history

    @contextlib.contextmanager
    def _log(
        self, model: Classifier, options: TrainingOptions, steps: int, resume: bool, tensorboard: Path | None
    ) -> Iterator[TrainingLog | None]:
        if self._job.ranks.rank:
            yield None
            return
        try:
            log = TrainingLog(self._job.unfinished.log, options, steps, resume, tensorboard)
        except ImportError as error:
            raise typer.BadParameter(
                f"needs TensorBoard: pip install 'textclf_fast[tensorboard]' ({error})", param_hint="'--tensorboard'"
            ) from error
        log.write(
            "start",
            machine=describe_machine(),
            data=self._file,
            processes=self._job.ranks.size,
            steps_per_epoch=steps,
            model={"kind": model.kind, **model.config},
            options=dataclasses.asdict(options),
        )
        with contextlib.closing(log):
            yield log

    def save(
        self,
        model: Classifier,
        inputs: Inputs,
        options: TrainingOptions,
        history: History,
        source: dict[str, Any],
        start: dict[str, Any],
        overwrite: bool,
    ) -> None:
        """Writes the model and its card, and says so; `source`: `describe_source`'s, `start`: TrainingStart's."""
        if self._job.ranks.rank:
            return
        kept = history.kept(options.keep)
        extra: dict[str, Any] = {
            "data": self._file,
            "source": source,
            "machine": describe_machine(),
            "start": start,
            "options": dataclasses.asdict(options),
            "epochs": [epoch_record(result) for result in history.epochs],
        }
        saved = SavedModel(model, inputs.vocabulary, inputs.tokenizer, inputs.labels, extra)
        card = first_card_files(self._job.out.resolve().name, saved, judge(model, inputs.parts[1], inputs.labels))
        save_model(
            self._job.out,
            model,
            inputs.vocabulary,
            inputs.labels,
            extra,
            overwrite,
            tokenizer=inputs.tokenizer,
            more_files={"log.jsonl": self._job.unfinished.log.read_text(encoding="utf-8"), **card},
        )
        self._job.unfinished.remove()
        if self._job.as_json:
            found = {
                "model": str(self._job.out),
                "epoch": kept.epoch + 1,
                **dataclasses.asdict(kept.held_out),
                **extra,
            }
            print(json.dumps(found, ensure_ascii=False))
        self._job.say(
            f"{self._job.out}: the model of epoch {kept.epoch + 1}, held-out accuracy {kept.held_out.accuracy:.1%}"
        )
        self._job.say(f"To use it: echo 'a text' | textclf-fast predict {shlex.quote(str(self._job.out))}")


def _line(result: EpochResult, epochs: int) -> str:
    held_out = result.held_out
    return (
        f"epoch {result.epoch + 1}/{epochs}: loss {result.loss:.4f}, held-out accuracy {held_out.accuracy:.1%}, "
        f"macro-F1 {held_out.macro_f1:.3f}, {result.seconds:.1f} s, {result.tokens_per_second:,.0f} tokens/s"
    )
