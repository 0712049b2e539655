"""Fixtures for every test: instruction sets, poisoned memory, seeds."""

from __future__ import annotations

import os
from collections.abc import Iterator

# Idle threads sleep instead of spinning: most tests are small, and a busy machine would wait for the spinners.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch
from torch import nn

from textclf_fast import FusedLSTM, _libraries


def _available(isa: str) -> bool:
    try:
        _libraries.use_cpu_isa(isa)
    except ValueError:
        return False
    return True


_chosen = _libraries.cpu_isa()
_ISAS = [isa for isa in _libraries.CPU_ISAS if _available(isa)]
_libraries.use_cpu_isa(_chosen)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what is marked for a GPU where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="torch has no CUDA here, or there is no GPU"))


@pytest.fixture(params=_libraries.CPU_ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set of this machine in turn."""
    if request.param not in _ISAS:
        pytest.skip(f"this machine has no {request.param}")
    _libraries.use_cpu_isa(request.param)
    yield request.param
    _libraries.use_cpu_isa(_chosen)


@pytest.fixture(params=_libraries.INT8_ISAS)
def int8_isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set of the int8 kernels that this machine has, in turn."""
    chosen = _libraries.int8_isa()
    try:
        _libraries.use_int8_isa(request.param)
    except ValueError:
        pytest.skip(f"this machine has no {request.param}")
    assert _libraries.int8_isa() == request.param
    yield request.param
    _libraries.use_int8_isa(chosen)


_libraries.learn_threads(False)  # tests say themselves on how many threads a call runs


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def _poisoned() -> Iterator[None]:
    """Memory that is not written yet holds NaN: an output that a kernel forgets to write fails its comparison."""
    torch.use_deterministic_algorithms(True)  # PyTorch's own
    assert torch.utils.deterministic.fill_uninitialized_memory
    _libraries.poison(True)
    yield
    _libraries.poison(False)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=[nn.LSTM, FusedLSTM], ids=["nn.LSTM", "FusedLSTM"])
def lstm_class(request: pytest.FixtureRequest) -> type[nn.LSTM]:
    """nn.LSTM, which is to fail where the test's mark ``compat`` says what it does instead, and FusedLSTM."""
    for mark in request.node.iter_markers("compat"):
        if request.param is nn.LSTM and mark.kwargs.get("nn_lstm"):
            request.applymarker(pytest.mark.xfail(strict=True, reason=mark.kwargs["nn_lstm"]))
    return request.param
