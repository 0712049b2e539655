"""A layer that several threads share: more parts than rows, more rows than parts, parts without work."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from layer_cases import RESULTS, Layer, equal_bits, threads

pytestmark = pytest.mark.usefixtures("_poisoned")

MOST_THREADS = 5
_WORTH_A_THREAD = 2**19  # multiply-adds, csrc/cpu/launch.cpp


def _layer(hidden: int, rows: int, directions: int, with_index: bool, projected: int = 0, input: int = 0) -> Layer:
    """Just long enough for MOST_THREADS, the rows of different lengths; the shortest is one step long."""
    width = (projected or hidden) + input
    positions = MOST_THREADS * _WORTH_A_THREAD // (directions * hidden * (4 * width + projected)) + 1
    longest = 2 * positions // (rows + 1) + 2
    lengths = tuple(max(1, longest * (rows - r) // rows - 3 * r) for r in range(rows - 1)) if rows > 1 else ()
    layer = Layer(hidden, (*lengths, 1 if rows > 1 else positions), directions, with_index, projected, input)
    missing = positions - layer.positions
    return layer if missing <= 0 else replace(layer, lengths=(lengths[0] + missing, *layer.lengths[1:]))


# The reference is computed once for each layer: the instruction sets are the inner loop.
LAYERS = [
    _layer(hidden, rows, directions, (rows + directions) % 2 == 0)
    for hidden in (16, 33, 129)
    for rows in (1, 2, 3, 5)
    for directions in (1, 2)
]
LAYERS += [
    _layer(hidden, rows, 1 + rows % 2, rows > 2, projected)
    for hidden, projected in ((33, 18), (129, 70), (150, 16))
    for rows in (1, 2, 5)
]
LAYERS += [
    _layer(hidden, rows, 1 + (rows + input) % 2, with_index, input=input)
    for hidden, input in ((16, 70), (33, 5), (129, 100))
    for rows in (1, 2, 5)
    for with_index in (False, True)
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_numerics_and_bits(isa: str, layer: Layer) -> None:
    """Right on any number of threads; the forward with the same bits on all, the backward on each."""
    work = layer.hidden * (4 * ((layer.projected or layer.hidden) + layer.input) + layer.projected)  # of a position
    assert layer.directions * layer.positions * work >= MOST_THREADS * _WORTH_A_THREAD
    for dtype in (torch.float64, torch.float32):
        with threads(1):
            alone = layer.run_ours(dtype)
        for count in (3, MOST_THREADS):
            with threads(count):
                first = layer.run_ours(dtype)
                layer.check(first)
                assert equal_bits(layer.run_ours(dtype), first)
            for name in RESULTS:
                assert torch.equal(first[name], alone[name]), f"{name} on {count} threads"
