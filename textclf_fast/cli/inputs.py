"""From a file of labelled texts to what training takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from textclf_fast.cli.arguments import blame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console

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
    from textclf_fast.text import DATASETS, is_named, load_dataset, read_labelled

    if is_named(file, DATASETS):
        data = load_dataset(file)
        if classes is not None:
            check_known(file, data, classes)
        return data
    return read_labelled(file, text, label, group, classes=classes)


def read_unlabelled(source: str, text: str, say: Callable[[str], None] | None = None) -> Iterator[str]:
    """The texts of a file, or of a corpus or data set of this name: of this, those to train on.

    Raises:
        DataError: it cannot be read.
    """
    from textclf_fast.text import CORPORA, DATASETS, is_named, load_unlabelled, read_texts

    named = is_named(source, DATASETS | CORPORA)
    yield from load_unlabelled(source, say) if named else read_texts(source, text)


def unlabelled_texts(sources: Sequence[str], text: str, labelled: Sequence[LabelledTexts]) -> list[str]:
    """The texts of all sources, but for those that have a label, to train on or held out.

    Raises:
        DataError: one cannot be read, or there is no other text.
    """
    from textclf_fast.text import DataError, same_text

    known = {same_text(each) for part in labelled for each in part.texts}
    texts = [each for source in sources for each in read_unlabelled(source, text) if same_text(each) not in known]
    if sources and not texts:
        raise DataError(f"{', '.join(sources)}: expected a text without a label, there is none")
    return texts


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


def read_class_weights(given: str | None, labels: list[str]) -> Literal["balanced"] | tuple[float, ...] | None:
    """What --class-weights says: "balanced", or LABEL=NUMBER,..., with 1 for the labels that it leaves out."""
    if given is None or given == "balanced":
        return given  # type: ignore[return-value]  # mypy does not narrow a str to what it equals
    from textclf_fast.training import TrainingOptions

    weights = dict.fromkeys(labels, 1.0)
    with blame("--class-weights"):
        for entry in given.split(","):
            name, equals, number = entry.rpartition("=")
            if not equals:
                raise ValueError(f"expected 'balanced' or LABEL=NUMBER,..., got {entry!r}")
            if name not in weights:
                raise ValueError(f"label {name!r} is none of {labels}")
            try:
                weights[name] = float(number)
            except ValueError:
                raise ValueError(f"expected a number behind {name}=, got {number!r}") from None
        return TrainingOptions(class_weights=tuple(weights.values())).class_weights


def find_vectors(
    sources: Sequence[str],
    vocabulary: Vocabulary,
    tokenizer: Tokenizer,
    max_size: int = 0,
    console: Console | None = None,
) -> InitialVectors:
    """As `find_initial_vectors`, with a bar."""
    from rich.console import Console

    from textclf_fast.training.initial_vectors import find_initial_vectors
    from textclf_fast.training.progress import counting

    with blame("--vectors"), counting("word vectors", None, console or Console(stderr=True)) as done:
        return find_initial_vectors(sources, vocabulary, tokenizer, max_size, done)


def about_vectors(found: InitialVectors, say: Callable[[str], None]) -> dict[str, str]:
    """Says what word vectors a training begins with; what a model's card says of them."""
    from textclf_fast.text import ENCODERS, VECTORS
    from textclf_fast.text.catalogue import cited

    say(str(found))
    return {
        "word vectors": "; ".join(cited(source, {**VECTORS, **ENCODERS}) for source in found.sources),
        "tokens with a vector": f"{found.num_known:,} of the {found.num_seen:,} of the texts",
    }


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
        vectors: Sequence[str] = (),
        unlabelled: Sequence[str] = (),
        console: Console | None = None,
    ) -> Inputs:
        """With a tokenizer of this kind, the vocabulary of the texts to train on; and these word vectors, if any."""
        from textclf_fast.text import Vocabulary, tokenizer_for

        texts = [*parts[0].texts, *unlabelled]
        with blame("--tokenizer"):  # too small a vocabulary, a package that is missing
            tokenizer = tokenizer_for(kind, texts, vocab_size)
        vocabulary = Vocabulary.build(map(tokenizer, texts), vocab_size, min_frequency)
        if not vectors:
            return cls.of(parts, labels, vocabulary, tokenizer)
        found = find_vectors(vectors, vocabulary, tokenizer, vocab_size, console)
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
