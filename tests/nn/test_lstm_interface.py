"""FusedLSTM as a module: forms of input, errors, dropout, state, and the ways around our kernels."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from lstm_cases import pytorch_lowers
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from textclf_fast import FusedLSTM
from textclf_fast.nn.stack import transforms_are_off


def _pair(*args: int, **options: object) -> tuple[nn.LSTM, FusedLSTM]:
    plain, fused = nn.LSTM(*args, **options), FusedLSTM(*args, **options)  # type: ignore[arg-type]
    fused.load_state_dict(plain.state_dict())
    return plain, fused


def _flat(result: tuple[Tensor | PackedSequence, tuple[Tensor, Tensor]]) -> list[Tensor]:
    output = result[0]
    return [output.data if isinstance(output, PackedSequence) else output, *result[1]]


def _assert_same(got: object, want: object) -> None:
    for a, b in zip(_flat(got), _flat(want), strict=True):  # type: ignore[arg-type]
        torch.testing.assert_close(a, b)
        assert a.shape == b.shape


def test_is_an_lstm_with_its_parameters_and_repr() -> None:
    options = {"num_layers": 2, "bias": False, "batch_first": True, "dropout": 0.5, "bidirectional": True}
    plain, fused = _pair(3, 5, **options)
    assert isinstance(fused, nn.LSTM)
    assert [n for n, _ in fused.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert repr(fused) == repr(plain).replace("LSTM", "FusedLSTM")
    plain.load_state_dict(fused.state_dict())


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}, {"proj_size": 2}], ids=str)
def test_unbatched_input(batch_first: bool, options: dict[str, object]) -> None:
    plain, fused = _pair(4, 6, batch_first=batch_first, **options)
    x = torch.randn(7, 4)
    _assert_same(fused(x), plain(x))
    layers = plain.num_layers * (1 + plain.bidirectional)
    hx = (torch.randn(layers, plain.proj_size or 6), torch.randn(layers, 6))
    _assert_same(fused(x, hx), plain(x, hx))
    _assert_same(fused(x, list(hx)), plain(x, hx))


def test_output_layout_and_aliasing() -> None:
    plain, fused = _pair(4, 6, batch_first=True)
    x = torch.randn(3, 5, 4)
    output, (h, c) = fused(x)
    assert output.stride() == plain(x)[0].stride()
    assert h.is_contiguous()
    assert c.is_contiguous()
    kept = h.clone()
    with torch.no_grad():
        output.zero_()
    assert torch.equal(h, kept)


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


def test_dropout_is_bit_identical_to_pytorchs() -> None:
    plain, fused = _pair(4, 6, num_layers=3, dropout=0.4)
    x = torch.randn(5, 3, 4)
    torch.manual_seed(7)
    want = plain(x)
    torch.manual_seed(7)
    got = fused(x)
    zeros = torch.rand(5, 3, 6)  # the generators stand at the same place
    torch.manual_seed(7)
    plain(x)
    assert torch.equal(zeros, torch.rand(5, 3, 6))
    _assert_same(got, want)
    fused.eval()
    _assert_same(fused(x), plain.eval()(x))
    fused.train().dropout = 1.0
    plain.train().dropout = 1.0
    _assert_same(fused(x), plain(x))


def test_empty_batch_and_empty_sequence() -> None:
    plain, fused = _pair(4, 6)
    x = torch.randn(5, 0, 4, requires_grad=True)
    _assert_same(fused(x), plain(x))
    fused(x)[0].sum().backward()
    with pytest.raises(RuntimeError, match="sequence length to be larger than 0"):
        fused(torch.randn(0, 3, 4))


def test_copies_pickles_and_state() -> None:
    plain, fused = _pair(4, 6, num_layers=2)
    x = torch.randn(5, 3, 4)
    want = plain(x)
    _assert_same(copy.deepcopy(fused)(x), want)
    _assert_same(pickle.loads(pickle.dumps(fused))(x), want)
    buffer = io.BytesIO()
    torch.save(fused.state_dict(), buffer)
    buffer.seek(0)
    other = FusedLSTM(4, 6, num_layers=2)
    other.load_state_dict(torch.load(buffer))
    _assert_same(other(x), want)
    _assert_same(FusedLSTM.from_lstm(plain)(x), want)
    assert FusedLSTM.from_lstm(fused) is fused


def test_weights_replaced_tied_moved_and_reparametrized() -> None:
    x = torch.randn(5, 3, 4)
    plain, fused = _pair(4, 6, bidirectional=True)
    for module in (plain, fused):
        module.weight_hh_l0 = nn.Parameter(torch.full((24, 6), 0.1))
        module.bias_ih_l0_reverse = module.bias_ih_l0
    _assert_same(fused(x), plain(x))
    _assert_same(fused.double()(x.double()), plain.double()(x.double()))
    plain, fused = _pair(4, 6)
    for module in (plain, fused):
        nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    fused.load_state_dict(plain.state_dict())
    _assert_same(fused(x), plain(x))
    fused(x)[0].sum().backward()
    assert fused.parametrizations.weight_hh_l0.original0.grad is not None
    with pytest.raises(ValueError, match="lstm: its weights are parametrized"):
        FusedLSTM.from_lstm(plain)


def test_functional_call_uses_the_given_weights() -> None:
    plain, fused = _pair(4, 6)
    weights = {name: p.detach() * 2 for name, p in plain.named_parameters()}
    x = torch.randn(5, 3, 4)
    _assert_same(torch.func.functional_call(fused, weights, (x,)), torch.func.functional_call(plain, weights, (x,)))
    _assert_same(fused(x), plain(x))


def test_transforms_of_torch_func_and_forward_mode() -> None:
    """They take PyTorch's path: through our ops a tangent would be lost without a word."""
    plain, fused = _pair(4, 6)
    x, tangent = torch.randn(5, 2, 4), torch.randn(5, 2, 4)
    weights = dict(plain.named_parameters())

    def per_sample_gradients(module: nn.Module) -> dict[str, Tensor]:
        def loss(w: dict[str, Tensor], x: Tensor) -> Tensor:
            return torch.func.functional_call(module, w, (x.unsqueeze(1),))[0].square().sum()

        return torch.func.vmap(torch.func.grad(loss), in_dims=(None, 1))(weights, x)

    assert transforms_are_off()
    torch.testing.assert_close(per_sample_gradients(fused), per_sample_gradients(plain))
    torch.testing.assert_close(torch.func.jacrev(lambda x: fused(x)[0])(x), torch.func.jacrev(lambda x: plain(x)[0])(x))
    for module in (plain, fused):
        with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError):
            module(torch.autograd.forward_ad.make_dual(x, tangent))


def test_double_backward() -> None:
    plain, fused = _pair(3, 4, bidirectional=True, dtype=torch.float64)
    penalties = []
    for module in (plain, fused):
        x = torch.linspace(-1, 1, 4 * 2 * 3, dtype=torch.float64).view(4, 2, 3).requires_grad_()
        (grad,) = torch.autograd.grad(module(x)[0].square().sum(), x, create_graph=True)
        grad.square().sum().backward()
        penalties.append([x.grad, *(p.grad for p in module.parameters())])
    for a, b in zip(*penalties, strict=True):
        torch.testing.assert_close(a, b)


def test_other_dtypes_take_pytorchs_path() -> None:
    plain, fused = _pair(4, 6)
    x = torch.randn(5, 3, 4)
    for dtype in (torch.float16, torch.complex64):
        _assert_same(fused.to(dtype)(x.to(dtype)), plain.to(dtype)(x.to(dtype)))


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
        if pytorch_lowers():
            assert [t.dtype for t in _flat(dense)] == [t.dtype for t in _flat(plain(x, hx))]
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


def test_lengths_of_any_integer_kind() -> None:
    import numpy as np

    module = FusedLSTM(5, 6)
    x = torch.randn(4, 3, 5)
    want = module(x, lengths=torch.tensor([4, 2, 1]))[0]
    for lengths in ([4, 2, 1], (4, 2, 1), np.array([4, 2, 1], dtype=np.int16), torch.tensor([4, 2, 1]).int()):
        assert torch.equal(module(x, lengths=lengths)[0], want)


@pytest.mark.parametrize("options", [{}, {"fused": True}], ids=str)
def test_kept_panels_follow_the_weights(options: dict[str, bool]) -> None:
    plain, fused = _pair(4, 6, num_layers=2, bidirectional=True)
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


@pytest.mark.parametrize("batch_first", [False, True])
def test_middling_dense_inference_takes_onednns_path(batch_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    plain, fused = _pair(3, 256, batch_first=batch_first)
    x = torch.randn(8, 2, 3) if batch_first else torch.randn(2, 8, 3)
    monkeypatch.setattr(FusedLSTM, "_run", None)  # the kernels' way: must not be taken
    with torch.no_grad():
        for a, b in zip(_flat(fused(x)), _flat(plain(x)), strict=True):
            assert torch.equal(a, b)
        with pytest.raises(TypeError):  # lengths give the kernels something to save
            fused(x, lengths=[2, 1] * 4)
    with pytest.raises(TypeError):
        fused(x)
