"""Gradients that do not depend on the weights, so that what an optimizer makes of them can be compared to rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from textclf_fast.optim import DeferredAdam

V, E = 150, 21
Schedule = Callable[[torch.optim.Optimizer], Any]


def gradients(steps: int, per_step: int = 6) -> Iterator[tuple[Tensor, Tensor]]:
    """Ids (U,), some twice, as frequent as words are, and gradients (U, E) float64.

    Their sizes are from 1e-9 to 1, so that eps = 1e-8 is everything to some rows and nothing to others.
    """
    generator = torch.Generator().manual_seed(1)
    frequency = 1 / torch.arange(1, V + 1, dtype=torch.float64)
    for _ in range(steps):
        ids = torch.multinomial(frequency, per_step, True, generator=generator)
        size = 10 ** (-9 * torch.rand(per_step, 1, generator=generator, dtype=torch.float64))
        yield ids, size * torch.randn(per_step, E, generator=generator, dtype=torch.float64)


def embedding(dtype: torch.dtype, sparse: bool) -> nn.Embedding:
    torch.manual_seed(0)
    weight = torch.randn(V, E, dtype=torch.float64)
    return nn.Embedding.from_pretrained(weight.to(dtype), freeze=False, sparse=sparse)


def sparse_gradient(ids: Tensor, values: Tensor) -> Tensor:
    return torch.sparse_coo_tensor(ids.unsqueeze(0), values, (V, E), check_invariants=True)


def train_deferred(
    dtype: torch.dtype,
    steps: int,
    schedule: Schedule | None = None,
    each_step: Callable[[DeferredAdam, int], None] | None = None,
    **options: Any,
) -> Tensor:
    """The weight after some steps of DeferredAdam, each row looked up before it has a gradient."""
    module = embedding(dtype, sparse=True)
    optimizer = DeferredAdam(module.parameters(), module, **options)
    scheduler = schedule(optimizer) if schedule else None
    for step, (ids, values) in enumerate(gradients(steps)):
        module(ids)
        module.weight.grad = sparse_gradient(ids, values.to(dtype))
        optimizer.step()
        if scheduler:
            scheduler.step()
        if each_step:
            each_step(optimizer, step)
    optimizer.detach()
    return module.weight.detach()


def train_pytorch(dtype: torch.dtype, steps: int, schedule: Schedule | None = None, **options: Any) -> Tensor:
    """The same with torch.optim.Adam on dense gradients."""
    module = embedding(dtype, sparse=False)
    optimizer = torch.optim.Adam(module.parameters(), **options)
    scheduler = schedule(optimizer) if schedule else None
    for ids, values in gradients(steps):
        module.weight.grad = sparse_gradient(ids, values.to(dtype)).to_dense()
        optimizer.step()
        if scheduler:
            scheduler.step()
    return module.weight.detach()
