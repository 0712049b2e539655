"""lstm_layer, which projects its input itself: opcheck, gradients, what is not asked for, and bad arguments.

Its numbers, on every instruction set and over many sizes: test_lstm_chunks.py, test_lstm_teams.py, and the modules' own
tests, whose float input takes it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from textclf_fast import ops
from textclf_fast.reference import lstm_layer_reference

OPS = torch.ops.textclf_fast
H, I = 5, 3  # noqa: E741 (the letter of the equations)
BATCH_SIZES = [4, 4, 2, 1]
N, B = sum(BATCH_SIZES), BATCH_SIZES[0]
INDEX = (3, 0, 0, 2, 3, 1, 0, 2, 2, 0, 3)  # of the row of x that each position reads; row 4 is read by none
RESULTS = ("grad_x", "grad_w_ih", "grad_w_hh", "grad_bias", "grad_h0", "grad_c0")

both_directions = pytest.mark.parametrize("directions", [1, 2])
with_and_without_bias = pytest.mark.parametrize("bias", [False, True])
with_and_without_index = pytest.mark.parametrize("indexed", [False, True])


def _arguments(
    directions: int, bias: bool = True, dtype: torch.dtype = torch.float64, indexed: bool = False
) -> dict[str, Any]:
    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=dtype)

    return {
        "x": numbers(max(INDEX) + 2 if indexed else N, I),
        "index": torch.tensor(INDEX) if indexed else None,
        "batch_sizes": torch.tensor(BATCH_SIZES),
        "w_ih": numbers(directions, 4 * H, I),
        "w_hh": numbers(directions, 4 * H, H),
        "bias": numbers(directions, 4 * H) if bias else None,
        "h0": numbers(directions, B, H),
        "c0": numbers(directions, B, H),
    }


def _floats(a: dict[str, Any]) -> list[str]:
    return [name for name, value in a.items() if isinstance(value, Tensor) and value.is_floating_point()]


def _differentiable(a: dict[str, Any]) -> dict[str, Any]:
    return a | {name: a[name].detach().clone().requires_grad_() for name in _floats(a)}


def _backward_arguments(
    directions: int, needs: tuple[bool, bool, bool, bool] = (True,) * 4, indexed: bool = False
) -> dict[str, Any]:
    a = _arguments(directions, indexed=indexed)
    output, h_n, c_n, activations, cells = OPS.lstm_layer_training(**a)
    del a["bias"]
    grads = {"grad_output": torch.randn_like(output), "grad_h_n": torch.randn_like(h_n)}
    grads["grad_c_n"] = torch.randn_like(c_n)
    saved = {"activations": activations, "cells": cells, "output": output}
    return grads | saved | a | dict(zip(("need_x", "need_w_ih", "need_w_hh", "need_bias"), needs, strict=True))


@both_directions
@with_and_without_bias
@with_and_without_index
def test_opcheck(directions: int, bias: bool, indexed: bool) -> None:
    arguments = tuple(_arguments(directions, bias, indexed=indexed).values())
    torch.library.opcheck(OPS.lstm_layer_inference.default, arguments)
    torch.library.opcheck(OPS.lstm_layer_inference.default, (*arguments, None, False))
    torch.library.opcheck(OPS.lstm_layer_training.default, arguments)
    w_hh, w_ih = (_arguments(directions)[name] for name in ("w_hh", "w_ih"))
    torch.library.opcheck(OPS.pack_recurrent.default, (w_hh, None, w_ih))


@both_directions
@pytest.mark.parametrize("needs", [(True,) * 4, (False,) * 4])
@with_and_without_index
def test_opcheck_backward(directions: int, needs: tuple[bool, bool, bool, bool], indexed: bool) -> None:
    a = _backward_arguments(directions, needs, indexed)
    torch.library.opcheck(OPS.lstm_layer_backward.default, tuple(a.values()))
    torch.library.opcheck(
        OPS.lstm_layer_backward.default, tuple((a | {"grad_output": None, "grad_c_n": None}).values())
    )


@both_directions
@with_and_without_bias
@with_and_without_index
@pytest.mark.usefixtures("_poisoned")
def test_gradients(isa: str, directions: int, bias: bool, indexed: bool) -> None:
    a = _differentiable(_arguments(directions, bias, indexed=indexed))
    names = _floats(a)

    def layer(*values: Tensor) -> tuple[Tensor, ...]:
        return ops.lstm_layer(**a | dict(zip(names, values, strict=True)))

    values = tuple(a[name] for name in names)
    for got, want in zip(layer(*values), lstm_layer_reference(**a), strict=True):
        torch.testing.assert_close(got, want)
    assert torch.autograd.gradcheck(layer, values, fast_mode=True)
    if isa == "generic":  # computed by the reference on any
        assert torch.autograd.gradgradcheck(layer, values, fast_mode=True)


@both_directions
@with_and_without_index
@pytest.mark.usefixtures("_poisoned")
def test_what_is_not_needed(isa: str, directions: int, indexed: bool) -> None:
    """Is not computed, and changes no bit of the rest."""
    a = _backward_arguments(directions, indexed=indexed)
    want = dict(zip(RESULTS, OPS.lstm_layer_backward(**a), strict=True))
    for name in ("x", "w_ih", "w_hh", "bias"):
        got = dict(zip(RESULTS, OPS.lstm_layer_backward(**a | {f"need_{name}": False}), strict=True))
        assert got.pop(f"grad_{name}").numel() == 0
        for other, grad in got.items():
            assert torch.equal(grad, want[other]), other
    without_table = OPS.lstm_layer_backward(**a | dict.fromkeys(("need_x", "need_w_ih", "need_bias"), False))
    for name, grad in zip(RESULTS, without_table, strict=True):
        assert not grad.numel() or torch.equal(grad, want[name]), name
    for name in ("x", "w_ih", "w_hh", "bias", "h0", "c0"):
        b = _arguments(directions, indexed=indexed)
        leaf = b[name].requires_grad_()
        ops.lstm_layer(**b)[0].sum().backward()
        assert leaf.grad is not None
        assert all(value.grad is None for value in b.values() if isinstance(value, Tensor) and value is not leaf)


@both_directions
@with_and_without_index
@pytest.mark.parametrize(("input", "hidden"), [(6, 4), (6, 5), (3, 4)])
@pytest.mark.usefixtures("_poisoned")
def test_bfloat16(isa: str, directions: int, indexed: bool, input: int, hidden: int) -> None:
    """In pairs of numbers, where a set multiplies those; odd sizes as float32. The bias is float32."""
    batch_sizes = torch.tensor(BATCH_SIZES)
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.randn(shape, generator=generator).mul(0.5).to(dtype).requires_grad_()

    x = numbers(max(INDEX) + 2 if indexed else N, input)
    index = torch.tensor(INDEX) if indexed else None
    w_ih, w_hh = numbers(directions, 4 * hidden, input), numbers(directions, 4 * hidden, hidden)
    bias = numbers(directions, 4 * hidden, dtype=torch.float32)
    h0, c0 = numbers(directions, B, hidden), numbers(directions, B, hidden)
    leaves = [x, w_ih, w_hh, bias, h0, c0]
    found = []
    for layer in (ops.lstm_layer, lstm_layer_reference):
        results = layer(x, index, batch_sizes, w_ih, w_hh, bias, h0, c0)
        found.append([*results, *torch.autograd.grad([r.sum() for r in results], leaves)])
    for got, want in zip(*found, strict=True):
        assert got.dtype == want.dtype
        torch.testing.assert_close(got, want, rtol=0.05, atol=0.05)
    inputs = (x.detach(), index, batch_sizes, w_ih.detach(), w_hh.detach(), bias.detach(), h0.detach(), c0.detach())
    torch.library.opcheck(OPS.lstm_layer_training.default, inputs)
    saved = OPS.lstm_layer_training(*inputs)
    panels = ops.pack_recurrent(inputs[4], None, inputs[3])
    for got, want in zip(ops.lstm_layer(*inputs, panels=panels), saved, strict=False):
        assert torch.equal(got, want)
    arguments = (*saved[:3], saved[3], saved[4], saved[0], *inputs[:5], *inputs[6:], True, True, True, True)
    torch.library.opcheck(OPS.lstm_layer_backward.default, arguments)


@both_directions
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@with_and_without_index
@pytest.mark.usefixtures("_poisoned")
def test_kept_panels_give_the_same_bits(isa: str, directions: int, dtype: torch.dtype, indexed: bool) -> None:
    a = _arguments(directions, True, dtype, indexed)
    want = ops.lstm_layer(**a)
    panels = ops.pack_recurrent(a["w_hh"], None, a["w_ih"])
    unread = {name: torch.full_like(a[name], torch.nan) for name in ("w_ih", "w_hh")}
    for got, expected in zip(ops.lstm_layer(**a | unread, panels=panels), want, strict=True):
        assert torch.equal(got, expected)
    without = ops.lstm_layer(**a, panels=panels, need_output=False)
    assert without[0].shape == (0, directions * H)
    assert torch.equal(without[1], want[1])
    with pytest.raises(RuntimeError, match="panels: expected shape"):
        ops.lstm_layer(**a, panels=ops.pack_recurrent(a["w_hh"]))
    with pytest.raises(RuntimeError, match="panels: expected shape"):
        OPS.lstm_inference(a["x"].new_zeros(directions, N, 4 * H), None, *_recurrent(a), panels)


def _recurrent(a: dict[str, Any]) -> list[Tensor]:
    return [a[name] for name in ("batch_sizes", "w_hh", "h0", "c0")]


@pytest.mark.parametrize("index", [None, torch.zeros(0, dtype=torch.int64)])
def test_no_rows(index: Tensor | None) -> None:
    a = _arguments(2) | {"x": torch.zeros(0, I).double(), "batch_sizes": torch.tensor([0, 0]), "index": index}
    a |= {name: torch.zeros(2, 0, H).double() for name in ("h0", "c0")}
    a = _differentiable(a)
    output, h_n, c_n = ops.lstm_layer(**a)
    assert (output.shape, h_n.shape, c_n.shape) == ((0, 2 * H), (2, 0, H), (2, 0, H))
    output.sum().backward()
    assert not a["w_ih"].grad.any()
    assert not a["bias"].grad.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(N + 1, I).double()}, "x: expected one row for each of the 11 positions of batch_sizes, got"),
        ({"index": torch.zeros(N - 1, dtype=torch.int64)}, "index: expected one entry for each of the 11 positions"),
        ({"index": torch.full((N,), N)}, r"index: index.0. = 11, expected 0 <= index < 11"),
        ({"index": torch.zeros(N)}, "index: expected dtype int64"),
        ({"x": torch.zeros(N, 0).double()}, r"x: expected shape \(R, I\) with I > 0, got \(11, 0\)"),
        ({"x": torch.zeros(N, I).bfloat16()}, "w_ih: its dtype differs from that of x"),
        ({"x": torch.zeros(N, I)}, "bias: its dtype differs from that of x"),
        ({"w_ih": torch.zeros(1, 4 * H, I + 1).double()}, r"w_ih: expected shape \(1, 20, 3\), got \(1, 20, 4\)"),
        ({"w_hh": torch.zeros(1, 4 * H, H + 1).double()}, "w_hh: expected shape"),
        ({"bias": torch.zeros(4 * H).double()}, r"bias: expected shape \(1, 20\), got \(20\)"),
        ({"h0": torch.zeros(B, H).double()}, r"h0: expected shape \(D, B, H\), got \(4, 5\)"),
        ({"c0": torch.zeros(1, B + 1, H).double()}, r"c0: expected shape \(1, 4, 5\), got \(1, 5, 5\)"),
        ({"batch_sizes": torch.tensor([4, 2, 4, 1])}, "batch_sizes: batch_sizes.2. = 4 after 2, expected a non-incr"),
    ],
)
def test_bad_arguments(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        ops.lstm_layer(**_arguments(1) | change)
    with pytest.raises(RuntimeError, match=message):
        OPS.lstm_layer_training(**_arguments(1) | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grad_output": torch.zeros(N, H + 1).double()}, r"grad_output: expected shape \(11, 5\), got \(11, 6\)"),
        ({"grad_c_n": torch.zeros(1, B, H)}, "grad_c_n: its dtype differs from that of x"),
        ({"activations": torch.zeros(1, N, H).double()}, r"activations: expected shape \(1, 11, 20\)"),
        ({"cells": torch.zeros(2, N, H).double()}, r"cells: expected shape \(1, 11, 5\)"),
    ],
)
def test_bad_arguments_of_the_backward(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        OPS.lstm_layer_backward(**_backward_arguments(1) | change)


@pytest.mark.parametrize(
    ("w_hr", "w_ih", "message"),
    [
        (None, torch.zeros(1, 4 * H, 0), "w_ih: expected I > 0, got 0"),
        (None, torch.zeros(1, H, I), r"w_ih: expected shape \(1, 20, 3\)"),
        (torch.zeros(1, H, H), torch.zeros(1, 4 * H, I), "w_ih: expected None beside w_hr"),
    ],
)
def test_bad_weights_to_pack(w_hr: Tensor | None, w_ih: Tensor, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        ops.pack_recurrent(torch.zeros(1, 4 * H, H), w_hr, w_ih)
