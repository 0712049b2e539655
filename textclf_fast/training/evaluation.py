"""How good a model is on some data."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from textclf_fast.text import Batches, LengthBucketSampler, ShuffledBatches
from textclf_fast.training.distributed import ALONE, Ranks
from textclf_fast.training.encoded import EncodedTexts, Layout
from textclf_fast.training.metrics import accuracy, confusion_matrix, macro_f1
from textclf_fast.training.results import Evaluation


@torch.no_grad()
def evaluate(
    model: nn.Module,
    data: EncodedTexts,
    batch_size: int = 32,
    layout: Layout = "packed",
    bucket: bool = True,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """The model's loss and metrics, in eval mode; leaves it in the mode it was in.

    Args:
        model: as in `fit`.
        data: what it is tested on; its weights, where it has any, are those of the mean loss and of the metrics.
        batch_size, layout: as in `TrainingOptions`.
        bucket: texts in the order of their lengths, instead of that of `data`: faster, and the same to a model that is
            indifferent to padding.
        ranks: processes that share the batches out among them; all of them get the result.

    Raises:
        ValueError: there is no data.
    """
    if len(data) == 0:
        raise ValueError("data: expected at least one text, got none")
    device = device_of(model)
    was_training = model.training
    model.eval()
    loss = 0.0
    counts: Tensor | None = None
    batches = list(make_batches(data, batch_size, bucket, shuffle=False))
    # A process that has none takes the first one, to learn how many classes there are, and counts it as nothing.
    mine, share = (batches[ranks.rank :: ranks.size], 1) if ranks.rank < len(batches) else (batches[:1], 0)
    for rows in mine:
        inputs, labels = data.batch(rows, layout, device)
        logits = model(*inputs)
        weights = data.weights_of(rows, device)
        if weights is None:
            loss += share * functional.cross_entropy(logits, labels, reduction="sum").item()
        else:
            loss += share * float(functional.cross_entropy(logits, labels, reduction="none").double() @ weights)
        part = share * confusion_matrix(labels, logits.argmax(1), logits.size(1), weights)
        counts = part if counts is None else counts + part
    model.train(was_training)
    assert counts is not None  # there is at least one batch
    if ranks.size > 1:
        sums = ranks.sum(torch.cat([torch.tensor([loss], dtype=torch.float64), counts.flatten().cpu().double()]))
        loss, counts = float(sums[0]), sums[1:].view_as(counts)
    total = len(data) if data.weights is None else float(data.weights.sum())
    return Evaluation(loss / total, accuracy(counts), macro_f1(counts))


@torch.no_grad()
def compute_logits(model: nn.Module, data: EncodedTexts, batch_size: int = 64) -> Tensor:
    """Logits (n, C) float32 on the CPU, in the order of the texts; computed in that of their lengths."""
    device = device_of(model)
    was_training = model.training
    model.eval()
    parts, places = [], []
    for rows in make_batches(data, batch_size, bucket=True, shuffle=False):
        inputs, _ = data.batch(rows, "packed", device)
        parts.append(model(*inputs).float().cpu())
        places.append(torch.from_numpy(rows))
    model.train(was_training)
    found = torch.cat(parts)
    return torch.empty_like(found).index_copy_(0, torch.cat(places), found)


def make_batches(data: EncodedTexts, batch_size: int, bucket: bool, shuffle: bool, seed: int = 0) -> Batches:
    """Batches of similar lengths, or of any."""
    if bucket:
        return LengthBucketSampler(data.tokens.lengths, batch_size, shuffle=shuffle, seed=seed)
    return ShuffledBatches(len(data), batch_size, shuffle=shuffle, seed=seed)


def device_of(model: nn.Module) -> torch.device:
    """Where its weights are."""
    return next(model.parameters()).device
