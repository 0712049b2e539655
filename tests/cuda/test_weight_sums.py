"""What the gradients of W_hh and of a gate table are made of, on the emulator: previous_h.cu and token_sums.cu."""

from __future__ import annotations

from pathlib import Path

import emulated
import pytest
import torch
from torch import Tensor

SOURCES = tuple(f"csrc/cuda/{name}.cu" for name in ("previous_h", "token_sums", "lstm_offsets"))


def _run(
    folder: Path, flavour: str, lengths: list[int], output: Tensor, h0: Tensor, index: Tensor, rows: int, values: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Every schedule's previous h (D, N, H) and sums (D, R, W)."""
    directions, batch, hidden = h0.shape
    positions, width = len(index), values.size(2)
    sizes = torch.tensor([sum(length > t for length in lengths) for t in range(lengths[0])])
    ragged = len(sizes.unique()) > 1
    tokens, order = index.sort(stable=True)
    header = torch.tensor([batch, hidden, directions, len(sizes), positions, ragged, rows, width])
    arrays = [header, *([sizes] if ragged else []), output, h0, tokens, order, values]
    (folder / "problem").write_bytes(b"".join(bytes(a.contiguous().view(torch.uint8).numpy()) for a in arrays))
    program = emulated.program(("tests/emulator/run_weight_sums.cpp", *SOURCES), flavour)
    done = emulated.run(program, [folder / "problem", folder / "result", *emulated.SCHEDULES], flavour)
    assert done.returncode == 0, done.stdout + done.stderr
    numbers = torch.frombuffer(bytearray((folder / "result").read_bytes()), dtype=torch.float32)
    sizes_of = [directions * positions * hidden, directions * rows * width]
    pieces = numbers.split(sizes_of * len(emulated.SCHEDULES))
    return [
        (p.view(directions, positions, hidden), s.view(directions, rows, width))
        for p, s in zip(pieces[::2], pieces[1::2], strict=True)
    ]


def _previous(lengths: list[int], output: Tensor, h0: Tensor) -> Tensor:
    """By a walk over rows and steps."""
    directions, _, hidden = h0.shape
    place = {}
    for t in range(lengths[0]):
        for row in range(sum(length > t for length in lengths)):
            place[t, row] = len(place)
    expected = torch.empty(directions, len(place), hidden)
    for d in range(directions):
        for (t, row), n in place.items():
            left_by = place.get((t - 1 if d == 0 else t + 1, row))
            expected[d, n] = h0[d, row] if left_by is None else output[left_by, d * hidden : (d + 1) * hidden]
    return expected


# (lengths, D, H, tokens: one that fills pieces, that begin and end anywhere, that are outside)
CASES = {
    "ragged": ([40, 33, 33, 20, 7, 7, 7, 1], 2, 5, [(3, 90), (1, 5), (7, 38), (-1, 8), (9, 7)]),
    "dense": ([12] * 16, 1, 33, [(0, 64), (2, 64), (4, 63), (8, 1)]),
    "one": ([1], 1, 1, [(5, 1)]),
}


@pytest.mark.parametrize("flavour", [*emulated.ON_BOTH, *emulated.SANITIZERS])
@pytest.mark.parametrize("case", CASES)
def test_equals_float64(case: str, flavour: str, tmp_path: Path) -> None:
    lengths, directions, hidden, counts = CASES[case]
    torch.manual_seed(0)
    index = torch.cat([torch.full((count,), token) for token, count in counts])
    index = index[torch.randperm(len(index))]
    rows, positions = 9, len(index)
    assert positions == sum(lengths)
    output, h0 = torch.randn(positions, directions * hidden), torch.randn(directions, len(lengths), hidden)
    values = torch.randn(directions, positions, 4 * hidden)
    results = _run(tmp_path, flavour, lengths, output, h0, index, rows, values)
    assert torch.equal(results[0][0], _previous(lengths, output, h0))
    inside = (index >= 0) & (index < rows)
    expected = torch.zeros(directions, rows, 4 * hidden, dtype=torch.float64)
    expected.index_add_(1, index[inside], values[:, inside].double())
    torch.testing.assert_close(results[0][1].double(), expected, rtol=0, atol=1e-5)
    for previous, sums in results[1:]:
        assert torch.equal(previous, results[0][0])
        assert torch.equal(sums, results[0][1])


def test_batch_sizes_beyond_the_positions_read_nothing(tmp_path: Path) -> None:
    lengths, index = [3, 3, 2], torch.tensor([0, 1, 0, 2, 1])  # 8 positions are promised
    output, h0, values = torch.randn(5, 4), torch.randn(2, 3, 2), torch.randn(2, 5, 8)
    for previous, sums in _run(tmp_path, "asan", lengths, output, h0, index, 3, values):
        assert torch.equal(previous[0], torch.cat([h0[0], output[:2, :2]]))
        assert sums.isfinite().all()
