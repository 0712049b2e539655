"""Fixtures for every test: instruction sets, poisoned memory, seeds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from textclf_fast import _libraries

ALL_ISAS = ("generic", "avx2", "avx512")


def _available(isa: str) -> bool:
    try:
        _libraries.use_cpu_isa(isa)
    except ValueError:
        return False
    return True


_chosen = _libraries.cpu_isa()
_ISAS = [isa for isa in ALL_ISAS if _available(isa)]
_libraries.use_cpu_isa(_chosen)


@pytest.fixture(params=ALL_ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set of this machine in turn."""
    if request.param not in _ISAS:
        pytest.skip(f"this machine has no {request.param}")
    _libraries.use_cpu_isa(request.param)
    yield request.param
    _libraries.use_cpu_isa(_chosen)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def _poisoned() -> Iterator[None]:
    """Memory from torch.empty holds NaN: an output that a kernel forgets to write fails its comparison."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)
