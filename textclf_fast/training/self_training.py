"""Self-training: a classifier learns from texts without a label as well, by what its teachers guess of them.

The teachers are classifiers of the same kind, each trained on the labelled texts alone from other random numbers. The
mean of their answers is right more often than any of them, and so is who learns from it: H. J. Scudder, Probability of
Error of Some Adaptive Pattern-Recognition Machines, IEEE Transactions on Information Theory 11, 1965; with dropout in
the learner alone, Q. Xie, M.-T. Luong, E. Hovy and Q. V. Le, Self-Training With Noisy Student Improves ImageNet
Classification, CVPR 2020.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from textclf_fast.text import DataError, RaggedTokens
from textclf_fast.text.files import whole_file
from textclf_fast.training.encoded import EncodedTexts
from textclf_fast.training.evaluation import compute_logits


@dataclass(frozen=True, eq=False)
class Guesses:
    """What teachers say of n texts without a label.

    Attributes:
        tokens: n rows of token ids.
        labels: (n,) int64, the most probable class of each.
        confidence: (n,) float64, its probability.
    """

    tokens: RaggedTokens
    labels: Tensor
    confidence: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def guess(teachers: Iterable[nn.Module], tokens: RaggedTokens) -> Guesses:
    """The mean of the probabilities that teachers give the classes of each text.

    Args:
        teachers: as in `fit`; one after the other, in eval mode, and left in the mode that each was in. They may come
            from a generator, so that one at a time is in memory.
        tokens: the texts, none of them empty.

    Raises:
        ValueError: no teacher, or no texts.
    """
    texts = EncodedTexts(tokens, torch.zeros(len(tokens), dtype=torch.int64))
    if len(texts) == 0:
        raise ValueError("tokens: expected at least one text, got none")
    total: Tensor | None = None
    count = 0
    for teacher in teachers:
        probabilities = compute_logits(teacher, texts).double().softmax(1)
        total = probabilities if total is None else total + probabilities
        count += 1
    if total is None:
        raise ValueError("teachers: expected at least one, got none")
    confidence, labels = (total / count).max(1)
    return Guesses(tokens, labels, confidence)


def write_guesses(path: Path, guesses: Guesses) -> None:
    """Keeps them, as safetensors; the file is replaced as a whole.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors.torch import save

    with whole_file(path) as file:
        file.write(save({"labels": guesses.labels, "confidence": guesses.confidence}))


def read_guesses(path: Path, tokens: RaggedTokens) -> Guesses:
    """What `write_guesses` wrote of these texts.

    Raises:
        textclf_fast.text.DataError: it is of another number of texts, or no such file.
        OSError: it cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found = load(path.read_bytes())
        guesses = Guesses(tokens, found["labels"], found["confidence"])
    except (SafetensorError, KeyError) as error:
        raise DataError(f"{path}: expected guesses as `train` writes them: {error}") from error
    if len(guesses) != len(tokens):
        raise DataError(f"{path}: is of {len(guesses):,} texts without labels, expected {len(tokens):,}")
    return guesses


def with_guesses(labelled: EncodedTexts, guesses: Guesses) -> EncodedTexts:
    """Both, as texts to train on: a guess weighs as much as it is sure, a label 1, or what it weighed before."""
    own = labelled.weights if labelled.weights is not None else torch.ones(len(labelled), dtype=torch.float64)
    values = np.concatenate([labelled.tokens.values, guesses.tokens.values])
    offsets = np.concatenate([labelled.tokens.offsets, labelled.tokens.offsets[-1] + guesses.tokens.offsets[1:]])
    return EncodedTexts(
        RaggedTokens(values, offsets),
        torch.cat([labelled.labels, guesses.labels]),
        torch.cat([own, guesses.confidence]),
    )
