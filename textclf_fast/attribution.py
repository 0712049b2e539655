"""Which tokens of a text mattered to a classifier: gradient x input on the embedding.

The score of a class is followed back to the vectors of the text's tokens (K. Simonyan, A. Vedaldi and A. Zisserman,
Deep Inside Convolutional Networks: Visualising Image Classification Models and Saliency Maps, 2014), and each vector is
multiplied by its gradient and summed (A. Shrikumar, P. Greenside, A. Shcherbina and A. Kundaje, Not Just a Black Box:
Learning Important Features Through Propagating Activation Differences, 2016): to first order, what the score would lose
without the token. Where the model is certain, or reads its last state alone, that can point at other tokens than a
person would.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from textclf_fast.models import Classifier


@dataclass(frozen=True)
class Explanation:
    """A prediction, and what each token did for it.

    Attributes:
        label: the most probable one.
        probabilities: of each label, in the model's order.
        tokens: of the text, in their order.
        scores: of each token: above 0 it speaks for the label, below 0 against it.
        known: whether the model's vocabulary has the token.
    """

    label: str
    probabilities: dict[str, float]
    tokens: list[str]
    scores: list[float]
    known: list[bool]


def token_scores(model: Classifier, ids: Tensor, target: int) -> Tensor:
    """Gradient x input of each token for one class.

    What is differentiated is the class's logit less the logarithm of the others' summed exponentials, its log-odds:
    what all logits have in common does not count, and it does not go flat where the class is certain.

    Args:
        model: in eval mode.
        ids: (T,) int64.
        target: the class.

    Returns:
        (T,) in the embedding's dtype.
    """
    with torch.enable_grad():
        vectors = model.embed(ids).detach().requires_grad_()
        logits = model.forward_vectors(ids, vectors)
        others = torch.cat((logits[:target], logits[target + 1 :]))
        (gradient,) = torch.autograd.grad(logits[target] - others.logsumexp(0), vectors)
    return (gradient * vectors.detach()).sum(1)
