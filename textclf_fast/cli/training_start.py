"""What `train` begins with: the texts as numbers, and whatever is learnt before the labels, or beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textclf_fast.cli.beginnings import Beginning, Learnt
from textclf_fast.cli.distilling import Distillation, about_encoder
from textclf_fast.cli.inputs import Inputs, about_vectors, missing_classes
from textclf_fast.cli.job import Job
from textclf_fast.cli.teachers import Teachers, shared_guesses
from textclf_fast.models import TextClassifier
from textclf_fast.text import LabelledTexts, encode_texts
from textclf_fast.training import EncodedTexts
from textclf_fast.training.distillation import DistillationOptions
from textclf_fast.training.generation import generate_texts, load_texts, save_texts
from textclf_fast.training.language_model_files import SavedLanguageModel, load_language_model
from textclf_fast.training.progress import counting
from textclf_fast.training.resume import fingerprint
from textclf_fast.training.self_training import Guesses, read_guesses, with_guesses, write_guesses
from textclf_fast.training.transfer import TRANSFERRED, transfer


class TrainingStart:
    """How one training begins.

    Args:
        file: what the texts are from.
        job: whose it is.

    Attributes:
        about: what the model began with, other than random numbers: for its card.
    """

    def __init__(self, file: str, job: Job) -> None:
        self._file = file
        self._job = job
        self.about: dict[str, Any] = {}

    def encode(
        self,
        parts: Sequence[LabelledTexts],
        labels: list[str],
        tokenizer: str,
        vocab_size: int,
        min_frequency: int,
        vectors: Sequence[str],
        unlabelled: Sequence[str] = (),
    ) -> Inputs:
        """The parts to train on and to hold out, as numbers; and the word vectors to begin with, if any."""
        self._check_classes(parts, labels)

        def encode() -> Inputs:
            return Inputs.encode(
                parts, labels, tokenizer, vocab_size, min_frequency, vectors, unlabelled, self._job.console
            )

        inputs = self._job.on_first_then_others(encode) if vectors else encode()
        self._say_what_there_is(inputs)
        if inputs.vectors is not None:
            self.about = about_vectors(inputs.vectors, self._job.say)
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
    ) -> tuple[TextClassifier, Inputs, SavedLanguageModel]:
        """A classifier that begins with a language model, the parts in its vocabulary, and that language model.

        One that gets its weights from where it was stopped, see `has_weights`, does not read the texts again.
        """
        self._check_classes(parts, labels)
        saved = load_language_model(language_model)
        self.about = {
            "language model": str(language_model),
            "its texts": ", ".join(map(str, saved.extra.get("texts", []))),
            "its word vectors": saved.extra.get("vectors"),
            "times it read the texts to train on": lm_epochs,
        }
        texts = [*parts[0].texts, *unlabelled]
        if has_weights:
            lm_epochs = 0
        if lm_epochs:
            self._job.say(f"{language_model}: reads the {len(texts):,} texts to train on, {lm_epochs} times")
        model, adapted = transfer(
            saved, texts, len(labels), epochs=lm_epochs, seed=seed, dropout=dropout, **TRANSFERRED
        )
        inputs = Inputs.of(parts, labels, adapted.vocabulary, saved.tokenizer)
        self._say_what_there_is(inputs)
        return model, inputs, adapted

    def generate(
        self,
        language_model: SavedLanguageModel,
        inputs: Inputs,
        count: int,
        known: Sequence[str],
        seed: int,
        resume: bool,
    ) -> list[str]:
        """At most `count` texts that the language model generates, other than the known ones; 0: none.

        They are beside the checkpoint from then on: a training that is resumed takes them from there. The first process
        generates them, for all.
        """
        job, path = self._job, self._job.unfinished.generated

        def generate() -> list[str]:
            kept = resume and path.exists()
            if count == 0 and not kept:
                return []
            known_tokens = encode_texts(known, inputs.tokenizer, inputs.vocabulary)
            about = {
                "generated texts": count,
                "seed": seed,
                "language model": self.about["language model"],
                "times that it read the texts": self.about["times it read the texts to train on"],
                "data": fingerprint(inputs.parts[0], EncodedTexts.unlabelled(known_tokens)),
            }
            if kept:
                return load_texts(path, about)
            longest = int(np.diff(inputs.parts[0].tokens.offsets).max())
            with counting("texts", count, job.console) as done:
                generated = generate_texts(language_model, count, longest, seed, done)
            # By their tokens: the text that is made of these has other white space than the one they came from.
            seen = {tuple(inputs.tokenizer(text)) for text in known}
            texts = [text for text in generated if tuple(inputs.tokenizer(text)) not in seen]
            job.unfinished.begin(resume)
            save_texts(path, texts, about)
            return texts

        texts = job.first_has(generate)
        if count:
            such = f", such as: {texts[0]}" if texts else ""
            job.say(f"{len(texts):,} other texts, by the language model{such}")
            self.about["texts that the language model generated"] = len(texts)
        return texts

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
        path = self._job.unfinished.distilled

        def read() -> float | None:
            return work.read(path) if resume and self._job.ranks.rank == 0 and path.exists() else None

        kept = self._job.on_first_then_others(read)
        number = torch.tensor([kept is not None, kept or 0.0], dtype=torch.float64)
        there, cosine = self._job.ranks.sum(number).tolist()
        if not there:
            self._job.say(
                f"{encoder}: reads the {len(texts):,} texts to train on; the model learns what it makes of them"
            )
            cosine = work.run(self._job.console, self._job.ranks)
            if self._job.ranks.rank == 0:
                self._job.unfinished.begin(resume)
                work.write(path, cosine)
        self._job.say(f"{encoder}: the model's vectors of texts have a mean cosine of {cosine:.2f} with its own")
        self.about |= about_encoder(encoder, options, cosine)
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
        path = self._job.unfinished.guesses

        def read() -> Guesses | None:
            there = resume and self._job.ranks.rank == 0 and path.exists()
            return read_guesses(path, tokens, teachers.about) if there else None

        guesses = shared_guesses(self._job.on_first_then_others(read), tokens, len(inputs.labels), self._job.ranks)
        if guesses is None:
            guesses = teachers.guess(inputs, texts, tokens, self._job.ranks, self._job.console, self._job.say)
            if self._job.ranks.rank == 0:
                self._job.unfinished.begin(resume)
                write_guesses(path, guesses, teachers.about)
        counts = torch.bincount(guesses.labels, minlength=len(inputs.labels)).tolist()
        found = ", ".join(f"{count:,} {label}" for label, count in zip(inputs.labels, counts, strict=True) if count)
        mean = guesses.confidence.mean().item()
        self._job.say(f"{len(guesses):,} texts without labels, by the teachers: {found}; they are {mean:.0%} sure")
        if sources:
            self.about["texts without labels"] = ", ".join(sources)
        if variants:
            self.about["variants of each text"] = variants
        self.about |= {"their number": len(guesses), **teachers.about, "how sure these were": round(mean, 3)}
        train, held_out = inputs.parts
        return dataclasses.replace(inputs, parts=[with_guesses(train, guesses, teachers.soft), held_out])

    def _check_classes(self, parts: Sequence[LabelledTexts], labels: list[str]) -> None:
        if missing := missing_classes(self._file, parts[0], labels):
            self._job.say(f"note: the texts to train on have none labelled {', '.join(map(repr, missing))}")

    def _say_what_there_is(self, inputs: Inputs) -> None:
        train, held_out = map(len, inputs.parts)
        self._job.say(
            f"{train + held_out:,} texts, {len(inputs.labels)} classes; {train:,} to train on, {held_out:,} held out; "
            f"vocabulary of {len(inputs.vocabulary):,}"
        )
