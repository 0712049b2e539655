"""What the ops keep from call to call (csrc/cpu/memory.h): no call sees what another has left there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from layer_cases import Layer, equal_bits, threads

from textclf_fast import ops

pytestmark = pytest.mark.usefixtures("_poisoned")

BIG = Layer(130, (90, 60, 33, 8), 2, True)
SMALL = Layer(9, (7, 3, 3), 1, True)
MIDDLE = Layer(50, (20, 10), 2, False, projected=20)
_KEPT = 64 * 2**20  # bytes, the most that stay: csrc/cpu/memory.cpp


def _leave_nan_behind(dtype: torch.dtype) -> None:
    """Fills scratch of the size of the biggest layer with NaN."""

    def poisoned(gates, index, batch_sizes, w_hh, h0, c0):  # type: ignore[no-untyped-def]
        nan = torch.nan
        return ops.lstm(gates + nan, index, batch_sizes, w_hh + nan, h0 + nan, c0 + nan)

    BIG.run(poisoned, dtype)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sizes_in_any_order_give_the_same_bits(isa: str, dtype: torch.dtype, count: int) -> None:
    with threads(count):
        want = {layer: layer.run_ours(dtype) for layer in (SMALL, MIDDLE, BIG)}
        for layer in (BIG, SMALL, BIG, MIDDLE, SMALL, BIG, BIG):
            _leave_nan_behind(dtype)
            got = layer.run_ours(dtype)
            layer.check(got)
            assert equal_bits(got, want[layer]), layer


def test_dtypes_share_it(isa: str) -> None:
    want = {dtype: SMALL.run_ours(dtype) for dtype in (torch.float32, torch.float64)}
    for dtype in (torch.float32, torch.float64, torch.float32):
        _leave_nan_behind(torch.float64 if dtype == torch.float32 else torch.float32)
        assert equal_bits(SMALL.run_ours(dtype), want[dtype])


def test_every_thread_has_its_own(isa: str) -> None:
    layers = [BIG, SMALL, MIDDLE, SMALL] * 8
    want = {layer: layer.run_ours(torch.float32) for layer in layers}
    with ThreadPoolExecutor(4) as pool:
        for layer, got in zip(layers, pool.map(lambda layer: layer.run_ours(torch.float32), layers), strict=True):
            assert equal_bits(got, want[layer])


def test_requests_above_what_is_kept(isa: str) -> None:
    """Panels of 70 MB, then the steps' scratch: each next to small calls that are the same as before."""
    before = SMALL.run_ours(torch.float64)
    wide = Layer(1480, (1,), 1, False)
    assert 4 * wide.hidden**2 * 8 > _KEPT
    wide.check(wide.run_ours(torch.float64))
    assert equal_bits(SMALL.run_ours(torch.float64), before)

    # Of each row the backward keeps c and two sums of h, (B, H) each, and, of the chunk, the gates, (B, 4H).
    rows, hidden = 140_000, 9
    assert 7 * rows * hidden * 8 > _KEPT
    gates = torch.randn(1, 11, 4 * hidden, dtype=torch.float64, requires_grad=True)
    index, batch_sizes = torch.arange(rows) % 11, torch.tensor([rows])
    w_hh = torch.randn(1, 4 * hidden, hidden, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, rows, hidden, dtype=torch.float64)
    output, _, _ = ops.lstm(gates, index, batch_sizes, w_hh, zero, zero)
    output.sum().backward()
    # Rows of the same gates are the same, and from a zero state W_hh has no part in them.
    first = ops.lstm(gates, index[:11], torch.tensor([11]), w_hh, zero[:, :11], zero[:, :11])[0]
    assert torch.equal(output, first[index])
    (want,) = torch.autograd.grad((first * torch.bincount(index).unsqueeze(1)).sum(), gates)
    assert gates.grad is not None
    torch.testing.assert_close(gates.grad, want)
    assert w_hh.grad is not None
    assert (w_hh.grad == 0).all()
    assert equal_bits(SMALL.run_ours(torch.float64), before)


def _large_output(steps: int, seed: int) -> torch.Tensor:
    """Of 64 rows and 128 units: 32 kB a step."""
    generator = torch.Generator().manual_seed(seed)
    gates = torch.randn(1, 64 * steps, 4 * 128, generator=generator)
    w_hh, zero = torch.randn(1, 4 * 128, 128, generator=generator) * 0.1, torch.zeros(1, 64, 128)
    return ops.lstm(gates, None, torch.full((steps,), 64), w_hh, zero, zero)[0]


def test_outputs_that_somebody_keeps() -> None:
    """Are nobody else's memory; given back, an output of about that size finds it, and a much smaller one does not."""
    steps = 37
    kept = _large_output(steps, 0)
    assert kept.numel() * 4 > 2**20
    before = kept.clone()
    others = [_large_output(steps, seed) for seed in range(1, 5)]
    assert torch.equal(kept, before)
    assert len({t.data_ptr() for t in (kept, *others)}) == 5
    for seed, other in enumerate(others, start=1):
        assert torch.equal(other, _large_output(steps, seed))
    place = kept.data_ptr()
    view = kept[3:]
    del kept
    assert _large_output(steps, 0).data_ptr() != place  # a view of it is alive
    assert torch.equal(view, before[3:])
    del view
    found = _large_output(steps, 0)
    assert found.data_ptr() == place
    del found
    assert _large_output(steps - 5, 0).data_ptr() != place
    assert _large_output(steps, 0).data_ptr() == place
