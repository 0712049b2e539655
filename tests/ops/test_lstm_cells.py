"""The cell states as results of a layer: their values, and the gradients that come in by them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from layer_cases import Layer, equal_bits, threads
from ops_cases import OPS, H, N, layer_arguments
from torch import Tensor

from textclf_fast import ops
from textclf_fast.reference import lstm_cells_reference

pytestmark = pytest.mark.usefixtures("_poisoned")

LAYERS = [
    Layer(hidden, lengths, directions, with_index, projected)
    for hidden, projected, lengths in (
        (7, 0, (9, 4, 4, 1)),
        (33, 0, (200, 90, 31)),
        (150, 0, (40, 2)),
        (33, 18, (90, 31)),
    )
    for directions in (1, 2)
    for with_index in (False, True)
]


def _with_cells_in_output(layer: Callable[..., Any], weight: float = 1.0) -> Callable[..., Any]:
    """A layer whose output is ``weight`` times its own plus its cell states, those without a place there as a sum."""

    def run(**arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        output, h_n, c_n, cells = layer(**arguments)
        cells = cells.transpose(0, 1).flatten(1)
        width = output.size(1)
        return weight * output + cells[:, :width] + cells[:, width:].sum(1, keepdim=True), h_n, c_n

    return run


def _rms(t: Tensor) -> float:
    return t.double().square().mean().sqrt().item()


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_values_and_gradients(isa: str, layer: Layer) -> None:
    exact = layer.run(_with_cells_in_output(lstm_cells_reference), torch.float64)
    peer = layer.run(_with_cells_in_output(lstm_cells_reference), torch.float32)
    for count in (1, 3):
        with threads(count):
            double = layer.run(_with_cells_in_output(ops.lstm_with_cells), torch.float64)
            single = layer.run(_with_cells_in_output(ops.lstm_with_cells), torch.float32)
        for name, want in exact.items():
            torch.testing.assert_close(double[name], want, rtol=1e-10, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")
            allowed = 1.5 * _rms(peer[name] - want) + 4 * torch.finfo(torch.float32).eps * _rms(want)
            assert _rms(single[name] - want) <= allowed, name


def test_a_gradient_by_the_cell_states_alone(isa: str) -> None:
    layer = Layer(33, (200, 90, 31), 2, True)

    def alone(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(**arguments: Any) -> tuple[Tensor, ...]:
            _, h_n, c_n, cells = function(**arguments)
            rest = [t.detach().requires_grad_() for t in (h_n, c_n)]
            return cells.transpose(0, 1).flatten(1), *rest

        return run

    got = layer.run(alone(ops.lstm_with_cells), torch.float64)
    want = layer.run(alone(lstm_cells_reference), torch.float64)
    assert want.keys() == got.keys()
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-10, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


def test_without_a_gradient_by_the_cell_states_the_bits_are_the_same(isa: str) -> None:
    layer = Layer(33, (200, 90, 31), 2, True)
    assert equal_bits(layer.run(lambda **a: ops.lstm_with_cells(**a)[:3], torch.float32), layer.run_ours(torch.float32))


def _arguments(directions: int, with_index: bool, dtype: torch.dtype, projected: bool = False) -> dict[str, Any]:
    a = layer_arguments(directions, with_index, dtype, projected)
    return a | {"gates": a["gates"].to(ops.gates_dtype(dtype))}


with_and_without_projection = pytest.mark.parametrize("projected", [False, True], ids=["", "projected"])


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("with_index", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@with_and_without_projection
def test_inference_is_training_without_saving(
    isa: str, directions: int, with_index: bool, dtype: torch.dtype, projected: bool
) -> None:
    a = _arguments(directions, with_index, dtype, projected)
    output, h_n, c_n, _, cells = OPS.lstm_training(**a)
    panels = ops.pack_recurrent(a["w_hh"], a.get("w_hr"))
    for kept in (None, panels):
        for got, want in zip(ops.lstm_with_cells(**a, panels=kept), (output, h_n, c_n, cells), strict=True):
            assert torch.equal(got, want)
            assert got.dtype == dtype


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("with_index", [False, True])
@with_and_without_projection
def test_opcheck(directions: int, with_index: bool, projected: bool) -> None:
    torch.use_deterministic_algorithms(False)
    a = _arguments(directions, with_index, torch.float64, projected)
    w_hr = {"w_hr": a["w_hr"]} if projected else {}
    torch.library.opcheck(OPS.lstm_cells_inference.default, tuple(a.values())[:6], w_hr)
    output, h_n, _, activations, cells = OPS.lstm_training(**a)
    torch.library.opcheck(
        OPS.lstm_backward.default,
        (None, torch.randn_like(h_n), None, activations, cells, output, a["index"], a["gates"].size(1)),
        {name: a[name] for name in ("batch_sizes", "w_hh", "h0", "c0")}
        | {"need_w_hh": True, "grad_cells": torch.randn_like(cells), "need_w_hr": projected}
        | w_hr,
    )


@pytest.mark.parametrize("with_index", [False, True])
@with_and_without_projection
def test_gradcheck_and_gradgradcheck(isa: str, with_index: bool, projected: bool) -> None:
    a = _arguments(2, with_index, torch.float64, projected)
    leaves = tuple(a[name].requires_grad_() for name in _leaves(projected))

    def run(gates: Tensor, w_hh: Tensor, h0: Tensor, c0: Tensor, w_hr: Tensor | None = None) -> tuple[Tensor, ...]:
        return ops.lstm_with_cells(gates, a["index"], a["batch_sizes"], w_hh, h0, c0, w_hr=w_hr)

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, leaves, fast_mode=True)


def _leaves(projected: bool) -> list[str]:
    return ["gates", "w_hh", "h0", "c0", *(["w_hr"] if projected else [])]


@with_and_without_projection
def test_the_registered_formula_knows_the_cell_states(projected: bool) -> None:
    """The one that torch.compile takes."""
    a = _arguments(2, False, torch.float64, projected)
    leaves = [a[name].requires_grad_() for name in _leaves(projected)]
    weight = torch.randn(2, N, H, dtype=torch.float64)
    got = torch.autograd.grad((OPS.lstm_training(**a)[4] * weight).sum(), leaves)
    want = torch.autograd.grad((lstm_cells_reference(**a)[3] * weight).sum(), leaves)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w)


def test_bad_gradient_of_the_cell_states() -> None:
    a = _arguments(1, False, torch.float64)
    output, _, _, activations, cells = OPS.lstm_training(**a)
    rest = [a[name] for name in ("batch_sizes", "w_hh", "h0", "c0")]
    for bad, message in (
        (torch.zeros(1, N - 1, H).double(), "grad_cells: expected shape"),
        (torch.zeros(1, N, H), "grad_cells: its dtype differs"),
    ):
        with pytest.raises(RuntimeError, match=message):
            OPS.lstm_backward(output, None, None, activations, cells, output, None, N, *rest, True, bad)
