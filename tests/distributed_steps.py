"""Some steps of training, by one process or as one of two ranks: ``python distributed_steps.py RANK FOLDER``.

Everything is in float64, so that what differs in the order of sums alone agrees to many digits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from textclf_fast import FusedEmbeddingLSTM, FusedLSTM, TextClassifier, fuse
from textclf_fast.models import PlainTextClassifier
from textclf_fast.optim import DeferredAdam

RANKS = 2
_V, _T, _B, _CLASSES = 40, 11, 6, 3
Optimizer = Callable[[nn.Module], torch.optim.Optimizer]


class Result(NamedTuple):
    """What a case came to, on one rank or in one process.

    Attributes:
        losses: of each step, of this rank's rows.
        scores: (steps + 2, B, classes), of the whole batch without gradients: twice after each step (once without what
            inference keeps, once with it), and after other weights were loaded.
        state: the state_dict, whole.
    """

    losses: list[float]
    scores: Tensor
    state: dict[str, Tensor]


class _Head(nn.Module):
    """An encoder and a linear layer on the last hidden states."""

    def __init__(self, encoder: nn.Module, vectors: bool = False) -> None:
        super().__init__()
        self.encoder = encoder
        self.fc = nn.Linear(8, _CLASSES)
        self.vectors = torch.randn(_V, 5, dtype=torch.float64) if vectors else None

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        if self.vectors is None:
            _, (h_n, _) = self.encoder(ids, lengths)
        elif isinstance(self.encoder, FusedLSTM):
            _, (h_n, _) = self.encoder(self.vectors[ids], lengths=lengths)
        else:
            packed = nn.utils.rnn.pack_padded_sequence(self.vectors[ids], lengths, enforce_sorted=False)
            _, (h_n, _) = self.encoder(packed)
        return self.fc(h_n[-1])


def _classifier(**options: Any) -> nn.Module:
    return TextClassifier(_V, 5, 8, _CLASSES, **options)


def _plain() -> nn.Module:
    return PlainTextClassifier(_V, 5, 8, _CLASSES)


def _fused_by_name() -> nn.Module:
    model = _plain()
    fuse(model, pairs=[("embedding", "lstm")])
    return model


def _adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.05)


def _sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.5)


def _deferred(model: nn.Module) -> torch.optim.Optimizer:
    return DeferredAdam(model.parameters(), model, lr=0.05)


@dataclass(frozen=True)
class Case:
    """A model, its optimizer, and how it is spread over ranks: "ddp", or "fsdp" with these children sharded apart."""

    make: Callable[[], nn.Module]
    optimizer: Optimizer = _adam
    spread: str = "ddp"
    apart: tuple[str, ...] = ()


CASES = {
    "dense": Case(lambda: _classifier(num_layers=2, bidirectional=True)),
    "sparse": Case(lambda: _classifier(sparse=True), _sgd),
    "deferred": Case(lambda: _classifier(sparse=True), _deferred),
    "fuse": Case(_fused_by_name),
    "fsdp nn.LSTM": Case(lambda: _Head(nn.LSTM(5, 8), vectors=True), spread="fsdp", apart=("encoder",)),
    "fsdp FusedLSTM": Case(lambda: _Head(FusedLSTM(5, 8), vectors=True), spread="fsdp", apart=("encoder",)),
    "fsdp FusedEmbeddingLSTM": Case(lambda: _Head(FusedEmbeddingLSTM(_V, 5, 8)), spread="fsdp", apart=("encoder",)),
    "fsdp TextClassifier": Case(_classifier, spread="fsdp"),
    "fsdp fuse": Case(_fused_by_name, spread="fsdp", apart=("embedding", "lstm")),
}


def _batches(steps: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """ids (T, B), lengths (B,) and labels (B,)."""
    generator = torch.Generator().manual_seed(5)
    for _ in range(steps):
        ids = torch.randint(1, _V, (_T, _B), generator=generator)
        lengths = torch.randint(1, _T + 1, (_B,), generator=generator)
        yield ids, lengths, torch.randint(_CLASSES, (_B,), generator=generator)


def make(name: str) -> nn.Module:
    """The model of a case, with the same weights everywhere."""
    torch.manual_seed(1)
    return CASES[name].make().double()


def run(model: nn.Module, optimizer: Optimizer, rows: slice = slice(None), steps: int = 4) -> Result:
    """Trains on some rows of each batch."""
    step_of = optimizer(getattr(model, "module", model))
    losses, scores = [], []
    for ids, lengths, labels in _batches(steps):
        loss = functional.cross_entropy(model(ids[:, rows], lengths[rows]), labels[rows])
        step_of.zero_grad()
        loss.backward()
        step_of.step()
        losses.append(loss.item())
        with torch.no_grad():
            scores += [model(ids, lengths) for _ in range(2)]
    with torch.no_grad():
        for factor in (1.5, -0.5):
            # Twice, so that whoever keeps what was made of the first ones is caught.
            model.load_state_dict({key: weight * factor for key, weight in model.state_dict().items()})
            scores += [model(ids, lengths) for _ in range(3)]
    return Result(losses, torch.stack(scores), _whole(model))


def _whole(model: nn.Module) -> dict[str, Tensor]:
    state = getattr(model, "module", model).state_dict()
    return {key: t.full_tensor() if hasattr(t, "full_tensor") else t for key, t in state.items()}


def _spread(model: nn.Module, case: Case) -> nn.Module:
    if case.spread == "ddp":
        return nn.parallel.DistributedDataParallel(model)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (RANKS,))
    for child in case.apart:
        fully_shard(model.get_submodule(child), mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def _main(rank: int, folder: Path) -> None:
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    each = _B // RANKS
    results = {}
    for name, case in CASES.items():
        try:
            result = run(_spread(make(name), case), case.optimizer, slice(rank * each, (rank + 1) * each))
            results[name] = tuple(result)
        except Exception as error:
            results[name] = f"{type(error).__name__}: {error}"
    torch.save(results, folder / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    _main(int(sys.argv[1]), Path(sys.argv[2]))
