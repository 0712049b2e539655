"""Derivatives of every other kind: double backward, forward mode, torch.func, per-sample gradients.

What they give is compared with nn.LSTM's own derivatives in reverse mode, taken one at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lstm_pair import flat, pair
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.functional import hessian, jacobian
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vjp, vmap
from torch.nn.utils.rnn import PackedSequence

from textclf_fast import FusedLSTM, ops

T, B, E, H, V = 3, 2, 2, 3, 7
LENGTHS = torch.tensor([2, 3])
BATCH_SIZES, ORDER = torch.tensor([2, 2, 1]), torch.tensor([1, 0])

Function = Callable[[Tensor], Tensor]


def _flat(*results: Tensor) -> Tensor:
    return torch.cat([t.flatten() for t in results]).tanh()


class Dense:
    shape = (T, B, E)

    def __call__(self, module: nn.LSTM, x: Tensor) -> Tensor:
        output, (h, c) = module(x)
        return _flat(output, h, c)


class Packed:
    """The (N, E) data of a PackedSequence made beforehand: packing itself has no rules in PyTorch."""

    shape = (5, E)

    def __call__(self, module: nn.LSTM, x: Tensor) -> Tensor:
        output, (h, c) = module(PackedSequence(x, BATCH_SIZES, ORDER, ORDER))
        return _flat(output.data, h, c)


class WithLengths:
    """``lengths`` for FusedLSTM; for nn.LSTM the same by hand, in reverse mode."""

    shape = (T, B, E)

    def __call__(self, module: nn.LSTM, x: Tensor) -> Tensor:
        if isinstance(module, FusedLSTM):
            output, (h, c) = module(x, lengths=LENGTHS)
        else:
            packed = nn.utils.rnn.pack_padded_sequence(x, LENGTHS, enforce_sorted=False)
            output, (h, c) = module(packed)
            output = nn.utils.rnn.pad_packed_sequence(output)[0]
        return _flat(output, h, c)


FORMS = [Dense(), Packed(), WithLengths()]


def _modules(options: dict[str, Any], dtype: torch.dtype = torch.float64) -> tuple[nn.LSTM, FusedLSTM]:
    # Weights that need no gradient: nn.LSTM's path in float64 changes tensors in place that they would then be part of.
    plain, fused = pair(E, H, **options, dtype=dtype)
    return plain.requires_grad_(False), fused.requires_grad_(False)


def _transforms(f: Function, x: Tensor, t: Tensor) -> dict[str, Callable[[], Any]]:
    """Transforms of ``f`` at ``x`` in the direction ``t`` beside what they are in reverse mode."""

    def scalar(x: Tensor) -> Tensor:
        return f(x).square().sum()

    def dual() -> Tensor:
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(f(forward_ad.make_dual(x, t))).tangent

    return {
        "grad": lambda: grad(scalar)(x),
        "vjp": lambda: vjp(f, x)[1](f(x))[0],
        "jacrev": lambda: jacrev(f)(x),
        "jacfwd": lambda: jacfwd(f)(x),
        "jvp": lambda: jvp(f, (x,), (t,))[1],
        "forward mode": dual,
        "hessian": lambda: torch.func.hessian(scalar)(x),
        "grad of grad": lambda: grad(lambda x: (grad(scalar)(x) * t).sum())(x),
        "vmap": lambda: vmap(f)(torch.stack([x, t])),
        "vmap of grad": lambda: vmap(grad(scalar))(torch.stack([x, t])),
        "jacobian, vectorize": lambda: jacobian(f, x, vectorize=True),
        "jacobian, forward mode": lambda: jacobian(f, x, vectorize=True, strategy="forward-mode"),
        "hessian, vectorize": lambda: hessian(scalar, x, vectorize=True),
    }


def _expected(f: Function, x: Tensor, t: Tensor) -> dict[str, Tensor]:
    """The same of nn.LSTM by way of Jacobians and Hessians in reverse mode, row by row."""

    def scalar(x: Tensor) -> Tensor:
        return f(x).square().sum()

    def gradient(x: Tensor) -> Tensor:
        return jacobian(scalar, x)

    matrix, second = jacobian(f, x), hessian(scalar, x)
    tangent = (matrix.flatten(-x.dim()) * t.flatten()).sum(-1)
    return {
        "grad": gradient(x),
        "vjp": (matrix * f(x).view(-1, *[1] * x.dim())).sum(0),
        "jacrev": matrix,
        "jacfwd": matrix,
        "jvp": tangent,
        "forward mode": tangent,
        "hessian": second,
        "grad of grad": (second.flatten(-x.dim()) * t.flatten()).sum(-1),
        "vmap": torch.stack([f(x), f(t)]),
        "vmap of grad": torch.stack([gradient(x), gradient(t)]),
        "jacobian, vectorize": matrix,
        "jacobian, forward mode": matrix,
        "hessian, vectorize": second,
    }


@pytest.mark.compat(
    "transforms",
    "all of torch.func and forward mode in float64, dense, packed and with lengths",
    nn_lstm="dense only, and no vmap over inputs",
)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "bias": False}], ids=str)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: type(form).__name__)
def test_transforms(form: Any, options: dict[str, Any]) -> None:
    plain, fused = _modules(options)
    x, t = torch.randn(2, *form.shape, dtype=torch.float64)
    want = _expected(lambda x: form(plain, x), x, t)
    for name, transform in _transforms(lambda x: form(fused, x), x, t).items():
        torch.testing.assert_close(transform(), want[name], msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.compat("transforms", "grad, vjp, jacrev, grad of grad on a dense batch")
@pytest.mark.parametrize("name", ["grad", "vjp", "jacrev", "grad of grad"])
def test_reverse_mode(lstm_class: type[nn.LSTM], name: str) -> None:
    _check_one(lstm_class, name, torch.float64)


@pytest.mark.compat("transforms", "jvp, jacfwd, hessian, forward mode in float32", nn_lstm="raises: no rule for it")
@pytest.mark.parametrize("name", ["jvp", "jacfwd", "hessian", "forward mode"])
def test_forward_mode_in_float32(lstm_class: type[nn.LSTM], name: str) -> None:
    _check_one(lstm_class, name, torch.float32)


@pytest.mark.compat("transforms", "vmap over a batch of inputs, and vmap of grad", nn_lstm="raises: no rule for it")
@pytest.mark.parametrize("name", ["vmap", "vmap of grad"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_vmap(lstm_class: type[nn.LSTM], name: str, dtype: torch.dtype) -> None:
    if name == "vmap of grad" and dtype == torch.float32 and lstm_class is nn.LSTM:
        pytest.skip("nn.LSTM has a rule for this one")
    _check_one(lstm_class, name, dtype)


@pytest.mark.compat("transforms", "jacobian and hessian with vectorize=True")
@pytest.mark.parametrize("name", ["jacobian, vectorize", "hessian, vectorize"])
def test_vectorized(lstm_class: type[nn.LSTM], name: str) -> None:
    _check_one(lstm_class, name, torch.float64)


def _check_one(lstm_class: type[nn.LSTM], name: str, dtype: torch.dtype) -> None:
    form = Dense()
    module = lstm_class(E, H, 2, bidirectional=True, dtype=dtype).requires_grad_(False)
    plain = nn.LSTM(E, H, 2, bidirectional=True, dtype=torch.float64).requires_grad_(False)
    plain.load_state_dict(module.state_dict())
    x, t = torch.randn(2, *form.shape, dtype=dtype)
    want = _expected(lambda x: form(plain, x), x.double(), t.double())[name]
    torch.testing.assert_close(
        _transforms(lambda x: form(module, x), x, t)[name](), want.to(dtype), rtol=1e-4, atol=1e-5
    )


@pytest.mark.compat(
    "transforms", "one row without a batch dimension, mapped over by vmap", nn_lstm="raises: no rule for it"
)
def test_vmap_of_unbatched(lstm_class: type[nn.LSTM]) -> None:
    module, x = lstm_class(E, H, 2, bidirectional=True), torch.randn(T, B, E)
    got = vmap(lambda row: module(row)[0], in_dims=1, out_dims=1)(x)
    torch.testing.assert_close(got, module(x)[0])


@pytest.mark.compat("transforms", "per-sample gradients: vmap of grad over functional_call")
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_per_sample_gradients(lstm_class: type[nn.LSTM], options: dict[str, Any]) -> None:
    _check_per_sample_gradients(lstm_class(E, H, **options))


@pytest.mark.compat("transforms", "per-sample gradients with proj_size", nn_lstm="raises: no rule for it")
def test_per_sample_gradients_with_a_projection(lstm_class: type[nn.LSTM]) -> None:
    _check_per_sample_gradients(lstm_class(E, H, proj_size=2))


def _check_per_sample_gradients(module: nn.LSTM) -> None:
    x = torch.randn(T, 4, E)
    weights = {name: p.detach() for name, p in module.named_parameters()}

    def loss(weights: dict[str, Tensor], row: Tensor) -> Tensor:
        return functional_call(module, weights, (row.unsqueeze(1),))[0].square().sum()

    got = vmap(grad(loss), in_dims=(None, 1))(weights, x)
    for b in range(4):
        module.zero_grad()
        module(x[:, b : b + 1])[0].square().sum().backward()
        for name, p in module.named_parameters():
            torch.testing.assert_close(got[name][b], p.grad)


@pytest.mark.compat("transforms", "an ensemble: vmap over stacked weights", nn_lstm="raises: no rule for it")
def test_ensemble(lstm_class: type[nn.LSTM]) -> None:
    modules, x = [lstm_class(E, H, 2) for _ in range(3)], torch.randn(T, B, E)
    weights, _ = torch.func.stack_module_state(modules)
    got = vmap(lambda w: functional_call(modules[0], w, (x,))[0])(weights)
    torch.testing.assert_close(got, torch.stack([module(x)[0] for module in modules]))


@pytest.mark.compat("transforms", "dropout under vmap asks for randomness=..., and takes it")
def test_dropout_under_vmap(lstm_class: type[nn.LSTM]) -> None:
    module, x = lstm_class(E, H, 2, dropout=0.5).requires_grad_(False), torch.randn(3, T, B, E)
    with pytest.raises(RuntimeError):
        vmap(lambda x: module(x)[0])(x)
    if lstm_class is FusedLSTM:
        got = vmap(lambda x: module(x)[0], randomness="different")(x[:1].expand(3, T, B, E))
        assert not torch.equal(got[0], got[1])


# ---- Transforms that reach a backward from outside -----------------------------------------------


def _of_a_backward(module: nn.LSTM, x: Tensor, t: Tensor) -> dict[str, Callable[[], Any]]:
    """Gradients of ``x`` as a function of the output's gradient ``v``, transformed."""
    output = module(x)[0]
    v = output.detach()

    def backward(v: Tensor, **options: Any) -> Tensor:
        return torch.autograd.grad(output, x, v, retain_graph=True, **options)[0]

    def dual(**options: Any) -> Tensor:
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(backward(forward_ad.make_dual(v, t), **options)).tangent

    return {
        "forward mode": dual,
        "forward mode, create_graph": lambda: dual(create_graph=True),
        "jvp": lambda: jvp(backward, (v,), (t,))[1],
        "jacfwd": lambda: (jacfwd(backward)(v).flatten(x.dim()) * t.flatten()).sum(-1),
        "vmap": lambda: vmap(backward)(torch.stack([v, t]))[1],
        "is_grads_batched": lambda: backward(torch.stack([v, t]), is_grads_batched=True)[1],
        "is_grads_batched, create_graph": lambda: backward(
            torch.stack([v, t]), is_grads_batched=True, create_graph=True
        )[1],
        "grad, create_graph": lambda: _back(
            grad(lambda v: (backward(v, create_graph=True) * x).sum())(v), output, x, t
        ),
    }


def _back(got: Tensor, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """<J x, t> is <x, J' t>: the check of the former in terms of the latter."""
    want = torch.autograd.grad(output, x, t, retain_graph=True)[0]
    torch.testing.assert_close((got * t).sum(), (want * x).sum())
    return want


@pytest.mark.compat("transforms", "of a backward: tangents, vmap, is_grads_batched, double backward through it")
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_backward_transformed(lstm_class: type[nn.LSTM], options: dict[str, Any]) -> None:
    """A backward is linear in the gradient that it is given: its derivative in a direction is the backward of that."""
    module = lstm_class(E, H, **options, dtype=torch.float64).requires_grad_(False)
    x = torch.randn(T, B, E, dtype=torch.float64, requires_grad=True)
    t = torch.randn_like(module(x)[0]).detach()
    (want,) = torch.autograd.grad(module(x)[0], x, t)
    for name, transform in _of_a_backward(module, x, t).items():
        torch.testing.assert_close(transform(), want, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.compat("transforms", "double backward: gradients of gradients, also packed")
@pytest.mark.parametrize("form", FORMS, ids=lambda form: type(form).__name__)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "bias": False}], ids=str)
def test_double_backward(form: Any, options: dict[str, Any]) -> None:
    found = []
    given = torch.randn(form.shape, dtype=torch.float64, requires_grad=True)
    for module in pair(E, H, **options, dtype=torch.float64):
        leaves = [given, *module.parameters()]
        first = torch.autograd.grad(form(module, given).square().sum(), leaves, create_graph=True)
        found.append([*first, *torch.autograd.grad(sum(g.square().sum() for g in first), leaves)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_ops_keep_tangents() -> None:
    """Also where they are called by themselves."""
    gates, w_hh = torch.randn(1, 5, 4 * H), torch.randn(1, 4 * H, H)
    states = torch.randn(2, 1, B, H)
    table, rows = torch.randn(V, E), torch.tensor([3, 0, 5])
    for f, x in (
        (lambda gates: ops.lstm(gates, None, BATCH_SIZES, w_hh, *states)[0], gates),
        (lambda table: ops.gather_rows(table, rows), table),
    ):
        t = torch.randn_like(x)
        matrix = jacobian(f, x)
        want = (matrix.flatten(-x.dim()) * t.flatten()).sum(-1)
        torch.testing.assert_close(jvp(f, (x,), (t,))[1], want, rtol=1e-4, atol=1e-5)
        y = x.clone().requires_grad_()
        out = f(y)
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(torch.randn_like(out), torch.ones_like(out))
            tangent = forward_ad.unpack_dual(torch.autograd.grad(out, y, dual)[0]).tangent
        torch.testing.assert_close(tangent, matrix.flatten(0, -x.dim() - 1).sum(0), rtol=1e-4, atol=1e-5)


def test_lengths_cannot_be_mapped_over() -> None:
    x, lengths = torch.randn(4, T, B, E), torch.ones(4, B, dtype=torch.int64)
    module = FusedLSTM(E, H)
    with pytest.raises(RuntimeError, match="lengths: expected the same ones for every sample of vmap"):
        vmap(lambda x, lengths: module(x, lengths=lengths)[0])(x, lengths)
    with pytest.raises(RuntimeError, match=r"lengths: lengths\[1\] = 4, expected 1 <= length <= 3"):
        grad(lambda x: flat(module(x, lengths=[1, 4]))[0].sum())(x[0])


def test_transforms_are_noticed() -> None:
    """By private names of torch."""
    seen = []
    x = torch.randn(3)

    def look(x: Tensor) -> Tensor:
        seen.append(ops.transformed())
        return x.sum()

    look(x)
    grad(look)(x)
    vmap(look)(x.unsqueeze(0))
    jvp(look, (x,), (x,))
    jacrev(look)(x)
    with forward_ad.dual_level():
        look(x)
    look(x)
    assert seen == [False, True, True, True, True, True, False]
