"""W_hh larger than a core's own cache: tiles of rows take turns at a panel of it, and ask for the next."""

from __future__ import annotations

import pytest
import torch
from layer_cases import Layer, threads

pytestmark = pytest.mark.usefixtures("_poisoned")

# In float32 W_hh takes 6 MB, and 3 in bfloat16: caches of a core's own have 2 MB at most. The last group of columns is
# whole at 640 and not at 603.
HIDDEN = (603, 640)
LENGTHS = {
    "a tile": (3,) * 5,
    "two tiles": (3,) * 9,
    "many tiles": (3,) * 40,
    "rows that end": tuple(range(17, 0, -1)),
}


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_results_and_gradients(isa: str, hidden: int, lengths: str) -> None:
    for directions, input, with_index in ((1, 0, True), (2, 3, True), (1, 3, False)):
        layer = Layer(hidden, LENGTHS[lengths], directions, with_index, input=input)
        for dtype in (torch.float32, torch.bfloat16):
            for count in (1, 2):
                with threads(count):
                    layer.check(layer.run_ours(dtype))
