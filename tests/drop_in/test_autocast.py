"""Autocast on the CPU: which dtypes go in, which come out, and when there is an error."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from lstm_pair import flat, pair
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from textclf_fast import FusedEmbeddingLSTM, FusedLSTM

T, B, E, H = 4, 3, 5, 6
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def _skip_where_nn_lstm_cannot(lstm_class: type[nn.LSTM]) -> None:
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            nn.LSTM(E, H)(torch.zeros(T, B, E))
    except RuntimeError:
        if lstm_class is nn.LSTM:
            pytest.skip("oneDNN has no LSTM in bfloat16 for this machine")


def _outcome(module: nn.LSTM, given: Any, hx: Any) -> Any:
    try:
        return flat(module(given, hx))
    except (RuntimeError, ValueError):
        return None


def _assert_alike(module: nn.LSTM, plain: nn.LSTM, given: Any, hx: Any) -> None:
    """Where nn.LSTM has an answer, ours has the same dtypes and, to bfloat16's precision, numbers."""
    got, want = _outcome(module, given, hx), _outcome(plain, given, hx)
    if want is not None:
        assert got is not None
        assert [t.dtype for t in got] == [t.dtype for t in want]
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-2)


@pytest.mark.compat(
    "autocast", "float32 input beside bfloat16 weights: an error outside of it, bfloat16 results inside"
)
def test_mixed_dtypes(lstm_class: type[nn.LSTM]) -> None:
    _skip_where_nn_lstm_cannot(lstm_class)
    module, x = lstm_class(E, H, dtype=torch.bfloat16), torch.randn(T, B, E)
    with pytest.raises(ValueError, match="RNN input dtype"):
        module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = flat(module(x))
    assert [t.dtype for t in results] == [torch.bfloat16] * 3


@pytest.mark.compat(
    "autocast", "any dtypes of module, input and states: results of the same dtypes wherever nn.LSTM gives any"
)
@pytest.mark.parametrize("form", ["dense", "unbatched", "packed"])
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("to", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("grad", [False, True])
def test_all_dtypes(form: str, states: bool, to: torch.dtype, grad: bool) -> None:
    plain, fused = pair(E, H, 2, bidirectional=True)
    rows = () if form == "unbatched" else (B,)
    x, h0, c0 = torch.randn(T, *rows, E), torch.randn(4, *rows, H), torch.randn(4, *rows, H)
    for of_module, of_input in itertools.product(DTYPES, DTYPES):
        given: Any = x.to(of_input)
        if form == "packed":
            given = pack_padded_sequence(given, torch.tensor([2, 4, 1]), enforce_sorted=False)
        hx = (h0.to(of_input), c0.to(of_input)) if states else None
        with torch.autocast("cpu", dtype=to), torch.set_grad_enabled(grad):
            _assert_alike(fused.to(of_module), plain.to(of_module), given, hx)


@pytest.mark.parametrize("of_states", DTYPES, ids=str)
@pytest.mark.parametrize("of_input", [torch.float32, torch.bfloat16], ids=str)
def test_states_of_another_dtype(of_states: torch.dtype, of_input: torch.dtype) -> None:
    _skip_where_nn_lstm_cannot(nn.LSTM)
    plain, fused = pair(E, H)
    hx = torch.randn(1, B, H).to(of_states), torch.randn(1, B, H).to(of_states)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _assert_alike(fused, plain, torch.randn(T, B, E).to(of_input), hx)


@pytest.mark.compat("autocast", "gradients come in the parameters' dtype, after it as within")
def test_gradients(lstm_class: type[nn.LSTM]) -> None:
    _skip_where_nn_lstm_cannot(lstm_class)
    module, x = lstm_class(E, H, 2), torch.randn(T, B, E, requires_grad=True)
    exact = torch.autograd.grad(module(x)[0].square().sum(), [x, *module.parameters()])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = module(x)[0].float().square().sum()
    for got, want in zip(torch.autograd.grad(loss, [x, *module.parameters()]), exact, strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, want, rtol=0.1, atol=0.05 * want.abs().max().item())


@pytest.mark.compat("autocast", "switched off within: as without")
def test_switched_off(lstm_class: type[nn.LSTM]) -> None:
    module, x = lstm_class(E, H), torch.randn(T, B, E)
    want = flat(module(x))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.autocast("cpu", enabled=False):
        got = flat(module(x))
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.compat("autocast", "the weights stay as they are, and so do later calls")
def test_leaves_nothing_behind(lstm_class: type[nn.LSTM]) -> None:
    _skip_where_nn_lstm_cannot(lstm_class)
    module, x = lstm_class(E, H), torch.randn(T, B, E)
    with torch.no_grad():
        want = flat(module(x))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            module(x)
        assert all(weight.dtype == torch.float32 for weight in module._flat_weights)
        assert all(torch.equal(a, b) for a, b in zip(flat(module(x)), want, strict=True))


@pytest.mark.compat("autocast", "hooks are called once, states checked as ever")
def test_hooks_and_checks(lstm_class: type[nn.LSTM]) -> None:
    _skip_where_nn_lstm_cannot(lstm_class)
    module, x, calls = lstm_class(E, H), torch.randn(T, B, E), []
    module.register_forward_pre_hook(lambda *_: calls.append("before"))
    module.register_forward_hook(lambda *_: calls.append("after"))
    h0 = torch.zeros(1, B, H)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        module(x)
        assert calls == ["before", "after"]
        module(x[:, 0])
        with pytest.raises(RuntimeError, match="two hidden states"):
            module(x, (h0, h0, h0))
        with pytest.raises(TypeError):
            module(x, torch.stack([h0, h0]))


def test_hooks_of_embedding_lstm() -> None:
    module, calls = FusedEmbeddingLSTM(7, E, H), []
    for name, child in (("whole", module), ("embedding", module.embedding)):
        child.register_forward_hook(lambda *_, name=name: calls.append(name))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for ids in (torch.tensor([[1, 2], [3, 4]]), torch.tensor([1, 2, 3])):
            output, _ = module(ids)
            assert output.dtype == torch.bfloat16
            assert calls == ["embedding", "whole"]
            calls.clear()


def test_threads_with_autocast_and_without() -> None:
    module, x = FusedLSTM(E, 40), torch.randn(9, 4, E)

    def run(lower: bool) -> list[list[torch.Tensor]]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=lower):
            return [flat(module(x)) for _ in range(20)]

    want = {lower: run(lower)[0] for lower in (False, True)}
    with ThreadPoolExecutor(4) as pool:
        for lower, results in zip([False, True] * 2, pool.map(run, [False, True] * 2), strict=True):
            for got in results:
                assert all(torch.equal(a, b) for a, b in zip(got, want[lower], strict=True))


def test_lengths_beside_autocast() -> None:
    """As the dense call of each row's own length."""
    module, x = FusedLSTM(E, H), torch.randn(T, B, E)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        output, (h, _) = module(x, lengths=[2, 4, 1])
        assert output.dtype == h.dtype == torch.bfloat16
        alone = module(x[:2, :1])
    torch.testing.assert_close(output[:2, :1], alone[0])
