"""A direction's first step where h0 is zero: its product with W_hh, and the gradients through it, are not computed."""

from __future__ import annotations

import pytest
import torch
from layer_cases import Layer, equal_bits, threads
from torch import Tensor

from textclf_fast import ops

pytestmark = pytest.mark.usefixtures("_poisoned")

# The reverse direction starts a row at its own last position, beside others that have started before.
LENGTHS = {
    "one row of one step": (1,),
    "rows of one step": (1,) * 9,
    "more rows of one step than a chunk": (1,) * 150,
    "one row": (9,),
    "two rows": (9, 4),
    "as long as each other": (5,) * 9,
    "each of its own length": tuple(range(20, 0, -1)),
    "many of one step": (40, 30, *(1,) * 30),
    "a first step that is a chunk": (*(2,) * 100, *(1,) * 60),
}
HIDDEN = (7, 33, 150)
both_directions = pytest.mark.parametrize("directions", [1, 2])


@pytest.mark.parametrize("input", [0, 3])
@pytest.mark.parametrize("with_index", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_results_and_gradients(isa: str, hidden: int, lengths: str, with_index: bool, input: int) -> None:
    for directions in (1, 2):
        layer = Layer(hidden, LENGTHS[lengths], directions, with_index, input=input, from_zero=True)
        for dtype, count in ((torch.float64, 1), (torch.float32, 3)):
            with threads(count):
                layer.check(layer.run_ours(dtype))


@pytest.mark.parametrize("lengths", LENGTHS)
def test_with_a_projection(isa: str, lengths: str) -> None:
    for directions in (1, 2):
        layer = Layer(33, LENGTHS[lengths], directions, True, projected=18, from_zero=True)
        layer.check(layer.run_ours(torch.float64))


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("hidden", [16, 64])  # of which the first has no tiles for a matrix unit
def test_bfloat16(isa: str, lengths: str, hidden: int) -> None:
    for directions in (1, 2):
        layer = Layer(hidden, LENGTHS[lengths], directions, True, input=4, from_zero=True)
        layer.check(layer.run_ours(torch.bfloat16))


def _run(layer: Layer, dtype: torch.dtype, w_hh: float | None, h0: float | None = None) -> dict[str, Tensor]:
    """Results and gradients with all of W_hh, and one number of h0, set to a value."""

    def run(**arguments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            if w_hh is not None:
                arguments["w_hh"].fill_(w_hh)
            if h0 is not None:
                arguments["h0"][0, -1, -1] = h0
        return ops.lstm_layer(**arguments)  # type: ignore[arg-type]

    return layer.run(run, dtype, torch.float32 if dtype == torch.bfloat16 else None)


@both_directions
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 2, 3, 9, 40])
def test_the_weights_are_not_read(isa: str, rows: int, dtype: torch.dtype, directions: int) -> None:
    """What is no number in them comes into none of a text of one token: it does with the second, and from an h0."""
    one = Layer(64, (1,) * rows, directions, True, input=4, from_zero=True)
    for count in (1, 2):
        with threads(count):
            got = _run(one, dtype, torch.nan)
            assert equal_bits(got, _run(one, dtype, None))
            assert not got["grad w_hh"].any()
            assert _run(one, dtype, torch.nan, h0=1e-30)["output"].isnan().any()
            two = Layer(64, (2, *(1,) * (rows - 1)), directions, True, input=4, from_zero=True)
            assert _run(two, dtype, torch.nan)["output"].isnan().any()
