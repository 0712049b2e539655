"""The ops by themselves: opcheck, the plain-PyTorch reference, gradcheck."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ops_cases import (
    OPS,
    H,
    N,
    P,
    V,
    backward_arguments,
    both_directions,
    differentiable,
    layer_arguments,
    with_and_without_index,
    with_and_without_projection,
)
from torch import Tensor

from textclf_fast import ops
from textclf_fast.reference import lstm_reference


@both_directions
@with_and_without_index
@with_and_without_projection
@pytest.mark.parametrize("name", ["lstm_inference", "lstm_training"])
def test_opcheck_forward(name: str, directions: int, with_index: bool, projected: bool) -> None:
    arguments = layer_arguments(directions, with_index, projected=projected)
    if name == "lstm_training":
        arguments = differentiable(arguments)
    w_hr = {"w_hr": arguments.pop("w_hr")} if projected else {}
    if name == "lstm_inference":
        torch.library.opcheck(OPS.lstm_inference.default, (*arguments.values(), None, False), w_hr)
    torch.library.opcheck(getattr(OPS, name).default, tuple(arguments.values()), w_hr)


@both_directions
@with_and_without_index
@with_and_without_projection
@pytest.mark.parametrize("need_weights", [False, True])
def test_opcheck_backward(directions: int, with_index: bool, projected: bool, need_weights: bool) -> None:
    arguments = backward_arguments(directions, with_index, need_weights, projected)
    torch.library.opcheck(OPS.lstm_backward.default, tuple(arguments.values()))
    arguments.update(grad_output=None, grad_c_n=None, need_gates=False)
    torch.library.opcheck(OPS.lstm_backward.default, tuple(arguments.values()))


@both_directions
@with_and_without_index
@with_and_without_projection
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.usefixtures("_poisoned")
def test_gradients_of_gates_are_left_out_where_nobody_asks(
    isa: str, directions: int, with_index: bool, projected: bool, dtype: torch.dtype
) -> None:
    arguments = backward_arguments(directions, with_index, True, projected, dtype)
    all_of_them, others = OPS.lstm_backward(**arguments), OPS.lstm_backward(**arguments, need_gates=False)
    assert others[0].shape == (0,)
    for ours, expected in zip(others[1:], all_of_them[1:], strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("asked", [False, True])
def test_autograd_asks_for_gradients_of_gates_where_they_are_needed(
    asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = differentiable(layer_arguments(1, True))
    arguments["gates"].requires_grad_(asked)
    found: list[Tensor] = []
    backward = OPS.lstm_backward
    monkeypatch.setattr(OPS, "lstm_backward", lambda *given: found.extend(backward(*given)) or found)
    ops.lstm(**arguments)[0].sum().backward()
    assert found[0].numel() == (V * 4 * H if asked else 0)
    assert (arguments["gates"].grad is not None) == asked
    assert arguments["w_hh"].grad is not None


def test_opcheck_layout_ops() -> None:
    torch.library.opcheck(OPS.pack_recurrent.default, (torch.randn(2, 4 * H, H),))
    torch.library.opcheck(OPS.pack_recurrent.default, (torch.randn(2, 4 * H, P), torch.randn(2, P, H)))
    torch.library.opcheck(OPS.distinct_tokens.default, (torch.tensor([3, 1, 3, 0, 1]), 4))
    torch.library.opcheck(OPS.packed_layout.default, (torch.tensor([3, 1, 4]), 4, 3, 1))


@both_directions
@with_and_without_index
@with_and_without_projection
@pytest.mark.usefixtures("_poisoned")
def test_against_the_reference(isa: str, directions: int, with_index: bool, projected: bool) -> None:
    ours = differentiable(layer_arguments(directions, with_index, projected=projected))
    reference = {k: v.detach().clone() if isinstance(v, Tensor) else v for k, v in ours.items()}
    reference = differentiable(reference)
    results, expected = ops.lstm(**ours), lstm_reference(**reference)
    grads = [torch.randn_like(t) for t in results]
    torch.autograd.backward(results, grads)
    torch.autograd.backward(expected, grads)
    for got, want in zip(results, expected, strict=True):
        torch.testing.assert_close(got, want)
    for name in ours.keys() - {"index", "batch_sizes"}:
        torch.testing.assert_close(ours[name].grad, reference[name].grad, msg=lambda m, n=name: f"{n}: {m}")


def _of_what_is_differentiable(a: dict[str, Any]) -> tuple[Callable[..., tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """ops.lstm, as a function of those arguments alone, and they."""
    leaves = {name: value for name, value in a.items() if isinstance(value, Tensor) and value.requires_grad}
    rest = {name: value for name, value in a.items() if name not in leaves}
    return lambda *values: ops.lstm(**rest, **dict(zip(leaves, values, strict=True))), tuple(leaves.values())


@both_directions
@with_and_without_index
@with_and_without_projection
def test_gradcheck(isa: str, directions: int, with_index: bool, projected: bool) -> None:
    arguments = differentiable(layer_arguments(directions, with_index, projected=projected))
    assert torch.autograd.gradcheck(*_of_what_is_differentiable(arguments), fast_mode=True)


@with_and_without_projection
@pytest.mark.usefixtures("_poisoned")
def test_strided_arguments(isa: str, projected: bool) -> None:
    """Every argument as a view with gaps, a start off any alignment, or expanded."""
    a = layer_arguments(2, True, torch.float32, projected)
    want = OPS.lstm_inference(**a)
    gaps = {k: torch.stack([v, torch.full_like(v, 77)], -1)[..., 0] if v is not None else v for k, v in a.items()}
    for got, expected in zip(OPS.lstm_inference(**gaps), want, strict=True):
        assert torch.equal(got, expected)
    shifted = {k: torch.cat([v.flatten()[:1], v.flatten()])[1:].view(v.shape) for k, v in a.items()}
    for got, expected in zip(OPS.lstm_inference(**shifted), want, strict=True):
        assert torch.equal(got, expected)
    grads = OPS.lstm_backward(**backward_arguments(1, False) | {"grad_output": torch.ones(()).double().expand(N, H)})
    assert all(g.isfinite().all() for g in grads)


@with_and_without_index
@with_and_without_projection
def test_gradgradcheck(with_index: bool, projected: bool) -> None:
    arguments = differentiable(layer_arguments(2, with_index, projected=projected))
    # The gradient in one direction of everything at once: the whole Jacobian of the gradients takes a minute.
    assert torch.autograd.gradgradcheck(*_of_what_is_differentiable(arguments), fast_mode=True)


@both_directions
@with_and_without_projection
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kept_panels_give_the_same_bits(isa: str, directions: int, dtype: torch.dtype, projected: bool) -> None:
    a = layer_arguments(directions, False, dtype, projected)
    panels = ops.pack_recurrent(a["w_hh"], a.get("w_hr"))
    want = OPS.lstm_inference(**a)
    for name in a.keys() & {"w_hh", "w_hr"}:
        a[name] = torch.full_like(a[name], float("nan"))  # so that it is the panels that are read
    for got, expected in zip(OPS.lstm_inference(**a, panels=panels), want, strict=True):
        assert torch.equal(got, expected)


def test_panels_of_another_instruction_set_are_not_used(isa: str) -> None:
    a = layer_arguments(1, False, torch.float32)
    want = OPS.lstm_inference(**a)
    panels = ops.pack_recurrent(a["w_hh"])
    panels[-1] += 1
    for got, expected in zip(OPS.lstm_inference(**a, panels=panels), want, strict=True):
        assert torch.equal(got, expected)


def test_bad_panels() -> None:
    a = layer_arguments(1, False)
    panels = ops.pack_recurrent(a["w_hh"])
    for bad, message in ((panels[:-1], "panels: expected shape"), (panels.float(), "panels: its dtype differs")):
        with pytest.raises(RuntimeError, match=message):
            OPS.lstm_inference(**a, panels=bad)
    with pytest.raises(RuntimeError, match="panels: expected shape"):
        OPS.lstm_inference(**layer_arguments(1, False, projected=True), panels=panels)
    with pytest.raises(RuntimeError, match="w_hh: expected shape"):
        ops.pack_recurrent(torch.zeros(3, 4))
    with pytest.raises(RuntimeError, match="w_hh: expected dtype float32, float64 or bfloat16"):
        ops.pack_recurrent(torch.zeros(1, 8, 2, dtype=torch.int64))


def test_distinct_tokens() -> None:
    ids = torch.tensor([7, 2, 7, 0, 2, 9])
    tokens, index = ops.distinct_tokens(ids, 10)
    assert tokens.tolist() == [7, 2, 0, 9]
    assert torch.equal(tokens[index], ids)
    tokens, index = ops.distinct_tokens(ids[:0], 10)
    assert tokens.numel() == index.numel() == 0


@pytest.mark.parametrize("batch_first", [False, True])
def test_packed_layout_agrees_with_pack_padded_sequence(batch_first: bool) -> None:
    lengths = torch.tensor([3, 5, 1, 4])
    x = torch.arange(4 * 6).view(4, 6) if batch_first else torch.arange(6 * 4).view(6, 4)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=batch_first, enforce_sorted=False)
    strides = (1, 6) if batch_first else (4, 1)
    positions, batch_sizes, order, inverse = ops.packed_layout(lengths, 6, *strides)
    assert torch.equal(x.flatten()[positions], packed.data)
    assert torch.equal(batch_sizes, packed.batch_sizes)
    assert torch.equal(order, packed.sorted_indices)
    assert torch.equal(inverse, packed.unsorted_indices)


def test_new_passing() -> None:
    for size in ([0], [2, 3], [1000, 1000]):
        tensor = ops.new_passing(torch.zeros(1), size)
        assert list(tensor.shape) == size
        assert tensor.is_contiguous()
    with pytest.raises(RuntimeError, match="size: expected at least 0, got -1"):
        ops.new_passing(torch.zeros(1), [-1])


@with_and_without_index
@both_directions
def test_opcheck_bfloat16(isa: str, directions: int, with_index: bool) -> None:
    a = layer_arguments(directions, with_index, torch.bfloat16) | {"gates": torch.randn(directions, N, 4 * H)}
    if with_index:
        a["index"] = torch.randint(0, N, (N,))
    torch.library.opcheck(OPS.lstm_inference, kwargs=a, args=(), test_utils=("test_schema", "test_faketensor"))
    output, h_n, c_n, activations, cells = OPS.lstm_training(**a)
    assert {t.dtype for t in (output, h_n, c_n, activations, cells)} == {torch.bfloat16}
    rest = {name: a[name] for name in ("index", "batch_sizes", "w_hh", "h0", "c0")}
    arguments = (torch.ones_like(output), None, None, activations, cells, output)
    torch.library.opcheck(
        OPS.lstm_backward,
        arguments,
        {**rest, "gate_rows": N, "need_w_hh": True},
        test_utils=("test_schema", "test_faketensor"),
    )
