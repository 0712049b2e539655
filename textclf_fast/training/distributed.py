"""Processes that train one model together, each on its part of every batch."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

# How long a process waits for others that still live: the first alone may fetch or generate texts for an hour or more.
_PATIENCE = datetime.timedelta(days=1)


class Ranks:
    """One process that trains alone.

    Attributes:
        rank: the number of this process among `size`.
    """

    rank = 0
    size = 1

    def part(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """This process's rows of a batch: every size-th, so that batches of similar lengths are fairly shared out."""
        return rows[self.rank :: self.size]

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with gradients that are averaged over all processes, and weights that are those of rank 0."""
        return model

    def sum(self, numbers: Tensor) -> Tensor:
        """The sum over all processes, of float64 numbers on the CPU, in place."""
        return numbers

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, of one shape, on the CPU: (size, ...)."""
        return tensor.unsqueeze(0)

    def first_has(self, content: bytes) -> bytes:
        """What the first process gives, for all of them."""
        return content

    def share_out(self, count: int, work: Callable[[list[int]], Tensor]) -> Tensor:
        """What `work` makes of each of `count` rows, at least 1: of some in each process, for all of them (count, ...).

        Args:
            count: n.
            work: takes numbers of rows, and gives a tensor with a row for each of them.
        """
        mine = self.part(np.arange(count)).tolist() or [0]  # without a row, a process works on another's in vain
        found = work(mine)
        blank = found.new_zeros(-(-count // self.size) - len(found), *found.shape[1:])
        # Rank by rank, as they were dealt out.
        return self.gather(torch.cat([found, blank])).transpose(0, 1).flatten(0, 1)[:count]

    def wait(self) -> None:
        """Until all processes are here."""


ALONE = Ranks()


class GroupRanks(Ranks):
    """The processes of torch.distributed's default group, which has been initialised."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self.rank = dist.get_rank()
        self.size = dist.get_world_size()

    def wrap(self, model: nn.Module) -> nn.Module:
        return nn.parallel.DistributedDataParallel(model) if self.size > 1 else model

    def sum(self, numbers: Tensor) -> Tensor:
        torch.distributed.all_reduce(numbers)
        return numbers

    def gather(self, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        torch.distributed.all_gather(parts, tensor)
        return torch.stack(parts)

    def first_has(self, content: bytes) -> bytes:
        length = torch.tensor([len(content)])
        torch.distributed.broadcast(length, 0)
        if not length:
            return b""
        given = content if self.rank == 0 else bytes(int(length))
        numbers = torch.frombuffer(bytearray(given), dtype=torch.uint8)
        torch.distributed.broadcast(numbers, 0)
        return numbers.numpy().tobytes()

    def wait(self) -> None:
        torch.distributed.barrier()


@contextlib.contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Joins the other processes that torchrun has started, by gloo on the CPU; without torchrun, one process alone.

    A group that has been initialised already is used, and left as it is.

    Raises:
        RuntimeError: this torch has no gloo.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_gloo_available()):
        raise RuntimeError("WORLD_SIZE is more than 1, and this torch has no gloo, by which processes would talk")
    if dist.is_initialized():
        yield GroupRanks()
        return
    dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield GroupRanks()
    finally:
        dist.destroy_process_group()
