"""What `train` does once its options are known."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import typer
from rich.console import Console

from textclf_fast.cli.beginnings import Beginning, Learnt
from textclf_fast.cli.distilling import Distillation, about_encoder
from textclf_fast.cli.inputs import Inputs, about_vectors, missing_classes
from textclf_fast.cli.machine import describe_machine
from textclf_fast.cli.teachers import Teachers, shared_guesses
from textclf_fast.cli.unfinished import UnfinishedTraining
from textclf_fast.judging import judge
from textclf_fast.judging.card import first_card_files
from textclf_fast.models import Classifier, TextClassifier
from textclf_fast.text import LabelledTexts, encode_texts
from textclf_fast.training import (
    Checkpoints,
    EncodedTexts,
    EpochResult,
    History,
    SavedModel,
    Step,
    TrainingOptions,
    save_model,
)
from textclf_fast.training.distillation import DistillationOptions
from textclf_fast.training.distributed import Ranks
from textclf_fast.training.language_model_files import load_language_model
from textclf_fast.training.log import TrainingLog, epoch_record
from textclf_fast.training.progress import TrainingProgress
from textclf_fast.training.self_training import Guesses, read_guesses, with_guesses, write_guesses
from textclf_fast.training.transfer import TRANSFERRED, LayerwiseTraining, fit_by_layers, transfer

Result = TypeVar("Result")


class TrainingRun:
    """One training, by this process or as one of several, of which the first alone writes and prints.

    Args:
        file: what the texts are from.
        out: the model's directory.
        ranks: the processes.
        as_json: print one object instead of lines.
    """

    def __init__(self, file: str, out: Path, ranks: Ranks, as_json: bool) -> None:
        self._file = file
        self._out = out
        self._ranks = ranks
        self._as_json = as_json
        self._unfinished = UnfinishedTraining(out)
        self._speaks = ranks.rank == 0 and not as_json
        self._console = Console(highlight=False, soft_wrap=True, stderr=as_json, quiet=ranks.rank > 0)
        self._start: dict[str, Any] = {}  # what the model began with, other than random numbers

    def say(self, line: str) -> None:
        """Prints it, for people."""
        if self._speaks:
            print(line, flush=True)

    def check(self, overwrite: bool, resume: bool) -> None:
        """Says whether the training may begin, before the work rather than after it; see UnfinishedTraining.check."""

        def look() -> None:
            if self._ranks.rank == 0:
                self._unfinished.check(overwrite, resume)

        self.on_first_then_others(look)

    def on_first_then_others(self, work: Callable[[], Result]) -> Result:
        """By the first process, then by the others: what has to be fetched is fetched once.

        Where the first one fails, it says why, and the others end without a word.
        """
        failed = torch.zeros(1, dtype=torch.float64)
        if self._ranks.rank == 0:
            try:
                result = work()
            except BaseException:
                self._ranks.sum(failed + 1)
                raise
            self._ranks.sum(failed)
            return result
        if self._ranks.sum(failed):
            raise SystemExit(2)
        return work()

    @property
    def is_over(self) -> bool:
        """Whether there is a model, and nothing to go on with."""
        return self._unfinished.is_over

    def has_weights(self, distils: bool) -> bool:
        """Whether a training that is resumed has its model's weights; `distils`: it learns from a sentence encoder."""
        files = [self._unfinished.checkpoint, *([self._unfinished.distilled] if distils else [])]
        found = self._ranks.rank == 0 and any(path.exists() for path in files)
        return bool(self._ranks.sum(torch.tensor([found], dtype=torch.float64)))

    def say_it_is_over(self) -> None:
        """There is nothing to do."""
        if self._as_json and self._ranks.rank == 0:
            print(json.dumps({"model": str(self._out), "over": True}, ensure_ascii=False))
        self.say(f"{self._out}: the training is over")

    def encode(
        self,
        parts: Sequence[LabelledTexts],
        labels: list[str],
        tokenizer: str,
        vocab_size: int,
        min_frequency: int,
        vectors: str | None,
        unlabelled: Sequence[str] = (),
    ) -> Inputs:
        """The parts to train on and to hold out, as numbers; and the word vectors to begin with, if any."""
        self._check_classes(parts, labels)

        def encode() -> Inputs:
            return Inputs.encode(parts, labels, tokenizer, vocab_size, min_frequency, vectors, unlabelled)

        inputs = encode() if vectors is None else self.on_first_then_others(encode)
        self._say_what_there_is(inputs)
        if inputs.vectors is not None:
            self._start = about_vectors(inputs.vectors, self.say)
        return inputs

    def transfer(
        self,
        language_model: Path,
        parts: Sequence[LabelledTexts],
        labels: list[str],
        lm_epochs: int,
        seed: int,
        dropout: float,
        unlabelled: Sequence[str],
        has_weights: bool,
    ) -> tuple[TextClassifier, Inputs]:
        """A classifier that begins with a language model, and the parts in its vocabulary.

        One that gets its weights from where it was stopped, see `has_weights`, does not read the texts again.
        """
        self._check_classes(parts, labels)
        saved = load_language_model(language_model)
        self._start = {
            "language model": str(language_model),
            "its texts": ", ".join(map(str, saved.extra.get("texts", []))),
            "its word vectors": saved.extra.get("vectors"),
            "times it read the texts to train on": lm_epochs,
        }
        texts = [*parts[0].texts, *unlabelled]
        if has_weights:
            lm_epochs = 0
        if lm_epochs:
            self.say(f"{language_model}: reads the {len(texts):,} texts to train on, {lm_epochs} times")
        model, vocabulary = transfer(
            saved, texts, len(labels), epochs=lm_epochs, seed=seed, dropout=dropout, **TRANSFERRED
        )
        inputs = Inputs.of(parts, labels, vocabulary, saved.tokenizer)
        self._say_what_there_is(inputs)
        return model, inputs

    def distil(
        self,
        begin: Beginning,
        inputs: Inputs,
        texts: Sequence[str],
        encoder: str,
        options: DistillationOptions,
        resume: bool,
    ) -> Learnt:
        """What `begin` makes, of the options' seed, learns the vectors that a sentence encoder gives these texts.

        What it has learnt is beside the checkpoint from then on: a training that is resumed takes it from there. All
        processes learn, and then have what the first one has, as `Ranks.wrap` says.
        """
        tokens = encode_texts(texts, inputs.tokenizer, inputs.vocabulary)
        train = EncodedTexts.unlabelled(tokens)
        model, _ = begin(dataclasses.replace(inputs, parts=[train, inputs.parts[1]]), options.seed)
        work = Distillation(model, encoder, texts, tokens, options)
        path = self._unfinished.distilled

        def read() -> float | None:
            return work.read(path) if resume and self._ranks.rank == 0 and path.exists() else None

        kept = self.on_first_then_others(read)
        number = torch.tensor([kept is not None, kept or 0.0], dtype=torch.float64)
        there, cosine = self._ranks.sum(number).tolist()
        if not there:
            self.say(f"{encoder}: reads the {len(texts):,} texts to train on; the model learns what it makes of them")
            cosine = work.run(self._console, self._ranks)
            if self._ranks.rank == 0:
                self._unfinished.begin(resume)
                work.write(path, cosine)
        self.say(f"{encoder}: the model's vectors of texts have a mean cosine of {cosine:.2f} with its own")
        self._start |= about_encoder(encoder, options, cosine)
        return Learnt(model, options.seed, begin.layers)

    def learn_from_guesses(
        self,
        inputs: Inputs,
        teachers: Teachers,
        texts: Sequence[str],
        sources: Sequence[str],
        variants: int,
        resume: bool,
    ) -> Inputs:
        """Texts without labels join those to train on, by the guesses of teachers, which are trained first.

        The guesses are beside the checkpoint from then on: a training that is resumed takes them from there.

        `sources` and `variants` are what the model's card says of where the texts come from.
        """
        tokens = encode_texts(texts, inputs.tokenizer, inputs.vocabulary)
        path = self._unfinished.guesses

        def read() -> Guesses | None:
            there = resume and self._ranks.rank == 0 and path.exists()
            return read_guesses(path, tokens, teachers.about) if there else None

        guesses = shared_guesses(self.on_first_then_others(read), tokens, len(inputs.labels), self._ranks)
        if guesses is None:
            with self._advice_on_interruption():
                guesses = teachers.guess(inputs, texts, tokens, self._ranks, self._console, self.say)
            if self._ranks.rank == 0:
                self._unfinished.begin(resume)
                write_guesses(path, guesses, teachers.about)
        counts = torch.bincount(guesses.labels, minlength=len(inputs.labels)).tolist()
        found = ", ".join(f"{count:,} {label}" for label, count in zip(inputs.labels, counts, strict=True) if count)
        mean = guesses.confidence.mean().item()
        self.say(f"{len(guesses):,} texts without labels, by the teachers: {found}; they are {mean:.0%} sure")
        if sources:
            self._start["texts without labels"] = ", ".join(sources)
        if variants:
            self._start["variants of each text"] = variants
        self._start |= {"their number": len(guesses), **teachers.about, "how sure these were": round(mean, 3)}
        train, held_out = inputs.parts
        return dataclasses.replace(inputs, parts=[with_guesses(train, guesses, teachers.soft), held_out])

    def _check_classes(self, parts: Sequence[LabelledTexts], labels: list[str]) -> None:
        if missing := missing_classes(self._file, parts[0], labels):
            self.say(f"note: the texts to train on have none labelled {', '.join(map(repr, missing))}")

    def _say_what_there_is(self, inputs: Inputs) -> None:
        train, held_out = map(len, inputs.parts)
        self.say(
            f"{train + held_out:,} texts, {len(inputs.labels)} classes; {train:,} to train on, {held_out:,} held out; "
            f"vocabulary of {len(inputs.vocabulary):,}"
        )

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
        if self._ranks.rank == 0:
            self._unfinished.begin(resume)
        with (
            self._advice_on_interruption(),
            self._log(model, options, steps, resume, tensorboard) as log,
            TrainingProgress(options.epochs, steps, self._console) as progress,
        ):

            def on_step(step: Step) -> None:
                progress.on_step(step)
                if log is not None:
                    log.on_step(step)

            def on_epoch(result: EpochResult) -> None:
                if log is not None:
                    log.on_epoch(result)
                if self._speaks:
                    self._console.print(_line(result, options.epochs), markup=False)

            def on_resume(epoch: int, step: int) -> None:
                self.say(f"goes on in epoch {epoch + 1}, after step {step}")
                if layers is not None:
                    layers.begin_epoch(epoch)
                if log is not None:
                    log.write("resume", epoch=epoch + 1, step=step)

            checkpoints = Checkpoints(self._unfinished.checkpoint, every, resume, on_resume)
            history = fit_by_layers(
                model,
                train,
                held_out,
                options,
                layers,
                on_step,
                on_epoch,
                checkpoints=checkpoints,
                ranks=self._ranks,
            )
            if log is not None:
                log.write("end", best_epoch=history.best.epoch + 1, epochs=len(history.epochs))
        return history

    @contextlib.contextmanager
    def _log(
        self, model: Classifier, options: TrainingOptions, steps: int, resume: bool, tensorboard: Path | None
    ) -> Iterator[TrainingLog | None]:
        if self._ranks.rank:
            yield None
            return
        try:
            log = TrainingLog(self._unfinished.log, options, steps, resume, tensorboard)
        except ImportError as error:
            raise typer.BadParameter(
                f"needs TensorBoard: pip install 'textclf_fast[tensorboard]' ({error})", param_hint="'--tensorboard'"
            ) from error
        log.write(
            "start",
            machine=describe_machine(),
            data=self._file,
            processes=self._ranks.size,
            steps_per_epoch=steps,
            model={"kind": model.kind, **model.config},
            options=dataclasses.asdict(options),
        )
        with contextlib.closing(log):
            yield log

    @contextlib.contextmanager
    def _advice_on_interruption(self) -> Iterator[None]:
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            if self._ranks.rank == 0 and self._unfinished.exists:
                print(
                    f"note: the same command with --resume goes on from {self._unfinished.directory}", file=sys.stderr
                )
            raise

    def save(
        self,
        model: Classifier,
        inputs: Inputs,
        options: TrainingOptions,
        history: History,
        source: dict[str, Any],
        overwrite: bool,
    ) -> None:
        """Writes the model and its card, and says so; `source` as of `describe_source`."""
        if self._ranks.rank:
            return
        kept = history.kept(options.keep)
        extra: dict[str, Any] = {
            "data": self._file,
            "source": source,
            "machine": describe_machine(),
            "start": self._start,
            "options": dataclasses.asdict(options),
            "epochs": [epoch_record(result) for result in history.epochs],
        }
        saved = SavedModel(model, inputs.vocabulary, inputs.tokenizer, inputs.labels, extra)
        card = first_card_files(self._out.resolve().name, saved, judge(model, inputs.parts[1], inputs.labels))
        save_model(
            self._out,
            model,
            inputs.vocabulary,
            inputs.labels,
            extra,
            overwrite,
            tokenizer=inputs.tokenizer,
            more_files={"log.jsonl": self._unfinished.log.read_text(encoding="utf-8"), **card},
        )
        self._unfinished.remove()
        if self._as_json:
            found = {"model": str(self._out), "epoch": kept.epoch + 1, **dataclasses.asdict(kept.held_out), **extra}
            print(json.dumps(found, ensure_ascii=False))
        self.say(f"{self._out}: the model of epoch {kept.epoch + 1}, held-out accuracy {kept.held_out.accuracy:.1%}")
        self.say(f"To use it: echo 'a text' | textclf-fast predict {shlex.quote(str(self._out))}")


def _line(result: EpochResult, epochs: int) -> str:
    held_out = result.held_out
    return (
        f"epoch {result.epoch + 1}/{epochs}: loss {result.loss:.4f}, held-out accuracy {held_out.accuracy:.1%}, "
        f"macro-F1 {held_out.macro_f1:.3f}, {result.seconds:.1f} s, {result.tokens_per_second:,.0f} tokens/s"
    )
