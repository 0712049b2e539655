"""The short way through FusedLSTM: when it is gone, that it is right, and that it follows the weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from lstm_cases import Case, option_cases, reference_forward
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from textclf_fast import FusedLSTM

INPUT, H = 5, 11


def pair(dtype: torch.dtype = torch.float64, **options: Any) -> tuple[nn.LSTM, FusedLSTM]:
    plain = nn.LSTM(INPUT, H, dtype=dtype, **options).eval()
    fused = FusedLSTM(INPUT, H, dtype=dtype, **options).eval()
    fused.load_state_dict(plain.state_dict())
    return plain, fused


def flat(result: tuple[Tensor, tuple[Tensor, Tensor]]) -> list[Tensor]:
    return [result[0], *result[1]]


@pytest.mark.usefixtures("_poisoned")
@pytest.mark.parametrize("case", [case for case in option_cases() if not case.states], ids=str)
def test_same_as_the_general_way(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fused = pair(**case.options())
    shape = (case.rows, case.steps) if case.batch_first else (case.steps, case.rows)
    x, other = torch.randn(*shape, INPUT, dtype=torch.float64), torch.randn(7, 3, INPUT, dtype=torch.float64)
    lengths = case.make_lengths()
    with torch.no_grad():
        general = fused(x, lengths=lengths)
        monkeypatch.setattr(FusedLSTM, "_forward", None)
        short = fused(x, lengths=lengths)
        expected = reference_forward(plain)(x, None, lengths)
        for a, b, c in zip(flat(short), flat(general), flat(expected), strict=True):
            assert torch.equal(a, b)
            torch.testing.assert_close(a, c)
            assert a.stride() == (c if lengths is None else b).stride()
        for a, c in zip(flat(fused(other)), flat(plain(other)), strict=True):  # other sizes
            torch.testing.assert_close(a, c)


@pytest.mark.parametrize("enforce_sorted", [False, True])
def test_packed_sequences(enforce_sorted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fused = pair(bidirectional=True, num_layers=2)
    rows = [torch.randn(n, INPUT, dtype=torch.float64) for n in ((5, 3, 3, 1) if enforce_sorted else (3, 5, 1, 3))]
    packed = pack_sequence(rows, enforce_sorted)
    with torch.no_grad():
        fused(packed)
        monkeypatch.setattr(FusedLSTM, "_forward", None)
        output, states = fused(packed)
        expected, want = plain(packed)
    torch.testing.assert_close((output.data, *states), (expected.data, *want))
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        a, b = getattr(output, name), getattr(expected, name)
        assert (a is None and b is None) or torch.equal(a, b)
    with torch.no_grad(), pytest.raises(RuntimeError, match="batch_sizes: they add up to 10, expected"):
        fused(packed._replace(batch_sizes=torch.tensor([4, 3, 2, 1])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_other_dtypes_have_the_same_bits(
    dtype: torch.dtype, bidirectional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, fused = pair(dtype, bidirectional=bidirectional)
    x = torch.randn(6, 2, INPUT, dtype=dtype)
    with torch.no_grad():
        general = flat(fused(x))
        monkeypatch.setattr(FusedLSTM, "_forward", None)
        for a, b in zip(flat(fused(x)), general, strict=True):
            assert a.dtype == dtype
            assert torch.equal(a, b)


def change_in_place(fused: FusedLSTM) -> None:
    fused.weight_ih_l0.mul_(2)


def change_bias(fused: FusedLSTM) -> None:
    fused.bias_hh_l0.add_(1)


def swap(fused: FusedLSTM) -> None:
    fused.weight_hh_l0 = nn.Parameter(torch.randn_like(fused.weight_hh_l0))


def load(fused: FusedLSTM) -> None:
    fused.load_state_dict({name: torch.randn_like(w) for name, w in fused.state_dict().items()})


@pytest.mark.parametrize("change", [change_in_place, change_bias, swap, load])
def test_follows_every_change_of_the_weights(change: Any) -> None:
    plain, fused = pair(num_layers=2)
    x = torch.randn(6, 2, INPUT, dtype=torch.float64)
    with torch.no_grad():
        before = fused(x)[0]
        assert torch.equal(fused(x)[0], before)
        change(fused)
        plain.load_state_dict(fused.state_dict())
        for _ in range(2):  # the general way, then the short one again
            torch.testing.assert_close(fused(x)[0], plain(x)[0])
        assert not torch.allclose(fused(x)[0], before)


def test_the_dtype_may_change() -> None:
    plain, fused = pair(torch.float32)
    x = torch.randn(6, 2, INPUT)
    with torch.no_grad():
        fused(x), fused(x)
        for dtype in (torch.float64, torch.float32):
            plain, fused, x = plain.to(dtype), fused.to(dtype), x.to(dtype)
            for _ in range(2):
                for a, b in zip(flat(fused(x)), flat(plain(x)), strict=True):
                    torch.testing.assert_close(a, b)


def test_results_are_the_callers_own() -> None:
    _, fused = pair()
    x = torch.randn(6, 2, INPUT, dtype=torch.float64)
    with torch.no_grad():
        kept = [t.clone() for t in flat(fused(x))]
        for _ in range(2):
            for t in flat(fused(x)):
                t.fill_(torch.nan)
        for a, b in zip(flat(fused(x)), kept, strict=True):
            assert torch.equal(a, b)


def test_what_is_special_goes_the_general_way(monkeypatch: pytest.MonkeyPatch) -> None:
    _, fused = pair(num_layers=2, dropout=0.5)
    x = torch.randn(6, 2, INPUT, dtype=torch.float64)
    states = torch.zeros(2, 2, H, dtype=torch.float64)
    with torch.no_grad():
        fused(x)
    monkeypatch.setattr(FusedLSTM, "_forward", None)
    with torch.no_grad():
        fused(x)
        special = [
            lambda: fused(x, (states, states)),
            lambda: fused(x, return_cell_states=True),
            lambda: fused(pack_sequence([x[:, 0]]), lengths=[6]),
            lambda: fused(x[:, 0]),
            lambda: fused(x.float()),
            lambda: fused(x[..., :2]),
            lambda: fused(x[:0]),
            lambda: fused.train()(x),
        ]
        for call in special:
            with pytest.raises(TypeError, match="NoneType"):
                call()
    with pytest.raises(TypeError, match="NoneType"):
        fused.eval()(x)  # a backward may follow, which forgets what is kept
    with torch.no_grad():
        fused(x)


def test_copies_and_threads_start_anew() -> None:
    _, fused = pair()
    x = torch.randn(6, 2, INPUT, dtype=torch.float64)
    with torch.no_grad():
        expected = fused(x)[0]
        twin = copy.deepcopy(fused)
        assert twin._panels.frozen._layers.is_empty
        assert torch.equal(twin(x)[0], expected)
