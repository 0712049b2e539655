"""Autograd: which gradients there are, misuse that is to be noticed, hooks, checkpoints, and what stays apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lstm_pair import assert_same, flat, pair
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils.checkpoint import checkpoint

from textclf_fast import FusedLSTM

T, B, E, H = 4, 3, 5, 6
BATCH_SIZES = torch.tensor([3, 3, 2, 1])


def _module(lstm_class: type[nn.LSTM], **options: Any) -> nn.LSTM:
    return lstm_class(E, H, dtype=torch.float64, **options)


def _leaf(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


# ---- float64, against nn.LSTM --------------------------------------------------------------------


@pytest.mark.compat("float64", "results and every gradient within 1e-9 of nn.LSTM's: dense, unbatched, packed")
@pytest.mark.parametrize("form", ["dense", "unbatched", "packed", "packed unsorted"])
@pytest.mark.parametrize("flags", range(16))
@pytest.mark.parametrize("proj_size", [0, 2])
def test_results_and_gradients(form: str, flags: int, proj_size: int) -> None:
    bias, batch_first, bidirectional, states = (bool(flags & bit) for bit in (1, 2, 4, 8))
    options = {"bias": bias, "batch_first": batch_first, "bidirectional": bidirectional, "proj_size": proj_size}
    plain, fused = pair(E, H, 2, **options, dtype=torch.float64)
    rows = () if form == "unbatched" else (B,)
    shape = (T, *rows, E) if form == "unbatched" or not batch_first else (*rows, T, E)
    given = [_leaf(*shape)]
    layers = 2 * (1 + bidirectional)
    given += [_leaf(layers, *rows, proj_size or H), _leaf(layers, *rows, H)] if states else []
    found = []
    for module in (plain, fused):
        leaves = [t.detach().clone().requires_grad_() for t in given]
        x: Any = leaves[0]
        if form.startswith("packed"):
            lengths = [2, 4, 1] if form.endswith("unsorted") else [4, 2, 1]
            x = pack_padded_sequence(
                x, torch.tensor(lengths), batch_first, enforce_sorted=not form.endswith("unsorted")
            )
        results = flat(module(x, tuple(leaves[1:]) if states else None))
        weighted = [(t * torch.linspace(-1, 1, t.numel(), dtype=t.dtype).view(t.shape)).sum() for t in results]
        found.append([*results, *torch.autograd.grad(sum(weighted), [*leaves, *module.parameters()])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


# ---- Which gradients -----------------------------------------------------------------------------


@pytest.mark.compat("autograd", "a loss of any one of output, h_n, c_n")
@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_one_result(which: int, options: dict[str, Any]) -> None:
    plain, fused = pair(E, H, **options, dtype=torch.float64)
    x, found = _leaf(T, B, E), []
    for module in (plain, fused):
        loss = flat(module(x))[which].square().sum()
        found.append(torch.autograd.grad(loss, [x, *module.parameters()]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.compat("autograd", "gradients of h_0 alone, of c_0 alone, of the input alone")
@pytest.mark.parametrize("which", [0, 1, 2])
def test_one_argument(which: int) -> None:
    plain, fused = pair(E, H, 2, dtype=torch.float64)
    found = []
    given = [torch.randn(T, B, E), torch.randn(2, B, H), torch.randn(2, B, H)]
    for module in (plain, fused):
        module.requires_grad_(False)
        leaves = [t.double() for t in given]
        leaves[which].requires_grad_()
        results = flat(module(leaves[0], (leaves[1], leaves[2])))
        assert all(t.requires_grad for t in results)
        found.append(torch.autograd.grad(sum(t.square().sum() for t in results), leaves[which]))
        assert all(p.grad is None for p in module.parameters())
    torch.testing.assert_close(*found)


@pytest.mark.compat("autograd", "frozen weights keep grad None, the others get theirs")
@pytest.mark.parametrize("frozen", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_hh_l1"])
def test_frozen_weights(frozen: str) -> None:
    plain, fused = pair(E, H, 2, dtype=torch.float64)
    x = torch.randn(T, B, E, dtype=torch.float64)
    for module in (plain, fused):
        getattr(module, frozen).requires_grad_(False)
        module(x)[0].square().sum().backward()
        assert [name for name, p in module.named_parameters() if p.grad is None] == [frozen]
    for a, b in zip(plain.parameters(), fused.parameters(), strict=True):
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.compat("autograd", "nothing requires grad under no_grad, inference_mode, or with all frozen")
def test_no_graph(lstm_class: type[nn.LSTM]) -> None:
    module, x = _module(lstm_class), torch.randn(T, B, E, dtype=torch.float64)
    with torch.no_grad():
        assert not any(t.requires_grad for t in flat(module(x)))
    with torch.inference_mode():
        assert all(t.is_inference() for t in flat(module(x)))
    module.requires_grad_(False)
    assert not any(t.requires_grad for t in flat(module(x)))


@pytest.mark.compat("autograd", "gradients accumulate over calls, as one module used twice")
def test_accumulation(lstm_class: type[nn.LSTM]) -> None:
    module, x = _module(lstm_class), torch.randn(T, B, E, dtype=torch.float64)
    module(x)[0].sum().backward()
    once = [p.grad.clone() for p in module.parameters()]
    module(x)[0].sum().backward()
    for p, g in zip(module.parameters(), once, strict=True):
        torch.testing.assert_close(p.grad, 2 * g)


@pytest.mark.compat("autograd", "retain_graph: five backwards give the same bits")
def test_retained_graph(lstm_class: type[nn.LSTM]) -> None:
    module, x = _module(lstm_class, num_layers=2), _leaf(T, B, E)
    loss = module(x)[0].square().sum()
    found = [torch.autograd.grad(loss, [x, *module.parameters()], retain_graph=True) for _ in range(5)]
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


# ---- Misuse --------------------------------------------------------------------------------------


def _change_output(module: nn.LSTM, x: Tensor, results: list[Tensor]) -> None:
    results[0].mul_(2)


def _change_input(module: nn.LSTM, x: Tensor, results: list[Tensor]) -> None:
    with torch.no_grad():
        x.zero_()


def _step(module: nn.LSTM, x: Tensor, results: list[Tensor]) -> None:
    for p in module.parameters():
        p.grad = torch.ones_like(p)
    torch.optim.SGD(module.parameters(), lr=0.1).step()


def _backward(module: nn.LSTM, x: Tensor, results: list[Tensor]) -> None:
    results[0].sum().backward()


@pytest.mark.parametrize(
    "misuse",
    [
        pytest.param(
            _change_output, marks=pytest.mark.compat("misuse", "the output changed in place before backward: raises")
        ),
        pytest.param(
            _change_input, marks=pytest.mark.compat("misuse", "the input changed in place before backward: raises")
        ),
        pytest.param(
            _step, marks=pytest.mark.compat("misuse", "an optimizer's step between forward and backward: raises")
        ),
        pytest.param(_backward, marks=pytest.mark.compat("misuse", "a second backward without retain_graph: raises")),
    ],
)
def test_misuse(lstm_class: type[nn.LSTM], misuse: Callable[..., None]) -> None:
    module = lstm_class(E, H)
    x = torch.randn(T, B, E)
    results = flat(module(x))
    misuse(module, x, results)
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation|second time"):
        results[0].sum().backward()


@pytest.mark.compat(
    "misuse",
    "the output changed in place before backward, in float64 or packed: raises",
    nn_lstm="computes",
    difference="ours keeps the output for backward, as nn.LSTM does for dense float32 and with cuDNN",
)
@pytest.mark.parametrize("packed", [False, True])
def test_output_changed(lstm_class: type[nn.LSTM], packed: bool) -> None:
    module, x = _module(lstm_class), torch.randn(9, E, dtype=torch.float64)
    output = flat(module(PackedSequence(x, BATCH_SIZES) if packed else x.view(3, 3, E)))[0]
    output.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@pytest.mark.compat("misuse", "states changed in place before backward: raises")
def test_states_changed(lstm_class: type[nn.LSTM]) -> None:
    module, x = _module(lstm_class), torch.randn(T, B, E, dtype=torch.float64)
    h0 = torch.randn(1, B, H, dtype=torch.float64)
    output, _ = module(x, (h0, h0.clone()))
    h0.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


# ---- Hooks and checkpoints -----------------------------------------------------------------------


@pytest.mark.compat("hooks", "forward, pre-forward, full backward, parameter and tensor hooks")
def test_hooks(lstm_class: type[nn.LSTM]) -> None:
    module, x = _module(lstm_class), _leaf(T, B, E)
    seen = []
    module.register_forward_pre_hook(lambda m, args: (args[0] * 2, *args[1:]))
    module.register_forward_hook(lambda m, args, result: (result[0] + 1, result[1]))
    module.register_full_backward_pre_hook(lambda m, grads: seen.append(("pre", grads[0].shape)))
    module.register_full_backward_hook(lambda m, ins, outs: seen.append(("full", ins[0].shape)))
    module.weight_hh_l0.register_hook(lambda grad: grad * 0)
    module.weight_ih_l0.register_post_accumulate_grad_hook(lambda p: seen.append(("accumulated", p.shape)))
    output, _ = module(x)
    output.register_hook(lambda grad: grad * 3)
    output.sum().backward()
    assert {name for name, _ in seen} == {"pre", "full", "accumulated"}
    assert not module.weight_hh_l0.grad.any()
    plain = _module(lstm_class)
    plain.load_state_dict(module.state_dict())
    y = (2 * x.detach()).requires_grad_()
    want = plain(y)[0]
    torch.testing.assert_close(output, want + 1)
    (3 * want).sum().backward()
    torch.testing.assert_close(x.grad, 2 * y.grad)


@pytest.mark.compat(
    "checkpoint", "torch.utils.checkpoint, reentrant or not, with dropout: the gradients of the plain call"
)
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_checkpoint(lstm_class: type[nn.LSTM], reentrant: bool, packed: bool) -> None:
    module, x = _module(lstm_class, num_layers=2, dropout=0.5), _leaf(T, B, E)

    def run(x: Tensor) -> Tensor:
        return flat(module(pack_padded_sequence(x, torch.tensor([4, 2, 1])) if packed else x))[0]

    found = []
    for call in (run, lambda x: checkpoint(run, x, use_reentrant=reentrant)):
        module.zero_grad()
        x.grad = None
        torch.manual_seed(3)
        call(x).square().sum().backward()
        found.append([x.grad.clone(), *(p.grad.clone() for p in module.parameters())])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@pytest.mark.compat("hooks", "saved_tensors_hooks: what is kept for backward can be stored elsewhere")
def test_saved_tensors_hooks(lstm_class: type[nn.LSTM]) -> None:
    module, x = _module(lstm_class), _leaf(T, B, E)
    want = torch.autograd.grad(module(x)[0].square().sum(), [x, *module.parameters()])
    stored: list[Tensor] = []

    def pack(t: Tensor) -> int:
        stored.append(t.detach().clone())
        return len(stored) - 1

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda i: stored[i]):
        loss = module(x)[0].square().sum()
    assert stored
    for a, b in zip(torch.autograd.grad(loss, [x, *module.parameters()]), want, strict=True):
        torch.testing.assert_close(a, b)


# ---- What stays apart ----------------------------------------------------------------------------


@pytest.mark.compat("numbers", "a NaN at one step stays in its row, from that step on")
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_nan_stays(lstm_class: type[nn.LSTM], grad: bool, packed: bool) -> None:
    module, x = _module(lstm_class), torch.randn(T, B, E, dtype=torch.float64)
    x[2, 1] = torch.nan
    given = pack_padded_sequence(x, torch.tensor([4, 4, 3])) if packed else x
    with torch.set_grad_enabled(grad):
        output, (h, c) = module(given)
    if packed:
        output = nn.utils.rnn.pad_packed_sequence(output)[0]
    want = torch.zeros(T, B, dtype=torch.bool)
    want[2:, 1] = True
    assert torch.equal(output.isnan().all(-1), want)
    assert torch.equal(output.isnan().any(-1), want)
    for state in (h, c):
        assert torch.equal(state.isnan().any(-1)[0], want[-1])


@pytest.mark.compat("numbers", "huge, infinite, denormal and negative-zero inputs stay finite where they can")
@pytest.mark.parametrize("value", [1e30, -1e30, torch.inf, -torch.inf, 1e-40, -0.0])
def test_extreme_inputs(value: float) -> None:
    plain, fused = pair(E, H, bias=False)
    with torch.no_grad():
        for p in [*plain.parameters(), *fused.parameters()]:
            p.copy_(p.sign())  # no sum of infinities of both signs, which is NaN for any order
            p[:] = 1.0
    x = torch.full((T, B, E), value)
    assert_same(fused(x), plain(x))
    assert all(t.isfinite().all() for t in flat(fused(x)))


@pytest.mark.compat("numbers", "70,000 rows, past the 65,535 that some launches are limited to; 70,000 steps")
@pytest.mark.parametrize("shape", [(70_000, 1, 2), (1, 70_000, 2)], ids=str)
def test_many(shape: tuple[int, ...]) -> None:
    plain, fused = pair(2, 3)
    x = torch.randn(shape)
    with torch.no_grad():
        assert_same(fused(x), plain(x))
    fused(x)[0].sum().backward()
    assert all(p.grad.isfinite().all() for p in fused.parameters())


@pytest.mark.compat("numbers", "the same bits run after run, forward and backward")
def test_determinism(lstm_class: type[nn.LSTM]) -> None:
    module, x = lstm_class(E, 40, 2, bidirectional=True), torch.randn(9, 8, E)
    found = []
    for _ in range(5):
        results = flat(module(x))
        found.append([*results, *torch.autograd.grad(results[0].square().sum(), list(module.parameters()))])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_batch_sizes_of_a_packed_sequence_are_handed_on() -> None:
    packed = PackedSequence(torch.randn(9, E), BATCH_SIZES)
    assert FusedLSTM(E, H)(packed)[0].batch_sizes is BATCH_SIZES
