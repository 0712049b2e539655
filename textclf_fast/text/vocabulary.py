"""Words <-> numbers."""

from __future__ import annotations

import functools
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import textclf_fast._host as _host  # type: ignore[import-not-found]  # compiled: no source that mypy could read
from textclf_fast.text.errors import DataError
from textclf_fast.text.files import write_atomically

PAD_ID = 0
UNK_ID = 1
_SPECIAL = ("<pad>", "<unk>")


class Vocabulary:
    """An immutable list of distinct tokens; a token's id is its place. Id 0 is `<pad>`, id 1 `<unk>`.

    Args:
        tokens: All tokens in the order of their ids, beginning with `<pad>`, `<unk>`.

    Raises:
        ValueError: The list does not begin with the two, or holds a token twice.
        TypeError: A token is not a str.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        self._tokens = tuple(tokens)
        for place, token in enumerate(self._tokens):
            if not isinstance(token, str):
                raise TypeError(f"tokens: expected str at place {place}, got {type(token).__name__}")
        if self._tokens[:2] != _SPECIAL:
            raise ValueError(f"tokens: expected {_SPECIAL} at the beginning, got {self._tokens[:2]}")
        self._ids = {token: place for place, token in enumerate(self._tokens)}
        if len(self._ids) < len(self._tokens):
            twice = next(token for place, token in enumerate(self._tokens) if self._ids[token] != place)
            raise ValueError(f"tokens: {twice!r} is there twice")

    @classmethod
    def build(cls, token_lists: Iterable[Iterable[str]], max_size: int = 10_000, min_frequency: int = 1) -> Vocabulary:
        """The most frequent tokens, most frequent first, ties in alphabetical order.

        Args:
            token_lists: The tokens of each text of the training part.
            max_size: Most entries, `<pad>` and `<unk>` among them.
            min_frequency: A token seen less often is left out.

        Raises:
            ValueError: `max_size` < 2 or `min_frequency` < 1.
            TypeError: A text came as one str, not as its tokens.
        """
        if max_size < len(_SPECIAL):
            raise ValueError(f"max_size: expected at least {len(_SPECIAL)}, got {max_size}")
        if min_frequency < 1:
            raise ValueError(f"min_frequency: expected at least 1, got {min_frequency}")
        counts: Counter[str] = Counter()
        for tokens in token_lists:
            if isinstance(tokens, str):
                raise TypeError("token_lists: expected lists of tokens, got a str: tokenize the texts first")
            counts.update(tokens)
        for special in _SPECIAL:
            counts.pop(special, None)
        frequent = sorted(
            (token for token, count in counts.items() if count >= min_frequency), key=lambda t: (-counts[t], t)
        )
        return cls([*_SPECIAL, *frequent[: max_size - len(_SPECIAL)]])

    def __len__(self) -> int:
        return len(self._tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self._tokens == other._tokens

    def __hash__(self) -> int:
        return hash(self._tokens)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} tokens)"

    @property
    def tokens(self) -> list[str]:
        """All tokens, by id."""
        return list(self._tokens)

    def encode(self, tokens: Sequence[str]) -> NDArray[np.int64]:
        """The ids (len(tokens),) int64 of `tokens`; an unknown one becomes `<unk>`.

        Raises:
            TypeError: `tokens` is one str.
        """
        if isinstance(tokens, str):
            raise TypeError("tokens: expected a list of tokens, got a str: tokenize the text first")
        ids = map(self._ids.get, tokens, itertools.repeat(UNK_ID))
        return np.fromiter(ids, dtype=np.int64, count=len(tokens))

    @functools.cached_property
    def word_ids(self) -> Any:
        """The tokens as :func:`textclf_fast.text.ragged.encode_texts` looks up a word tokenizer's: made once."""
        return _host.WordIds(self._tokens, UNK_ID)

    def __reduce__(self) -> tuple[Any, ...]:
        return Vocabulary, (self._tokens,)

    def save(self, path: str | Path) -> None:
        """Writes JSON; `path` holds either what it held before or the whole of it."""
        write_atomically(path, json.dumps({"tokens": self._tokens}, ensure_ascii=False, indent=0) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Reads what `save` wrote.

        Raises:
            DataError: There is no such file, or it holds something else.
        """
        try:
            return cls(json.loads(Path(path).read_bytes())["tokens"])
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        except KeyError as error:
            raise DataError(f"{path}: not a vocabulary: no entry {error}") from error
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(f"{path}: not a vocabulary: {error}") from error
