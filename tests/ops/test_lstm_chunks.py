"""The backward in chunks of positions (csrc/cpu/chunk_grads.inl): one step, a part of a chunk, many of them."""

from __future__ import annotations

import pytest
import torch
from layer_cases import Layer, equal_bits, threads

from textclf_fast import ops
from textclf_fast.reference import lstm_reference

pytestmark = pytest.mark.usefixtures("_poisoned")

# A chunk is the steps that fit into max(128, H) positions, summed in runs of 64; its gradients of W_hh are computed for
# as many rows at a time as stay in the cache: all 4H of them below some 150.
LENGTHS = {
    "one step": (1,),
    "one step of some rows": (1,) * 7,
    "one run and one more": (65,),
    "just a chunk": (128,),
    "a chunk and one more": (129,),
    "a chunk of many rows": (16,) * 8,
    "a step larger than a chunk": (1,) * 150,
    "steps larger than a chunk, then smaller": (*(4,) * 20, *(2,) * 100, *(1,) * 40),
    "rows end within a chunk": (200, 90, 31),
    "rows end at the edge of a chunk": (160, 32, 32, 32),
    "a row ends at every step": tuple(range(40, 0, -1)),
    "a long row and short ones": (300, 5, 4, 4, 3, 1, 1),
}
HIDDEN = (7, 33, 150)  # 150 positions a chunk, and more rows of W_hh's gradient than are summed at a time


@pytest.mark.parametrize("with_index", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_both_directions(isa: str, hidden: int, lengths: str, with_index: bool) -> None:
    for directions in (1, 2):
        layer = Layer(hidden, LENGTHS[lengths], directions, with_index)
        for dtype, count in ((torch.float64, 1), (torch.float32, 3)):
            with threads(count):
                layer.check(layer.run_ours(dtype))


@pytest.mark.parametrize("with_index", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_from_the_input(isa: str, hidden: int, lengths: str, with_index: bool) -> None:
    for input, directions in ((3, 1), (100, 2)):
        layer = Layer(hidden, LENGTHS[lengths], directions, with_index, input=input)
        for dtype, count in ((torch.float64, 1), (torch.float32, 3)):
            with threads(count):
                layer.check(layer.run_ours(dtype))


def test_chunks_longer_than_128_positions(isa: str) -> None:
    """H positions where H is larger: 450 of them are two chunks of 200 and one of 50."""
    for lengths in ((450,), (240, 160, 50)):
        layer = Layer(200, lengths, 2, True)
        for dtype in (torch.float64, torch.float32):
            layer.check(layer.run_ours(dtype))


@pytest.mark.parametrize("with_index", [False, True])
def test_without_the_gradient_of_the_recurrent_weights(isa: str, with_index: bool) -> None:
    layer = Layer(33, (200, 90, 31), 2, with_index)

    def frozen(w_hh, **arguments):  # type: ignore[no-untyped-def]
        return ops.lstm(w_hh=w_hh.detach(), **arguments)

    want = layer.run_ours(torch.float64)
    got = layer.run(frozen, torch.float64)
    assert want.keys() - got.keys() == {"grad w_hh"}
    assert equal_bits(got, {name: want[name] for name in got})


@pytest.mark.parametrize("with_index", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_with_a_projection(isa: str, lengths: str, with_index: bool) -> None:
    for directions in (1, 2):
        layer = Layer(33, LENGTHS[lengths], directions, with_index, projected=18)
        for dtype, count in ((torch.float64, 1), (torch.float32, 3)):
            with threads(count):
                layer.check(layer.run_ours(dtype))


@pytest.mark.parametrize("frozen", [{"w_hh"}, {"w_hr"}, {"w_hh", "w_hr"}], ids=lambda names: "+".join(sorted(names)))
def test_with_a_projection_without_some_gradients(isa: str, frozen: set[str]) -> None:
    layer = Layer(150, (200, 90, 31), 2, False, projected=70)  # more rows of either than are summed at a time

    def run(**arguments):  # type: ignore[no-untyped-def]
        return ops.lstm(**{name: a.detach() if name in frozen else a for name, a in arguments.items()})

    want = layer.run_ours(torch.float64)
    layer.check(want)
    got = layer.run(run, torch.float64)
    assert want.keys() - got.keys() == {f"grad {name}" for name in frozen}
    assert equal_bits(got, {name: want[name] for name in got})


@pytest.mark.parametrize("used", [0, 1, 2])
def test_one_gradient_alone_reaches_every_chunk(isa: str, used: int) -> None:
    """Of output, h_n or c_n: the others are none, not zeros."""
    layer = Layer(33, (200, 90, 31), 2, True)

    def only(function):  # type: ignore[no-untyped-def]
        def run(**arguments):  # type: ignore[no-untyped-def]
            results = function(**arguments)
            return tuple(r if i == used else r.detach().requires_grad_() for i, r in enumerate(results))

        return run

    got, want = layer.run(only(ops.lstm), torch.float64), layer.run(only(lstm_reference), torch.float64)
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-10, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")
