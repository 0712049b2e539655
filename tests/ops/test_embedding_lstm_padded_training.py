"""The training step on a padded batch: the bits of the one on packed ids, with the layout made by ops before it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from embedding_lstm_cases import H, I, V, backward_arguments, leaves_of, make_weights
from layer_cases import threads
from torch import Tensor

from textclf_fast import ops
from textclf_fast.nn.layout import PackedLayout, padded_layout, permute_rows, to_packed, to_padded

OPS = torch.ops.textclf_fast
T, B = 6, 4
LENGTHS = (2, 5, 1, 4)  # no row is as long as the batch

forms = pytest.mark.parametrize("batch_first", [False, True])
all_lengths = pytest.mark.parametrize("lengths", [None, LENGTHS, (T,) * B, (3,) * B], ids=str)


def _arguments(
    lengths: tuple[int, ...] | None = LENGTHS,
    batch_first: bool = False,
    dtype: torch.dtype = torch.float64,
    hidden: int = H,
    **others: Any,
) -> dict[str, Any]:
    """In the order of the op's."""
    table, *weights = make_weights(True, dtype, hidden).items()
    batch = {
        "ids": torch.randint(V, (B, T) if batch_first else (T, B)),
        "lengths": None if lengths is None else torch.tensor(lengths),
        "batch_first": batch_first,
        "need_output": True,
    }
    return {**dict([table]), **batch, **dict(weights)} | others


def _composed(
    table: Tensor,
    ids: Tensor,
    lengths: Tensor | None,
    batch_first: bool,
    need_output: bool,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
    padding_idx: int = -1,
) -> tuple[Tensor, ...]:
    layout: PackedLayout = padded_layout(lengths, T, B, batch_first)
    packed = to_packed(ids, layout, batch_first).contiguous()
    output, *states = ops.embedding_lstm(table, packed, layout.batch_sizes, w_ih, w_hh, b_ih, b_hh, padding_idx)
    h_n, c_n = (permute_rows(state, layout.unsorted_indices) for state in states)
    return (to_padded(output, layout, T, B, batch_first), h_n, c_n)[0 if need_output else 1 :]


def _padded(**arguments: Any) -> tuple[Tensor, ...]:
    return ops.embedding_lstm_padded(**arguments)[0 if arguments["need_output"] else 1 :]


def _backward_arguments(a: dict[str, Any]) -> dict[str, Any]:
    *results, batch_sizes, positions, order, packed = OPS.embedding_lstm_padded_training(**a)
    layout = {"batch_sizes": batch_sizes, "positions": positions, "order": order}
    found = backward_arguments(a, tuple(results), **layout)
    return found | {"output": packed} if len(packed) else found


@forms
@all_lengths
@pytest.mark.parametrize("need_output", [True, False])
def test_opcheck(batch_first: bool, lengths: tuple[int, ...] | None, need_output: bool) -> None:
    a = _arguments(lengths, batch_first, need_output=need_output)
    torch.library.opcheck(OPS.embedding_lstm_padded_training.default, tuple(a.values()))
    backward = _backward_arguments(a)
    torch.library.opcheck(OPS.embedding_lstm_backward.default, tuple(backward.values()))


@forms
@all_lengths
@pytest.mark.parametrize("need_output", [True, False])
@pytest.mark.parametrize("padding_idx", [-1, 3])
@pytest.mark.parametrize(("dtype", "hidden"), [(torch.float64, 5), (torch.float32, 256)])  # the second: three threads
@pytest.mark.usefixtures("_poisoned")
def test_the_same_bits(
    isa: str,
    batch_first: bool,
    lengths: tuple[int, ...] | None,
    need_output: bool,
    padding_idx: int,
    dtype: torch.dtype,
    hidden: int,
) -> None:
    a = _arguments(lengths, batch_first, dtype, hidden, need_output=need_output, padding_idx=padding_idx)
    for count in (1, 3):
        found = []
        for layer in (_padded, _composed):
            leaves = leaves_of(a)
            with threads(count):
                results = layer(**a | leaves)
                torch.manual_seed(1)
                torch.autograd.backward(results, [torch.randn(t.shape, dtype=dtype) for t in results])
            found.append([*results, *(leaf.grad for leaf in leaves.values())])
        for got, want in zip(*found, strict=True):
            assert got.shape == want.shape
            assert torch.equal(got, want)


@forms
@all_lengths
def test_gradients(batch_first: bool, lengths: tuple[int, ...] | None) -> None:
    a = _arguments(lengths, batch_first)
    leaves = leaves_of(a)

    def layer(*values: Tensor) -> tuple[Tensor, ...]:
        return _padded(**a | dict(zip(leaves, values, strict=True)))

    values = tuple(leaves.values())
    assert torch.autograd.gradcheck(layer, values, fast_mode=True)
    assert torch.autograd.gradgradcheck(layer, values, fast_mode=True)


@all_lengths
@pytest.mark.parametrize("need_output", [True, False])
def test_second_gradients_are_those_of_the_packed_form(lengths: tuple[int, ...] | None, need_output: bool) -> None:
    a = _arguments(lengths, padding_idx=2, need_output=need_output)
    found = []
    for layer in (_padded, _composed):
        leaves = leaves_of(a)
        loss = sum(t.square().sum() for t in layer(**a | leaves))
        first = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
        assert not first[0][2].any()
        found.append(torch.autograd.grad(sum(t.square().sum() for t in first), list(leaves.values())))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want)


def test_ids_past_the_lengths_are_not_looked_at() -> None:
    a = _arguments()
    want = _padded(**a)
    for b, length in enumerate(LENGTHS):
        a["ids"][length:, b] = -5
    for got, expected in zip(_padded(**a), want, strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": torch.zeros(T, dtype=torch.int64)}, r"ids: expected shape \(T, B\), got \(6\)"),
        ({"ids": torch.zeros(T, 0, dtype=torch.int64)}, r"ids: expected at least one token, got shape \(6, 0\)"),
        ({"ids": torch.zeros(T, B)}, "ids: expected dtype int64"),
        ({"ids": torch.full((T, B), V)}, "ids: token id 7, expected 0 <= id < 7"),
        ({"lengths": torch.tensor([2, 5, 1])}, r"lengths: expected shape \(4\), got \(3\)"),
        ({"lengths": torch.tensor([2, 7, 1, 1])}, r"lengths: lengths.1. = 7, expected 1 <= length <= 6"),
        ({"lengths": torch.tensor([2, 0, 1, 1])}, r"lengths: lengths.1. = 0, expected 1 <= length <= 6"),
        ({"lengths": torch.ones(B)}, "lengths: expected dtype int64"),
        ({"table": torch.zeros(V, I)}, "table: its dtype differs from that of w_hh"),
        ({"table": torch.zeros(V).double()}, r"table: expected shape \(V, I\) with I > 0, got \(7\)"),
        ({"w_ih": torch.zeros(4 * H, I + 1).double()}, r"w_ih: expected shape \(20, 3\), got \(20, 4\)"),
        ({"b_hh": None}, "b_hh: expected both biases or none"),
    ],
)
def test_bad_arguments(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        ops.embedding_lstm_padded(**_arguments() | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"grad_output": torch.zeros(T, B, H + 1).double()},
            r"grad_output: expected shape \(6, 4, 5\), got \(6, 4, 6\)",
        ),
        ({"grad_h_n": torch.zeros(1, B + 1, H).double()}, r"grad_h_n: expected shape \(1, 4, 5\), got \(1, 5, 5\)"),
        ({"positions": torch.full((12,), T * B)}, r"positions: positions.0. = 24, expected 0 <= row < 24"),
        ({"positions": torch.zeros(11, dtype=torch.int64)}, r"positions: expected shape \(12\), got \(11\)"),
        ({"positions": torch.zeros(12)}, "positions: expected dtype int64"),
        ({"positions": None}, r"grad_output: expected shape \(12, 5\), got \(6, 4, 5\)"),
        ({"output": torch.zeros(T, B, H).double()}, r"output: expected the 12 positions of batch_sizes, got shape"),
        ({"output": torch.zeros(11, H).double()}, r"output: expected shape \(12, 5\), got \(11, 5\)"),
        ({"grad_output": torch.zeros(12, H).double()}, "grad_output: expected three dimensions beside positions, got"),
        ({"order": torch.tensor([0, 1, 2, 4])}, r"order: order.3. = 4, expected 0 <= row < 4"),
        ({"order": torch.tensor([0, 1])}, r"order: expected shape \(4\), got \(2\)"),
    ],
)
def test_bad_arguments_of_the_backward(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        OPS.embedding_lstm_backward(**_backward_arguments(_arguments()) | change)
