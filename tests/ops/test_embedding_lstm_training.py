"""The training step of an embedding and a layer in one op each way: the bits of the ops that it is made of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from embedding_lstm_cases import FLOATS, H, I, V, backward_arguments, leaves_of, make_weights
from layer_cases import threads
from torch import Tensor

from textclf_fast import ops
from textclf_fast.reference import embedding_lstm_reference

OPS = torch.ops.textclf_fast
BATCH_SIZES = [4, 4, 2, 1]
IDS = (6, 0, 0, 2, 6, 1, 0, 2, 2, 0, 6)
N, B = sum(BATCH_SIZES), BATCH_SIZES[0]

with_and_without_bias = pytest.mark.parametrize("bias", [False, True])
paddings = pytest.mark.parametrize("padding_idx", [-1, 0, 3])  # none, one of the batch, one that is not in it


def _arguments(bias: bool = True, dtype: torch.dtype = torch.float64, hidden: int = H, **others: Any) -> dict[str, Any]:
    """In the order of the op's."""
    table, *weights = make_weights(bias, dtype, hidden).items()
    batch = {"ids": torch.tensor(IDS), "batch_sizes": torch.tensor(BATCH_SIZES)}
    return {**dict([table]), **batch, **dict(weights)} | others


def _composed(
    table: Tensor,
    ids: Tensor,
    batch_sizes: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
    padding_idx: int = -1,
) -> tuple[Tensor, Tensor, Tensor]:
    tokens, index = ops.distinct_tokens(ids, table.size(0))
    rows = ops.gather_rows(table, tokens, padding_idx)
    bias = None if b_ih is None or b_hh is None else (b_ih + b_hh).unsqueeze(0)
    zeros = table.new_zeros(1, int(batch_sizes[0]), w_hh.size(1))
    return ops.lstm_layer(rows, index, batch_sizes, w_ih.unsqueeze(0), w_hh.unsqueeze(0), bias, zeros, zeros)


def _backward_arguments(needs: tuple[bool, ...] = (True,) * 4) -> dict[str, Any]:
    a = _arguments()
    return backward_arguments(a, OPS.embedding_lstm_training(**a), needs)


@with_and_without_bias
def test_opcheck(bias: bool) -> None:
    torch.library.opcheck(OPS.embedding_lstm_training.default, tuple(_arguments(bias).values()))


@pytest.mark.parametrize("needs", [(True,) * 4, (False,) * 4, (False, True, False, True)])
def test_opcheck_backward(needs: tuple[bool, ...]) -> None:
    a = _backward_arguments(needs)
    torch.library.opcheck(OPS.embedding_lstm_backward.default, tuple(a.values()))
    only_h_n = a | {"grad_output": None, "grad_c_n": None}
    torch.library.opcheck(OPS.embedding_lstm_backward.default, tuple(only_h_n.values()))


@with_and_without_bias
@paddings
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("hidden", [5, 256])  # the second is worth three threads
@pytest.mark.usefixtures("_poisoned")
def test_the_same_bits(isa: str, bias: bool, padding_idx: int, dtype: torch.dtype, hidden: int) -> None:
    a = _arguments(bias, dtype, hidden, padding_idx=padding_idx)
    for count in (1, 3):
        found = []
        for layer in (ops.embedding_lstm, _composed):
            leaves = leaves_of(a)
            with threads(count):
                results = layer(**a | leaves)
                torch.manual_seed(1)
                torch.autograd.backward(results, [torch.randn_like(t) for t in results])
            found.append([*results, *(leaf.grad for leaf in leaves.values())])
        for got, want in zip(*found, strict=True):
            assert torch.equal(got, want)


@with_and_without_bias
@pytest.mark.usefixtures("_poisoned")
def test_gradients(isa: str, bias: bool) -> None:
    a = _arguments(bias)
    leaves = leaves_of(a)

    def layer(*values: Tensor) -> tuple[Tensor, ...]:
        return ops.embedding_lstm(**a | dict(zip(leaves, values, strict=True)))

    values = tuple(leaves.values())
    tokens, index = ops.distinct_tokens(a["ids"], V)
    given = [a[name] for name in ("batch_sizes", "w_ih", "w_hh", "b_ih", "b_hh")]
    for got, want in zip(layer(*values), embedding_lstm_reference(a["table"], tokens, index, *given, -1), strict=True):
        torch.testing.assert_close(got, want)
    assert torch.autograd.gradcheck(layer, values, fast_mode=True)
    if isa == "generic":  # computed by the reference on any
        assert torch.autograd.gradgradcheck(layer, values, fast_mode=True)


def test_second_gradients_of_the_padding() -> None:
    """Are none, as in PyTorch: the same as by way of the ops that it is made of."""
    a = _arguments(padding_idx=2)
    found = []
    for layer in (ops.embedding_lstm, _composed):
        leaves = leaves_of(a)
        output, _, c_n = layer(**a | leaves)
        first = torch.autograd.grad(output.square().sum() + c_n.sum(), list(leaves.values()), create_graph=True)
        assert not first[0][2].any()
        found.append(torch.autograd.grad(sum(t.square().sum() for t in first), list(leaves.values())))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("create_graph", [False, True])
def test_what_is_not_needed(name: str, create_graph: bool) -> None:
    a, leaves = _arguments(), leaves_of(_arguments())
    output, _, c_n = ops.embedding_lstm(**a | leaves)
    want = torch.autograd.grad(output.sum() + c_n.sum(), leaves[name], create_graph=create_graph)[0]
    alone = a | leaves | {other: leaf.detach() for other, leaf in leaves.items() if other != name}
    output, _, c_n = ops.embedding_lstm(**alone)
    grads = torch.autograd.grad(output.sum() + c_n.sum(), leaves[name], create_graph=create_graph)
    assert torch.equal(grads[0], want)
    found = [
        torch.autograd.grad(layer(**a | leaves)[1].sum(), leaves[name])[0]  # without a gradient of output and c_n
        for layer in (ops.embedding_lstm, _composed)
    ]
    assert torch.equal(*found)


def test_weights_changed_before_the_backward() -> None:
    """What the backward reads may not have changed, as in nn.LSTM; the table and the biases may, as in nn.Embedding."""
    a = _arguments()
    leaves = leaves_of(a)
    want = torch.autograd.grad(ops.embedding_lstm(**a | leaves)[0].sum(), list(leaves.values()))
    for name in FLOATS:
        for create_graph in (False, True):
            leaves = leaves_of(a)
            output, _, _ = ops.embedding_lstm(**a | leaves)
            with torch.no_grad():
                leaves[name].add_(1)
            if name in ("w_ih", "w_hh") or create_graph:
                with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                    torch.autograd.grad(output.sum(), list(leaves.values()), create_graph=create_graph)
            else:
                for got, grad in zip(torch.autograd.grad(output.sum(), list(leaves.values())), want, strict=True):
                    assert torch.equal(got, grad)


def test_large_tables() -> None:
    """Whose gradient is in kept memory, which holds what was there before."""
    table = torch.randn(4000, 100, requires_grad=True)
    others = _arguments(dtype=torch.float32, w_ih=torch.randn(4 * H, 100))
    del others["table"]
    for number in range(3):
        ids = others["ids"] * 500 + number
        (grad,) = torch.autograd.grad(ops.embedding_lstm(table, **others | {"ids": ids})[0].sum(), table)
        (want,) = torch.autograd.grad(_composed(table, **others | {"ids": ids})[0].sum(), table)
        assert torch.equal(grad, want)
        grad.fill_(torch.nan)
        want.fill_(torch.nan)


def test_a_table_made_in_inference_mode() -> None:
    """Counts no changes; it may be frozen all the same."""
    a = _arguments()
    leaves = leaves_of(a)
    want = torch.autograd.grad(ops.embedding_lstm(**a | leaves)[0].sum(), leaves["w_hh"])[0]
    for name in ("table", "b_ih", "b_hh"):
        with torch.inference_mode():
            frozen = a[name].clone()
        output = ops.embedding_lstm(**a | leaves | {name: frozen})[0]
        assert torch.equal(torch.autograd.grad(output.sum(), leaves["w_hh"])[0], want)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"table": torch.zeros(V, I + 1).double()}, r"w_ih: expected shape \(20, 4\), got \(20, 3\)"),
        ({"table": torch.zeros(V, 0).double()}, r"table: expected shape \(V, I\) with I > 0, got \(7, 0\)"),
        ({"table": torch.zeros(V).double()}, r"table: expected shape \(V, I\) with I > 0, got \(7\)"),
        ({"table": torch.zeros(V, I)}, "table: its dtype differs from that of w_hh"),
        ({"ids": torch.zeros(N - 1, dtype=torch.int64)}, "ids: expected one for each of the 11 positions of batch_si"),
        ({"ids": torch.full((N,), V)}, "ids: token id 7 at position 0, expected 0 <= id < vocab_size = 7"),
        ({"ids": torch.full((N,), -1)}, "ids: token id -1 at position 0, expected 0 <= id < vocab_size = 7"),
        ({"ids": torch.zeros(N)}, "ids: expected dtype int64"),
        ({"w_hh": torch.zeros(1, 4 * H, H).double()}, r"w_hh: expected shape \(4H, H\), got \(1, 20, 5\)"),
        ({"w_hh": torch.zeros(0, 0).double()}, "w_hh: expected H > 0, got 0"),
        ({"w_hh": torch.zeros(4 * H, H + 1).double()}, r"w_hh: expected shape \(24, 6\)"),
        ({"b_ih": torch.zeros(H).double()}, r"b_ih: expected shape \(20\), got \(5\)"),
        ({"b_hh": None}, "b_hh: expected both biases or none"),
        ({"b_hh": torch.zeros(4 * H)}, "b_hh: its dtype differs from that of w_hh"),
        ({"batch_sizes": torch.tensor([4, 2, 4, 1])}, "batch_sizes: batch_sizes.2. = 4 after 2, expected a non-incr"),
        ({"batch_sizes": torch.tensor([11, 0])}, "batch_sizes: batch_sizes.1. = 0, expected at least 1"),
    ],
)
def test_bad_arguments(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        ops.embedding_lstm(**_arguments() | change)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    with pytest.raises(RuntimeError, match="w_hh: expected dtype float32 or float64"):
        ops.embedding_lstm(**_arguments(dtype=dtype))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grad_output": torch.zeros(N, H + 1).double()}, r"grad_output: expected shape \(11, 5\), got \(11, 6\)"),
        ({"grad_c_n": torch.zeros(1, B, H)}, "grad_c_n: its dtype differs from that of w_hh"),
        ({"activations": torch.zeros(1, N, H).double()}, r"activations: expected shape \(1, 11, 20\)"),
        ({"cells": torch.zeros(2, N, H).double()}, r"cells: expected shape \(1, 11, 5\)"),
        ({"x": torch.zeros(3, I).double()}, r"index: index.* = 3, expected 0 <= index < 3"),
        ({"x": torch.zeros(4, I)}, "x: its dtype differs from that of w_hh"),
        ({"tokens": torch.zeros(3, dtype=torch.int64)}, r"tokens: expected shape \(4\), got \(3\)"),
        ({"vocab_size": -1}, "vocab_size: expected at least 0, got -1"),
        ({"vocab_size": 6}, r"tokens: tokens.0. = 6, expected 0 <= row < 6"),
        ({"index": torch.zeros(N - 1, dtype=torch.int64)}, "index: expected one entry for each of the 11 positions"),
    ],
)
def test_bad_arguments_of_the_backward(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        OPS.embedding_lstm_backward(**_backward_arguments() | change)
