"""Self-training: a classifier learns from texts without a label as well, by what its teachers guess of them.

The teachers are classifiers of the same kind, each trained on the labelled texts alone from other random numbers. The
mean of their answers is right more often than any of them, and so is who learns from it: H. J. Scudder, Probability of
Error of Some Adaptive Pattern-Recognition Machines, IEEE Transactions on Information Theory 11, 1965; with dropout in
the learner alone, Q. Xie, M.-T. Luong, E. Hovy and Q. V. Le, Self-Training With Noisy Student Improves ImageNet
Classification, CVPR 2020. Or the teacher is another one that knows more, `encoder_teacher`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from textclf_fast.text import DataError, RaggedTokens
from textclf_fast.training.checkpoint_file import check_about, read_checkpoint, write_checkpoint
from textclf_fast.training.encoded import EncodedTexts
from textclf_fast.training.evaluation import compute_logits
from textclf_fast.training.resume import fingerprint


@dataclass(frozen=True, eq=False)
class Guesses:
    """What teachers say of n texts without a label.

    Attributes:
        tokens: n rows of token ids.
        probabilities: (n, C) float64, of the classes of each.
    """

    tokens: RaggedTokens
    probabilities: Tensor

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def labels(self) -> Tensor:
        """(n,) int64, the most probable class of each."""
        return self.probabilities.argmax(1)

    @property
    def confidence(self) -> Tensor:
        """(n,) float64, the probability of that class."""
        return self.probabilities.amax(1)


def guess(teachers: Iterable[nn.Module], tokens: RaggedTokens) -> Guesses:
    """The mean of the probabilities that teachers give the classes of each text.

    Args:
        teachers: as in `fit`; one after the other, in eval mode, and left in the mode that each was in. They may come
            from a generator, so that one at a time is in memory.
        tokens: the texts, none of them empty.

    Raises:
        ValueError: no teacher, or no texts.
    """
    texts = EncodedTexts.unlabelled(tokens)
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
    return Guesses(tokens, total / count)


def write_guesses(path: Path, guesses: Guesses, teachers: Mapping[str, Any]) -> None:
    """Keeps them; the file is replaced as a whole.

    Args:
        path: the file.
        guesses: what is kept.
        teachers: whose they are, as JSON has it.

    Raises:
        OSError: it cannot be written.
    """
    write_checkpoint(path, {"probabilities": guesses.probabilities}, {"about": _about(guesses.tokens, teachers)})


def read_guesses(path: Path, tokens: RaggedTokens, teachers: Mapping[str, Any]) -> Guesses:
    """What `write_guesses` wrote of these texts, by these teachers.

    Raises:
        textclf_fast.text.DataError: it is of others, or no such file.
    """
    tensors, entries = read_checkpoint(path)
    check_about(path, entries.get("about"), _about(tokens, teachers))
    try:
        return Guesses(tokens, tensors["probabilities"])
    except KeyError as error:
        raise DataError(f"{path}: expected guesses as `train` writes them, there is no {error}") from error


def _about(tokens: RaggedTokens, teachers: Mapping[str, Any]) -> dict[str, Any]:
    return {"teachers": dict(teachers), "data": fingerprint(EncodedTexts.unlabelled(tokens))}


def with_guesses(labelled: EncodedTexts, guesses: Guesses, soft: bool = False) -> EncodedTexts:
    """Both, as texts to train on; a label weighs 1, or what it weighed before.

    Args:
        labelled: texts with labels.
        guesses: of other texts.
        soft: how these are learnt from. False: the most probable class is the label, and weighs as much as it is
            probable. True: the probabilities of all classes are the label, and it weighs 1, as G. Hinton, O. Vinyals
            and J. Dean, Distilling the Knowledge in a Neural Network, 2015, with a teacher who knows better.
    """
    own = labelled.weights if labelled.weights is not None else torch.ones(len(labelled), dtype=torch.float64)
    values = np.concatenate([labelled.tokens.values, guesses.tokens.values])
    offsets = np.concatenate([labelled.tokens.offsets, labelled.tokens.offsets[-1] + guesses.tokens.offsets[1:]])
    tokens, labels = RaggedTokens(values, offsets), torch.cat([labelled.labels, guesses.labels])
    if not soft:
        return EncodedTexts(tokens, labels, torch.cat([own, guesses.confidence]))
    known = labelled.probabilities
    if known is None:
        known = one_hot(labelled.labels, guesses.probabilities.size(1)).double()
    weights = None if labelled.weights is None else torch.cat([own, torch.ones(len(guesses), dtype=torch.float64)])
    return EncodedTexts(tokens, labels, weights, torch.cat([known, guesses.probabilities]))
