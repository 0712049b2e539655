"""bfloat16 layers whose sizes lie around the tiles of a matrix unit (csrc/cpu/amx.inl): 16 rows, 32 numbers deep."""

from __future__ import annotations

import pytest
import torch
from layer_cases import RESULTS, Layer, equal_bits, threads

from textclf_fast._libraries import BFLOAT16_ISAS

pytestmark = pytest.mark.usefixtures("_poisoned")

LENGTHS = {
    "two rows": (150, 149),  # enough work for two threads, which share few rows by units
    "four rows": (80, 79, 60, 3),
    "a tile": (20,) * 16,
    "a tile and one row": (20,) * 16 + (7,),
    "rows end one by one": tuple(range(40, 0, -1)),
    "one step": (1,) * 33,
}
# Whole tiles each way; of all gates together only (4 * 40 = 5 * 32); of none; more vectors than a tile has.
HIDDEN = (32, 40, 64, 66, 96, 160)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_numerics_and_bits(isa: str, hidden: int, lengths: str) -> None:
    if isa not in BFLOAT16_ISAS:
        pytest.skip("computes bfloat16 as float32")
    others = [{}, {"projected": 32}, {"projected": 64}, {"input": 32}, {"input": 66}]
    for i, other in enumerate(others):
        layer = Layer(hidden, LENGTHS[lengths], 1 + hidden // 32 % 2, (len(lengths) + i) % 2 == 0, **other)
        with threads(1):
            alone = layer.run_ours(torch.bfloat16)
        layer.check(alone)
        with threads(4):
            shared = layer.run_ours(torch.bfloat16)
            layer.check(shared)
            assert equal_bits(layer.run_ours(torch.bfloat16), shared)
        for name in RESULTS:
            assert torch.equal(shared[name], alone[name]), name
