"""FusedLSTM as a module: bad input, lengths, what is kept, the ways around our kernels. (As a drop-in: drop_in/.)"""

from __future__ import annotations

import pytest
import torch
from lstm_pair import assert_same as _assert_same
from lstm_pair import flat as _flat
from lstm_pair import pair as _pair
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from textclf_fast import FusedLSTM


def test_from_lstm_shares_the_parameters() -> None:
    plain, x = nn.LSTM(4, 6, num_layers=2, dropout=0.5).eval(), torch.randn(5, 3, 4)
    fused = FusedLSTM.from_lstm(plain)
    assert all(a is b for a, b in zip(fused.parameters(), plain.parameters(), strict=True))
    assert not fused.training
    _assert_same(fused(x), plain(x))
    assert FusedLSTM.from_lstm(fused) is fused
    nn.utils.parametrizations.weight_norm(plain, "weight_hh_l0")
    with pytest.raises(ValueError, match="lstm: its weights are parametrized"):
        FusedLSTM.from_lstm(plain)


def test_strided_inputs_states_and_gradients() -> None:
    plain, fused = _pair(4, 6, bidirectional=True)
    grads = []
    for module in (plain, fused):
        module.zero_grad()
        x = torch.arange(2.0 * 5 * 3 * 4).div(100).view(5, 3, 4, 2)[..., 1].requires_grad_()
        h0 = torch.ones(1, 1, 6).expand(2, 3, 6).requires_grad_()
        c0 = torch.arange(6.0).flip(0).expand(2, 3, 6).requires_grad_()
        output, (h, c) = module(x, (h0, c0))
        (output.sum() + h.transpose(0, 1).sum() + c[:, ::2].sum()).backward()
        grads.append([x.grad, h0.grad, c0.grad, *(p.grad for p in module.parameters())])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("with_states", [False, True])
def test_autocast_computes_padded_input_in_bfloat16_and_packed_input_as_it_is(with_states: bool) -> None:
    """As nn.LSTM does."""
    plain, fused = _pair(4, 6, num_layers=2, bidirectional=True)
    lowered = FusedLSTM(4, 6, num_layers=2, bidirectional=True, dtype=torch.bfloat16)
    lowered.load_state_dict(plain.state_dict())
    x, lengths = torch.randn(5, 3, 4), torch.tensor([5, 1, 3])
    hx = (torch.randn(4, 3, 6), torch.randn(4, 3, 6)) if with_states else None
    low_hx = (hx[0].bfloat16(), hx[1].bfloat16()) if hx else None
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        dense, with_lengths = fused(x, hx), fused(x, hx, lengths=lengths)
        assert [t.dtype for t in _flat(dense)] == [torch.bfloat16] * 3
        _assert_same(fused(packed, hx), plain(packed, hx))
    _assert_same(dense, lowered(x.bfloat16(), low_hx))
    _assert_same(with_lengths, lowered(x.bfloat16(), low_hx, lengths=lengths))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = fused(x, hx)[0].float().square().sum()
    loss.backward()
    lowered(x.bfloat16(), low_hx)[0].float().square().sum().backward()
    for (name, p), low in zip(fused.named_parameters(), lowered.parameters(), strict=True):
        assert p.grad is not None
        assert p.grad.dtype == torch.float32
        torch.testing.assert_close(p.grad, low.grad.float(), msg=lambda text, name=name: f"{name}: {text}")


# ---- Bad input -----------------------------------------------------------------------------------

X = torch.zeros(4, 3, 5)
H0 = torch.zeros(1, 3, 6)
PACKED = pack_padded_sequence(X, torch.tensor([4, 2, 1]))


def _packed(rows: int, *sizes: int, **more: Tensor) -> PackedSequence:
    return PackedSequence(torch.zeros(rows, 5), torch.tensor(sizes), **more)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(4),), ValueError, "Expected input to be 2D or 3D, got 1D"),
        ((torch.zeros(4, 3, 5, 1),), ValueError, "Expected input to be 2D or 3D, got 4D"),
        ((torch.zeros(4, 3, 7),), RuntimeError, "input.size.-1. must be equal to input_size. Expected 5, got 7"),
        ((torch.zeros(4, 7),), RuntimeError, "Expected 5, got 7"),
        ((X.double(),), ValueError, "RNN input dtype .torch.float64. does not match weight dtype"),
        ((X.long(),), ValueError, "RNN input dtype"),
        ((X.to("meta"),), (RuntimeError, NotImplementedError), "."),
        ((X, (H0,)), (RuntimeError, IndexError), "."),
        ((X, (H0, H0, H0)), RuntimeError, "hx: expected two hidden states"),
        ((X, torch.stack([H0, H0])), TypeError, "hx: expected a pair of tensors"),
        ((X, (H0[0], H0[0])), RuntimeError, "For batched 3-D input, hx and cx should also be 3-D"),
        ((X[:, 0], (H0, H0)), RuntimeError, "For unbatched 2-D input, hx and cx should also be 2-D"),
        ((X, (torch.zeros(1, 7, 6), H0)), RuntimeError, r"Expected hidden\[0\] size \(1, 3, 6\), got \[1, 7, 6\]"),
        ((X, (H0, torch.zeros(1, 3, 7))), RuntimeError, r"Expected hidden\[1\] size \(1, 3, 6\), got \[1, 3, 7\]"),
        ((X, (torch.zeros(2, 3, 6), H0)), RuntimeError, r"Expected hidden\[0\] size"),
        ((X, (H0.double(), H0)), RuntimeError, r"hidden\[0\]: expected the dtype of the input"),
        ((X, (H0, H0.to("meta"))), RuntimeError, "Input and hidden tensors are not at the same device"),
        ((_packed(6, 3, 2, 1), (H0, torch.zeros(1, 2, 6))), RuntimeError, r"Expected hidden\[1\] size"),
        ((_packed(6, 3, 2, 2),), RuntimeError, "batch_sizes: they add up to 7, expected the rows of data"),
        ((_packed(9, 3, 2, 1),), RuntimeError, "batch_sizes: they add up to 6"),
        ((_packed(6, 1, 2, 3),), RuntimeError, "batch_sizes: expected non-increasing numbers"),
        ((_packed(5, 3, 2, 0),), RuntimeError, "batch_sizes: expected non-increasing numbers, at least 1"),
        ((_packed(6, 3, 3, sorted_indices=torch.tensor([0, 1])),), RuntimeError, "indices"),
        (
            (PackedSequence(X.flatten(0, 1), torch.tensor([12]).int()),),
            RuntimeError,
            "batch_sizes: expected a non-empty",
        ),
        ((PackedSequence(torch.zeros(6, 7), torch.tensor([3, 2, 1])),), RuntimeError, "Expected 5, got 7"),
        ((PackedSequence(torch.zeros(6, 5).double(), torch.tensor([3, 2, 1])),), ValueError, "RNN input dtype"),
        ((PackedSequence(torch.zeros(6, 5, 1), torch.tensor([3, 2, 1])),), RuntimeError, "2 dimensions"),
    ],
)
def test_bad_input(arguments: tuple[object, ...], error: type[Exception], message: str) -> None:
    module = FusedLSTM(5, 6)
    with pytest.raises(error, match=message):
        module(*arguments)


def test_packing_with_a_length_beyond_the_input_is_caught() -> None:
    """pack_padded_sequence makes an object that contradicts itself, without a word."""
    packed = pack_padded_sequence(torch.zeros(4, 3, 5), torch.tensor([6, 4, 3]))
    with pytest.raises(RuntimeError, match="batch_sizes: they add up to"):
        FusedLSTM(5, 6)(packed)


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([4, 0, 2], RuntimeError, r"lengths: lengths\[1\] = 0, expected 1 <= length <= 4"),
        ([4, -1, 2], RuntimeError, r"lengths: lengths\[1\] = -1"),
        ([4, 5, 2], RuntimeError, r"lengths: lengths\[1\] = 5"),
        ([4, 2], ValueError, "lengths: got 2 lengths, expected 3"),
        (torch.tensor([[4, 2, 1]]), ValueError, "lengths: expected one dimension"),
        (torch.tensor([4.0, 2.0, 1.0]), TypeError, "lengths: expected integers, got a tensor of dtype torch.float32"),
        (torch.tensor([True, True, True]), TypeError, "lengths: expected integers"),
        ([4.0, 2.0, 1.0], TypeError, "lengths: expected integers, got"),
        ("abc", TypeError, "lengths: expected integers, got 'abc'"),
        (None, None, ""),
    ],
)
@pytest.mark.compat(
    "lengths", "bad lengths are refused, by position and value", nn_lstm="packing accepts those beyond the input"
)
def test_bad_lengths(lengths: object, error: type[Exception] | None, message: str) -> None:
    module = FusedLSTM(5, 6)
    if error is None:
        module(X, lengths=lengths)
        return
    for grad in (False, True):
        with torch.set_grad_enabled(grad), pytest.raises(error, match=message):
            module(X, lengths=lengths)


def test_lengths_beside_what_has_its_own() -> None:
    module = FusedLSTM(5, 6)
    with pytest.raises(ValueError, match="lengths: expected None beside a PackedSequence"):
        module(PACKED, lengths=[4, 2, 1])
    with pytest.raises(ValueError, match="lengths: expected a batched 3-D input"):
        module(X[:, 0], lengths=[4])


@pytest.mark.compat(
    "lengths", "lengths=..., of any integer kind, for unsorted rows of a padded batch", nn_lstm="no such argument"
)
def test_lengths_of_any_integer_kind() -> None:
    import numpy as np

    module = FusedLSTM(5, 6)
    x = torch.randn(4, 3, 5)
    want = module(x, lengths=torch.tensor([4, 2, 1]))[0]
    for lengths in ([4, 2, 1], (4, 2, 1), np.array([4, 2, 1], dtype=np.int16), torch.tensor([4, 2, 1]).int()):
        assert torch.equal(module(x, lengths=lengths)[0], want)


@pytest.mark.parametrize("options", [{}, {"fused": True}], ids=str)
@pytest.mark.parametrize("proj_size", [0, 4])
def test_kept_panels_follow_the_weights(options: dict[str, bool], proj_size: int) -> None:
    plain, fused = _pair(4, 6, num_layers=2, bidirectional=True, proj_size=proj_size)
    x = torch.randn(5, 3, 4)
    optimizer = torch.optim.SGD(fused.parameters(), lr=1.0, **options)
    for _ in range(3):
        optimizer.zero_grad()
        loss = fused(x)[0].square().sum()
        with torch.no_grad():
            before = fused(x)[0]  # the panels are kept from here on, before the step
        loss.backward()
        optimizer.step()
        plain.load_state_dict(fused.state_dict())
        with torch.no_grad():
            after = fused(x)[0]
            torch.testing.assert_close(after, plain(x)[0])
        assert not torch.allclose(before, after)


def test_kept_panels_follow_the_projection_alone() -> None:
    plain, fused = _pair(4, 6, proj_size=3)
    x = torch.randn(5, 3, 4)
    with torch.no_grad():
        for _ in range(2):
            _assert_same(fused(x), plain(x))
            for module in (plain, fused):
                module.weight_hr_l0.add_(0.5)


@pytest.mark.compat("options", "proj_size, on our kernels: h projected to fewer numbers, in any layer and direction")
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"batch_first": True}], ids=str)
def test_projections_run_on_our_kernels(options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fused = _pair(4, 256, proj_size=5, **options)
    x = torch.randn(8, 8, 4)
    layers = plain.num_layers * (1 + plain.bidirectional)
    hx = torch.randn(layers, 8, 5), torch.randn(layers, 8, 256)
    want = plain(x, hx)
    monkeypatch.setattr(nn.LSTM, "forward", None)  # PyTorch's way: must not be taken
    _assert_same(fused(x, hx), want)
    with torch.no_grad():
        _assert_same(fused(x, hx), want)


@pytest.mark.parametrize("batch_first", [False, True])
def test_dense_batches_run_on_our_kernels(batch_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fused = _pair(3, 256, batch_first=batch_first)
    x = torch.randn(8, 2, 3) if batch_first else torch.randn(2, 8, 3)
    want = plain(x)
    monkeypatch.setattr(nn.LSTM, "forward", None)  # PyTorch's way: must not be taken
    _assert_same(fused(x), want)
    with torch.no_grad():
        _assert_same(fused(x), want)
