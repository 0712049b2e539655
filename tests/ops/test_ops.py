"""The ops by themselves: opcheck, the plain-PyTorch reference, gradcheck, and every argument that does not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from textclf_fast import ops
from textclf_fast.reference import lstm_reference

OPS = torch.ops.textclf_fast
T, H, P, V = 4, 5, 3, 9
BATCH_SIZES = [4, 4, 2, 1]
N = sum(BATCH_SIZES)


def _arguments(
    directions: int, with_index: bool, dtype: torch.dtype = torch.float64, projected: bool = False
) -> dict[str, Any]:
    rows, width = V if with_index else N, P if projected else H
    arguments = {
        "gates": torch.randn(directions, rows, 4 * H, dtype=dtype),
        "index": torch.randint(0, V, (N,)) if with_index else None,
        "batch_sizes": torch.tensor(BATCH_SIZES),
        "w_hh": torch.randn(directions, 4 * H, width, dtype=dtype),
        "h0": torch.randn(directions, BATCH_SIZES[0], width, dtype=dtype),
        "c0": torch.randn(directions, BATCH_SIZES[0], H, dtype=dtype),
    }
    return arguments | {"w_hr": torch.randn(directions, P, H, dtype=dtype)} if projected else arguments


def _differentiable(arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.requires_grad_() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in arguments.items()
    }


def _backward_arguments(
    directions: int,
    with_index: bool,
    need_weights: bool = True,
    projected: bool = False,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Any]:
    a = _arguments(directions, with_index, dtype, projected)
    a["gates"] = a["gates"].to(ops.gates_dtype(dtype))
    output, h_n, c_n, activations, cells = OPS.lstm_training(**a)
    return {
        "grad_output": torch.randn_like(output),
        "grad_h_n": torch.randn_like(h_n),
        "grad_c_n": torch.randn_like(c_n),
        "activations": activations,
        "cells": cells,
        "output": output,
        "index": a["index"],
        "gate_rows": a["gates"].size(1),
        "batch_sizes": a["batch_sizes"],
        "w_hh": a["w_hh"],
        "h0": a["h0"],
        "c0": a["c0"],
        "need_w_hh": need_weights,
        "grad_cells": None,
        "w_hr": a.get("w_hr"),
        "need_w_hr": need_weights and projected,
    }


both_directions = pytest.mark.parametrize("directions", [1, 2])
with_and_without_index = pytest.mark.parametrize("with_index", [False, True])
with_and_without_projection = pytest.mark.parametrize("projected", [False, True])


@both_directions
@with_and_without_index
@with_and_without_projection
@pytest.mark.parametrize("name", ["lstm_inference", "lstm_training"])
def test_opcheck_forward(name: str, directions: int, with_index: bool, projected: bool) -> None:
    arguments = _arguments(directions, with_index, projected=projected)
    if name == "lstm_training":
        arguments = _differentiable(arguments)
    w_hr = {"w_hr": arguments.pop("w_hr")} if projected else {}
    if name == "lstm_inference":
        torch.library.opcheck(OPS.lstm_inference.default, (*arguments.values(), None, False), w_hr)
    torch.library.opcheck(getattr(OPS, name).default, tuple(arguments.values()), w_hr)


@both_directions
@with_and_without_index
@with_and_without_projection
@pytest.mark.parametrize("need_weights", [False, True])
def test_opcheck_backward(directions: int, with_index: bool, projected: bool, need_weights: bool) -> None:
    arguments = _backward_arguments(directions, with_index, need_weights, projected)
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
    arguments = _backward_arguments(directions, with_index, True, projected, dtype)
    all_of_them, others = OPS.lstm_backward(**arguments), OPS.lstm_backward(**arguments, need_gates=False)
    assert others[0].shape == (0,)
    for ours, expected in zip(others[1:], all_of_them[1:], strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("asked", [False, True])
def test_autograd_asks_for_gradients_of_gates_where_they_are_needed(
    asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = _differentiable(_arguments(1, True))
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
    ours = _differentiable(_arguments(directions, with_index, projected=projected))
    reference = {k: v.detach().clone() if isinstance(v, Tensor) else v for k, v in ours.items()}
    reference = _differentiable(reference)
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
    arguments = _differentiable(_arguments(directions, with_index, projected=projected))
    assert torch.autograd.gradcheck(*_of_what_is_differentiable(arguments), fast_mode=True)


@with_and_without_projection
@pytest.mark.usefixtures("_poisoned")
def test_strided_arguments(isa: str, projected: bool) -> None:
    """Every argument as a view with gaps, a start off any alignment, or expanded."""
    a = _arguments(2, True, torch.float32, projected)
    want = OPS.lstm_inference(**a)
    gaps = {k: torch.stack([v, torch.full_like(v, 77)], -1)[..., 0] if v is not None else v for k, v in a.items()}
    for got, expected in zip(OPS.lstm_inference(**gaps), want, strict=True):
        assert torch.equal(got, expected)
    shifted = {k: torch.cat([v.flatten()[:1], v.flatten()])[1:].view(v.shape) for k, v in a.items()}
    for got, expected in zip(OPS.lstm_inference(**shifted), want, strict=True):
        assert torch.equal(got, expected)
    grads = OPS.lstm_backward(**_backward_arguments(1, False) | {"grad_output": torch.ones(()).double().expand(N, H)})
    assert all(g.isfinite().all() for g in grads)


@with_and_without_index
@with_and_without_projection
def test_gradgradcheck(with_index: bool, projected: bool) -> None:
    arguments = _differentiable(_arguments(2, with_index, projected=projected))
    # The gradient in one direction of everything at once: the whole Jacobian of the gradients takes a minute.
    assert torch.autograd.gradgradcheck(*_of_what_is_differentiable(arguments), fast_mode=True)


@both_directions
@with_and_without_projection
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kept_panels_give_the_same_bits(isa: str, directions: int, dtype: torch.dtype, projected: bool) -> None:
    a = _arguments(directions, False, dtype, projected)
    panels = ops.pack_recurrent(a["w_hh"], a.get("w_hr"))
    want = OPS.lstm_inference(**a)
    for name in a.keys() & {"w_hh", "w_hr"}:
        a[name] = torch.full_like(a[name], float("nan"))  # so that it is the panels that are read
    for got, expected in zip(OPS.lstm_inference(**a, panels=panels), want, strict=True):
        assert torch.equal(got, expected)


def test_panels_of_another_instruction_set_are_not_used(isa: str) -> None:
    a = _arguments(1, False, torch.float32)
    want = OPS.lstm_inference(**a)
    panels = ops.pack_recurrent(a["w_hh"])
    panels[-1] += 1
    for got, expected in zip(OPS.lstm_inference(**a, panels=panels), want, strict=True):
        assert torch.equal(got, expected)


def test_bad_panels() -> None:
    a = _arguments(1, False)
    panels = ops.pack_recurrent(a["w_hh"])
    for bad, message in ((panels[:-1], "panels: expected shape"), (panels.float(), "panels: its dtype differs")):
        with pytest.raises(RuntimeError, match=message):
            OPS.lstm_inference(**a, panels=bad)
    with pytest.raises(RuntimeError, match="panels: expected shape"):
        OPS.lstm_inference(**_arguments(1, False, projected=True), panels=panels)
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


BAD_LAYERS: list[tuple[dict[str, Any], str]] = [
    (
        {"gates": torch.zeros(1, N, 4 * H + 1, dtype=torch.float64)},
        r"gates: expected shape \(1, 11, 20\), got \(1, 11, 21\)",
    ),
    ({"gates": torch.zeros(N, 4 * H, dtype=torch.float64)}, "gates: expected shape"),
    (
        {"gates": torch.zeros(1, N + 1, 4 * H, dtype=torch.float64)},
        "gates: expected one row for each of the 11 positions",
    ),
    ({"gates": torch.zeros(1, N, 4 * H)}, "w_hh: its dtype differs from that of gates"),
    ({"w_hh": torch.zeros(1, 4 * H, H + 1, dtype=torch.float64)}, "w_hh: expected shape"),
    ({"w_hh": torch.zeros(3, 4 * H, H, dtype=torch.float64)}, "w_hh: expected 1 or 2 directions, got 3"),
    ({"w_hh": torch.zeros(4 * H, H, dtype=torch.float64)}, r"w_hh: expected shape \(D, 4H, H\)"),
    ({"h0": torch.zeros(1, 4, H + 1, dtype=torch.float64)}, "h0: expected shape"),
    ({"h0": torch.zeros(1, 3, H, dtype=torch.float64), "c0": torch.zeros(1, 3, H, dtype=torch.float64)}, "batch_sizes"),
    ({"c0": torch.zeros(1, 4, H)}, "c0: its dtype differs"),
    ({"c0": torch.zeros(2, 4, H, dtype=torch.float64)}, "c0: expected shape"),
    ({"batch_sizes": torch.tensor(BATCH_SIZES).int()}, "batch_sizes: expected dtype int64"),
    ({"batch_sizes": torch.tensor([BATCH_SIZES])}, "batch_sizes: expected one dimension"),
    ({"batch_sizes": torch.tensor([], dtype=torch.int64)}, "batch_sizes: expected at least one step"),
    ({"batch_sizes": torch.tensor([4, 2, 3, 2])}, r"batch_sizes\[2\] = 3 after 2"),
    ({"batch_sizes": torch.tensor([4, 4, 3, 0])}, r"batch_sizes\[3\] = 0, expected at least 1"),
    ({"batch_sizes": torch.tensor([4, 4, 4, -1])}, r"batch_sizes\[3\] = -1"),
    ({"index": torch.zeros(N - 1, dtype=torch.int64)}, "index: expected one entry for each of the 11 positions"),
    ({"index": torch.full((N,), N)}, r"index: index\[0\] = 11, expected 0 <= index < 11"),
    ({"index": torch.tensor([0] * (N - 1) + [-1])}, r"index: index\[10\] = -1"),
    ({"index": torch.tensor([0] * (N - 1) + [-(2**63)])}, r"index: index\[10\]"),
    ({"index": torch.zeros(N, dtype=torch.int32)}, "index: expected dtype int64"),
]


@pytest.mark.parametrize(("change", "message"), BAD_LAYERS)
@pytest.mark.parametrize("name", ["lstm_inference", "lstm_training"])
def test_bad_layer_arguments(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        getattr(OPS, name)(**_arguments(1, False) | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w_hr": torch.zeros(P, H).double()}, r"w_hr: expected shape \(1, 3, 0\), got \(3, 5\)"),
        ({"w_hr": torch.zeros(2, P, H).double()}, r"w_hr: expected shape \(1, 3, 5\), got \(2, 3, 5\)"),
        ({"w_hr": torch.zeros(1, P + 1, H).double()}, r"w_hr: expected shape \(1, 3, 5\), got \(1, 4, 5\)"),
        ({"w_hr": torch.zeros(1, P, 0).double()}, "w_hr: expected H > 0, got 0"),
        ({"w_hr": torch.zeros(1, P, H)}, "w_hr: its dtype differs from that of w_hh"),
        ({"w_hr": torch.zeros(1, P, H + 1).double()}, r"w_hh: expected shape \(1, 24, 3\), got \(1, 20, 3\)"),
        ({"w_hr": None}, r"w_hh: expected shape \(1, 12, 3\), got \(1, 20, 3\)"),
        ({"w_hh": torch.zeros(1, 4 * H, 0).double()}, "w_hh: expected P > 0, got 0"),
        ({"h0": torch.zeros(1, 4, H).double()}, r"h0: expected shape \(1, 4, 3\), got \(1, 4, 5\)"),
        ({"h0": torch.zeros(4, P).double()}, r"h0: expected shape \(D, B, P\)"),
        ({"c0": torch.zeros(1, 4, P).double()}, r"c0: expected shape \(1, 4, 5\), got \(1, 4, 3\)"),
    ],
)
def test_bad_projections(change: dict[str, Any], message: str) -> None:
    for name in ("lstm_inference", "lstm_training"):
        with pytest.raises(RuntimeError, match=message):
            getattr(OPS, name)(**_arguments(1, False, projected=True) | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grad_output": torch.zeros(N, H).double()}, r"grad_output: expected shape \(11, 3\), got \(11, 5\)"),
        ({"grad_h_n": torch.zeros(1, 4, H).double()}, r"grad_h_n: expected shape \(1, 4, 3\)"),
        ({"output": torch.zeros(N, H).double()}, r"output: expected shape \(11, 3\)"),
        ({"cells": torch.zeros(1, N, P).double()}, r"cells: expected shape \(1, 11, 5\)"),
        ({"w_hr": torch.zeros(1, P, H)}, "w_hr: its dtype differs"),
    ],
)
def test_bad_backward_of_projections(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        OPS.lstm_backward(**_backward_arguments(1, False, projected=True) | change)
    with pytest.raises(RuntimeError, match="need_w_hr: expected False without w_hr, got True"):
        OPS.lstm_backward(**_backward_arguments(1, False) | {"need_w_hr": True})


def test_float16_has_no_kernel_yet() -> None:
    with pytest.raises(RuntimeError, match="w_hh: expected dtype float32, float64 or bfloat16"):
        OPS.lstm_inference(**_arguments(1, False, torch.float16))


@pytest.mark.parametrize("size", [4, 5])
def test_bfloat16_gates_are_refused(size: int) -> None:
    """They would be read as float32, twice as long."""
    state = torch.zeros(1, 1, size, dtype=torch.bfloat16)
    w_hh = torch.zeros(1, 4 * size, size, dtype=torch.bfloat16)
    gates = torch.zeros(1, 2, 4 * size, dtype=torch.bfloat16)
    with pytest.raises(RuntimeError, match="gates: expected dtype float32 beside a bfloat16 w_hh"):
        OPS.lstm_inference(gates, None, torch.tensor([1, 1]), w_hh, state, state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grad_output": torch.zeros(N, H + 1).double()}, "grad_output: expected shape"),
        ({"grad_h_n": torch.zeros(1, 3, H).double()}, "grad_h_n: expected shape"),
        ({"grad_c_n": torch.zeros(1, 4, H)}, "grad_c_n: its dtype"),
        ({"activations": torch.zeros(1, N - 1, 4 * H).double()}, "activations: expected shape"),
        ({"cells": torch.zeros(1, N, H - 1).double()}, "cells: expected shape"),
        ({"output": torch.zeros(N, H + 1).double()}, "output: expected shape"),
        ({"gate_rows": -1}, "gate_rows: expected at least 0, got -1"),
        ({"gate_rows": N + 1}, "gates: expected one row"),
    ],
)
def test_bad_backward_arguments(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        OPS.lstm_backward(**_backward_arguments(1, False) | change)


@pytest.mark.parametrize(
    ("ids", "vocab_size", "message"),
    [
        (torch.tensor([0, 5]), 5, "ids: token id 5 at position 1, expected 0 <= id < vocab_size = 5"),
        (torch.tensor([-1]), 5, "ids: token id -1 at position 0"),
        (torch.tensor([[1]]), 5, "ids: expected one dimension"),
        (torch.tensor([1.0]), 5, "ids: expected dtype int64"),
        (torch.tensor([1]), 0, "vocab_size: expected at least 1"),
    ],
)
def test_bad_distinct_tokens(ids: Tensor, vocab_size: int, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        ops.distinct_tokens(ids, vocab_size)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([2, 0], r"lengths: lengths\[1\] = 0, expected 1 <= length <= 4"),
        ([5, 1], r"lengths: lengths\[0\] = 5"),
        ([-3], r"lengths: lengths\[0\] = -3"),
        ([], "lengths: expected one length a row"),
    ],
)
def test_bad_packed_layout(lengths: list[int], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        ops.packed_layout(torch.tensor(lengths, dtype=torch.int64), 4, len(lengths), 1)


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
    a = _arguments(directions, with_index, torch.bfloat16) | {"gates": torch.randn(directions, N, 4 * H)}
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
