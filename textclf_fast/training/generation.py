"""Texts that a language model generates: more of the kind that it has read, for others to say what they are.

X. He, I. Nassar, J. Kiros, G. Haffari and M. Norouzi, Generate, Annotate, and Learn: NLP with Synthetic Text, TACL
2022: a language model that has read a task's texts generates others, a teacher labels them, and a smaller model learns
from both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textclf_fast.models import LanguageModel
from textclf_fast.storage.no_random_weights import NoRandomWeights
from textclf_fast.text import END_ID, UNK_ID, DataError
from textclf_fast.training.checkpoint_file import check_about, read_checkpoint, write_checkpoint
from textclf_fast.training.language_model_files import SavedLanguageModel

_ROWS = 64  # that are written side by side: the scores of so many words are 5 MB at V = 20,000


def generate_texts(
    language_model: SavedLanguageModel,
    count: int,
    longest: int,
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> list[str]:
    """Texts as a language model writes them, each word drawn with the probability that the model gives it.

    Args:
        language_model: on the CPU; of one that reads in both directions the forward half writes.
        count: how many to generate; 0: none.
        longest: tokens of one; what is longer is cut.
        seed: of what is drawn.
        on_progress: called with the number of texts that are there.

    Returns:
        at most `count` texts, all of them different and none of them empty.

    Raises:
        ValueError: count below 0, or longest below 1.
    """
    for name, number, least in (("count", count, 0), ("longest", longest, 1)):
        if number < least:
            raise ValueError(f"{name}: expected at least {least}, got {number}")
    vocabulary, tokenizer = language_model.vocabulary, language_model.tokenizer
    texts: dict[str, None] = {}  # a set that knows the order
    for done, ids in enumerate(_streams(forward_half(language_model.model), count, longest, seed), 1):
        texts.setdefault(tokenizer.detokenize([vocabulary.tokens[number] for number in ids]))
        if on_progress is not None:
            on_progress(done)
    texts.pop("", None)
    return list(texts)


def save_texts(path: Path, texts: Sequence[str], about: Mapping[str, Any]) -> None:
    """Keeps them; the file is replaced as a whole.

    Args:
        path: the file.
        texts: what is kept.
        about: what they were generated for, as JSON has it.

    Raises:
        OSError: it cannot be written.
    """
    content = torch.frombuffer(bytearray(json.dumps(texts), "ascii"), dtype=torch.uint8)
    write_checkpoint(path, {"texts": content}, {"about": dict(about)})


def load_texts(path: Path, about: Mapping[str, Any]) -> list[str]:
    """What `save_texts` kept.

    Raises:
        textclf_fast.text.DataError: they were generated for something else, or it is no such file.
    """
    tensors, entries = read_checkpoint(path)
    check_about(path, entries.get("about"), about)
    try:
        return [str(text) for text in json.loads(tensors["texts"].numpy().tobytes())]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: expected texts as `train` keeps them: {error}") from error


def forward_half(model: LanguageModel) -> LanguageModel:
    """What guesses the next word, as a model of its own, in eval mode; it shares the weights."""
    with NoRandomWeights():
        half = LanguageModel(**{**model.config, "bidirectional": False})
    own = half.state_dict()
    half.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name in own}, assign=True)
    return half.eval()


@torch.no_grad()
def _streams(model: LanguageModel, count: int, longest: int, seed: int) -> Iterator[list[int]]:
    """The ids of `count` texts. Each row of a batch is a stream of them, as the model has read them."""
    generator = torch.Generator().manual_seed(seed)
    rows = min(max(count, 1), _ROWS)
    left = [count // rows + (row < count % rows) for row in range(rows)]
    texts: list[list[int]] = [[] for _ in left]
    ids, states = torch.full((1, rows), END_ID), None
    while any(left):
        output, states = model(ids, states)
        scores = model.scores(output)[0]
        scores[..., UNK_ID] = -torch.inf  # is no word
        ids = _draw(scores.softmax(-1), generator)
        for row, number in enumerate(ids[0].tolist()):
            text = texts[row]
            if number != END_ID:
                text.append(number)
            if number == END_ID or len(text) == longest:
                ids[0, row] = END_ID
                texts[row] = []
                if left[row]:
                    left[row] -= 1
                    yield text


def _draw(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """One of V numbers for each of probabilities (..., V); torch.multinomial takes twice as long."""
    sums = probabilities.cumsum(-1, dtype=torch.float64)
    points = torch.rand((*sums.shape[:-1], 1), dtype=torch.float64, generator=generator) * sums[..., -1:]
    return torch.searchsorted(sums, points, right=True).squeeze(-1).clamp_(max=sums.size(-1) - 1)
