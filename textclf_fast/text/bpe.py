"""Byte-pair encoding, by Hugging Face's tokenizers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from textclf_fast.text.errors import DataError

if TYPE_CHECKING:
    import tokenizers

_SPECIAL = 2  # entries of a Vocabulary that are no tokens of a text


class BPETokenizer:
    """Splits a text into frequent sequences of bytes, so that rare words share parts with others.

    Byte-pair encoding as in R. Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units", ACL
    2016, on bytes, as in A. Radford et al., "Language Models are Unsupervised Multitask Learners", 2019: whatever the
    text, its tokens are among some thousands. A token's spelling has one character a byte; `Ġ` is a space, as white
    space of any length is. Needs the extra `bpe`.

    Keeps no state, so it may be shared. Made by `train`, or from the `tokenizer` of a `config`.

    Args:
        tokenizer: What the package tokenizers writes as JSON, decoded.

    Raises:
        ValueError: `tokenizer` is something else.
        DataError: The package tokenizers is not installed.
    """

    def __init__(self, tokenizer: Mapping[str, Any]) -> None:
        package = _package()
        try:
            self._tokenizer: tokenizers.Tokenizer = package.Tokenizer.from_str(json.dumps(tokenizer))
        except Exception as error:  # the package's errors are of no narrower class
            raise ValueError(f"tokenizer: {error}") from error

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 10_000, lower: bool = True) -> BPETokenizer:
        """Learns which sequences are frequent.

        Args:
            texts: The texts of the training part; gone through once.
            vocab_size: Most entries of a Vocabulary of the tokens, `<pad>` and `<unk>` among them; 256 are single
                bytes.
            lower: Capital letters become small ones.

        Raises:
            ValueError: `vocab_size` < 258.
            TypeError: `texts` is one str, or one is not a str.
            DataError: The package tokenizers is not installed.
        """
        package = _package()
        if vocab_size < 256 + _SPECIAL:
            raise ValueError(
                f"vocab_size: expected at least {256 + _SPECIAL}, of which 256 are bytes, got {vocab_size}"
            )
        if isinstance(texts, str):
            raise TypeError("texts: expected texts, got a str")
        bytes_of = package.pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer = package.Tokenizer(package.models.BPE())
        normal_forms = [package.normalizers.NFC(), *([package.normalizers.Lowercase()] if lower else [])]
        tokenizer.normalizer = package.normalizers.Sequence(normal_forms)
        tokenizer.pre_tokenizer = bytes_of
        trainer = package.trainers.BpeTrainer(
            vocab_size=vocab_size - _SPECIAL, initial_alphabet=bytes_of.alphabet(), show_progress=False
        )
        tokenizer.train_from_iterator(map(_clean, texts), trainer)
        return cls(json.loads(tokenizer.to_str()))

    @property
    def config(self) -> dict[str, Any]:
        return {"kind": "bpe", "tokenizer": json.loads(self._tokenizer.to_str())}

    def __call__(self, text: str) -> list[str]:
        """The tokens of `text` in their order; none for a text without a visible character.

        Raises:
            TypeError: `text` is not a str.
        """
        return self._tokenizer.encode(_clean(text), add_special_tokens=False).tokens

    def detokenize(self, tokens: Sequence[str]) -> str:
        """A text of these tokens; bytes that are no character become U+FFFD."""
        text: str = _package().decoders.ByteLevel().decode(list(tokens))
        return text.strip()


def _package() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise DataError(f"bpe needs the package tokenizers ({error}): pip install 'textclf_fast[bpe]'") from error
    return tokenizers


def _clean(text: object) -> str:
    """The text, with half a surrogate pair as a question mark: it has no bytes."""
    if not isinstance(text, str):
        raise TypeError(f"text: expected a str, got {type(text).__name__}")
    text = " ".join(text.split())
    return text if text.isascii() else text.encode(errors="replace").decode()
