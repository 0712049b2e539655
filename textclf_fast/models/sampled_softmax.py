"""The cross-entropy of a large vocabulary at the cost of a part of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Candidates:
    """The words that a step compares with each target: the most frequent ones, and a sample of the others.

    Attributes:
        ids: (K,) int64.
        log_weights: (K,) float32, what is added to each one's score: 0 for a frequent word, -log(expected number of
            its copies in the sample) for another, so that the sum of exp(score) over them has the expectation of the
            sum over the vocabulary.
    """

    ids: Tensor
    log_weights: Tensor

    @classmethod
    def draw(cls, vocab_size: int, frequent: int, samples: int) -> Candidates:
        """From a vocabulary in the order of frequency, most frequent first, as :class:`Vocabulary` has it.

        The others are drawn with replacement, a word at place r with a probability proportional to
        log((r + 2) / (r + 1)): what the frequencies of words are like (Zipf), so that no counts need be known.

        Args:
            vocab_size: V.
            frequent: how many words are always compared.
            samples: how many of the others are drawn.

        Returns:
            frequent + samples candidates; all V, each once, where that is no more.

        Raises:
            ValueError: frequent or samples below 1.
        """
        for name, number in (("frequent", frequent), ("samples", samples)):
            if number < 1:
                raise ValueError(f"{name}: expected at least 1, got {number}")
        if frequent + samples >= vocab_size:
            return cls(torch.arange(vocab_size), torch.zeros(vocab_size))
        # The distribution function at r is log((r + 1) / (frequent + 1)) / span: drawn by its inverse.
        span = math.log((vocab_size + 1) / (frequent + 1))
        places = (torch.rand(samples, dtype=torch.float64) * span).exp() * (frequent + 1) - 1
        others = places.long().clamp(frequent, vocab_size - 1)
        copies = (1 / (others + 1.0)).log1p() * (samples / span)
        weights = torch.cat((torch.zeros(frequent), -copies.log()))
        return cls(torch.cat((torch.arange(frequent), others)), weights)


def sampled_cross_entropy(
    vectors: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, candidates: Candidates
) -> Tensor:
    """The mean of -log softmax(vectors @ weight.T + bias)[targets], the softmax's sum estimated from candidates.

    The target's own term is taken as it is and that of every other word by importance sampling: Y. Bengio and J.-S.
    Senécal, Quick Training of Probabilistic Neural Nets by Importance Sampling, AISTATS 2003; one sample for all
    positions, as in S. Jean et al., On Using Very Large Target Vocabulary for Neural Machine Translation, ACL 2015.
    The sum has the right expectation, its logarithm is a little low. With all words as candidates the loss is exact.

    Args:
        vectors: (N, I).
        targets: (N,) int64.
        weight, bias: (V, I) and (V,).
        candidates: of the V words.

    Returns:
        a scalar.
    """
    ids = candidates.ids
    own = (vectors * functional.embedding(targets, weight)).sum(1) + bias[targets]
    others = torch.addmm(bias[ids] + candidates.log_weights, vectors, functional.embedding(ids, weight).t())
    others.masked_fill_(targets.unsqueeze(1) == ids, -torch.inf)
    return (torch.logaddexp(others.logsumexp(1), own) - own).mean()
