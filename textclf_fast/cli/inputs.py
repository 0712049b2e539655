"""From a file of labelled texts to what training takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from textclf_fast.cli.arguments import blame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textclf_fast.text import LabelledTexts, Tokenizer, Vocabulary
    from textclf_fast.training import EncodedTexts
    from textclf_fast.training.initial_vectors import InitialVectors


def read_data(
    file: str, text: str, label: str, group: str | None, classes: Sequence[str] | None = None
) -> LabelledTexts:
    """The texts of a file, or of a data set of this name; with `classes`, those that a model knows, of no others.

    Raises:
        DataError: it cannot be read, or has another class.
    """
    from textclf_fast.text import DATASETS, load_dataset, read_labelled

    if file in DATASETS and not Path(file).exists():
        data = load_dataset(file)
        if classes is not None:
            check_known(file, data, classes)
        return data
    return read_labelled(file, text, label, group, classes=classes)


def check_known(file: str, data: LabelledTexts, classes: Sequence[str]) -> None:
    """Refuses texts of a class that a model does not know.

    Raises:
        DataError: there are some.
    """
    from textclf_fast.text import DataError

    if unknown := sorted(set(data.classes) - set(classes)):
        raise DataError(f"{file}: label {unknown[0]!r} is none of the {len(classes)} that the model knows")


def missing_classes(file: str, train_part: LabelledTexts, classes: Sequence[str]) -> list[str]:
    """Those that there is no text of to train on.

    Raises:
        DataError: there is one class alone to train on.
    """
    from textclf_fast.text import DataError

    if len(train_part.classes) < 2:
        raise DataError(f"{file}: the texts to train on are all labelled {train_part.classes[0]!r}: too few texts")
    return [name for name in classes if name not in train_part.classes]


@dataclass(frozen=True)
class Inputs:
    """Parts of the data as numbers, the one to train on first, and what made them so."""

    parts: list[EncodedTexts]
    labels: list[str]
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    vectors: InitialVectors | None = None

    @classmethod
    def encode(
        cls,
        parts: Sequence[LabelledTexts],
        labels: list[str],
        kind: str,
        vocab_size: int,
        min_frequency: int,
        vectors: str | None = None,
    ) -> Inputs:
        """With a tokenizer of this kind, and the vocabulary of the first part; and these word vectors, if any."""
        from textclf_fast.text import Vocabulary, tokenizer_for

        with blame("--tokenizer"):  # too small a vocabulary, a package that is missing
            tokenizer = tokenizer_for(kind, parts[0].texts, vocab_size)
        vocabulary = Vocabulary.build(map(tokenizer, parts[0].texts), vocab_size, min_frequency)
        if vectors is None:
            return cls.of(parts, labels, vocabulary, tokenizer)
        from textclf_fast.training.initial_vectors import find_initial_vectors

        found = find_initial_vectors(vectors, vocabulary, tokenizer, vocab_size)
        return cls.of(parts, labels, found.vocabulary, tokenizer, found)

    @classmethod
    def of(
        cls,
        parts: Sequence[LabelledTexts],
        labels: list[str],
        vocabulary: Vocabulary,
        tokenizer: Tokenizer,
        vectors: InitialVectors | None = None,
    ) -> Inputs:
        """With what is known already."""
        from textclf_fast.training import EncodedTexts

        encoded = [EncodedTexts.from_texts(part, labels, vocabulary, tokenizer) for part in parts]
        return cls(encoded, labels, vocabulary, tokenizer, vectors)
