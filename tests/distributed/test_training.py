"""DistributedDataParallel and FSDP2, two processes each with half of the rows: as one process with all of them."""

from __future__ import annotations

import pytest
import torch
from distributed_steps import CASES, Result, make, run


@pytest.mark.parametrize("name", CASES)
@pytest.mark.compat("distributed", "two ranks, each with half of the rows, train as one process: DDP, FSDP2")
def test_two_ranks_are_as_one_process(name: str, ranks: dict[str, list[Result | str]]) -> None:
    found = ranks[name]
    assert not any(isinstance(result, str) for result in found), found
    first, second = found
    want = run(make(name), CASES[name].optimizer)
    close = {"rtol": 1e-9, "atol": 1e-10}
    losses = [(a + b) / 2 for a, b in zip(first.losses, second.losses, strict=True)]
    torch.testing.assert_close(losses, want.losses, **close)
    for result in (first, second):
        torch.testing.assert_close(result.scores, want.scores, **close)
        torch.testing.assert_close(result.state, want.state, **close)
