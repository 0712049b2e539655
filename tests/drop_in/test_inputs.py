"""What a call takes and gives: forms of input and states, dtypes, dropout, layout of the results."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lstm_pair import assert_same, flat, pair
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

from textclf_fast import FusedLSTM

T, B, E, H = 4, 3, 5, 6
X = torch.zeros(T, B, E)
H0 = torch.zeros(1, B, H)


# ---- Forms of input ------------------------------------------------------------------------------


@pytest.mark.compat("input", "one row without a batch dimension is a batch of one, squeezed")
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}, {"proj_size": 2}], ids=str)
def test_unbatched(lstm_class: type[nn.LSTM], batch_first: bool, options: dict[str, Any]) -> None:
    module = lstm_class(E, H, batch_first=batch_first, **options)
    batch_dim = 0 if batch_first else 1
    x = torch.randn(T, E)
    hx = [torch.randn(t.shape) for t in module(x)[1]]
    for one, batch in ((None, None), (hx, [t.unsqueeze(1) for t in hx])):
        got, (output, (h, c)) = module(x, one), module(x.unsqueeze(batch_dim), batch)
        assert_same(got, (output.squeeze(batch_dim), (h.squeeze(1), c.squeeze(1))))


@pytest.mark.compat("input", "an empty batch gives empty results and zero gradients")
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2, "batch_first": True}], ids=str)
def test_empty_batch(lstm_class: type[nn.LSTM], options: dict[str, Any]) -> None:
    module = lstm_class(E, H, **options)
    x = torch.randn((0, T, E) if module.batch_first else (T, 0, E), requires_grad=True)
    output, (h, c) = module(x)
    layers = module.num_layers * (1 + module.bidirectional)
    assert output.shape == (*x.shape[:2], H * (1 + module.bidirectional))
    assert h.shape == c.shape == (layers, 0, H)
    output.sum().backward()
    assert x.grad.shape == x.shape
    for p in module.parameters():
        assert p.grad is None or not p.grad.any()


@pytest.mark.compat("input", "a sequence of no steps is refused")
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"batch_first": True}], ids=str)
@pytest.mark.parametrize("rows", [3, 0, None])
def test_no_steps(lstm_class: type[nn.LSTM], options: dict[str, Any], rows: int | None) -> None:
    module = lstm_class(E, H, **options)
    shape = (0, E) if rows is None else (rows, 0, E) if module.batch_first else (0, rows, E)
    with pytest.raises(RuntimeError, match="Expected sequence length to be larger than 0 in RNN"):
        module(torch.zeros(shape))


@pytest.mark.compat("input", "wrong sizes, dimensions, dtypes: the same errors, word for word")
@pytest.mark.parametrize(
    "arguments",
    [
        (torch.zeros(4),),
        (torch.zeros(4, 3, 5, 1),),
        (torch.zeros(4, 3, 7),),
        (torch.zeros(4, 7),),
        (X.double(),),
        (X.long(),),
        (X, (H0[0], H0[0])),
        (X, (H0, H0[0])),
        (X[:, 0], (H0, H0)),
    ],
)
def test_errors(arguments: tuple[Any, ...]) -> None:
    errors = []
    for module in (nn.LSTM(E, H), FusedLSTM(E, H)):
        with pytest.raises((RuntimeError, ValueError)) as caught:
            module(*arguments)
        errors.append(caught)
    assert errors[0].type is errors[1].type
    assert str(errors[0].value) == str(errors[1].value)


@pytest.mark.compat("input", "states of wrong sizes are refused, h_0 and c_0 by their numbers")
@pytest.mark.parametrize("bad", [(1, 7, H), (1, B, 7), (2, B, H), (7, B, H)], ids=str)
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("proj_size", [0, 2])
def test_wrong_states(lstm_class: type[nn.LSTM], bad: tuple[int, ...], which: int, proj_size: int) -> None:
    module = lstm_class(E, H, proj_size=proj_size)
    hx = [torch.zeros(1, B, proj_size or H), torch.zeros(1, B, H)]
    hx[which] = torch.zeros(bad)
    with pytest.raises(RuntimeError, match=rf"Expected hidden\[{which}\] size \(1, 3, \d\), got \[{bad[0]}, {bad[1]}"):
        module(X, tuple(hx))


# ---- States --------------------------------------------------------------------------------------


@pytest.mark.compat("states", "hx absent is hx of zeros; a list will do for the pair")
@pytest.mark.parametrize("packed", [False, True])
def test_states(lstm_class: type[nn.LSTM], packed: bool) -> None:
    module, x = lstm_class(E, H), torch.randn(T, B, E)
    given = pack_padded_sequence(x, torch.tensor([2, 4, 1]), enforce_sorted=False) if packed else x
    assert_same(module(given), module(given, (H0, H0)))
    assert_same(module(given, [H0 + 1, H0]), module(given, (H0 + 1, H0)))


@pytest.mark.compat("states", "three states are a RuntimeError, a stacked tensor a TypeError")
def test_states_that_are_no_pair(lstm_class: type[nn.LSTM]) -> None:
    module = lstm_class(E, H)
    with pytest.raises(RuntimeError, match="two hidden states"):
        module(X, (H0, H0, H0))
    with pytest.raises(TypeError):
        module(X, torch.stack([H0, H0]))


@pytest.mark.compat("states", "states of another dtype are refused")
def test_states_of_another_dtype(lstm_class: type[nn.LSTM]) -> None:
    with pytest.raises(RuntimeError):
        lstm_class(E, H)(X, (H0.double(), H0))


@pytest.mark.compat("states", "two halves with the state carried over are one whole")
def test_carried_states(lstm_class: type[nn.LSTM]) -> None:
    module, x = lstm_class(E, H, 2), torch.randn(T, B, E)
    first, states = module(x[:2])
    second, final = module(x[2:], states)
    assert_same((torch.cat([first, second]), final), module(x))


# ---- PackedSequence ------------------------------------------------------------------------------


@pytest.mark.compat("PackedSequence", "sorted, unsorted, of single steps; each row as if alone")
@pytest.mark.parametrize("lengths", [[5], [10, 10, 6, 2, 2, 1, 1], [2, 1, 3, 2, 10, 5, 3]], ids=str)
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}, {"proj_size": 2}], ids=str)
def test_packed(lstm_class: type[nn.LSTM], lengths: list[int], options: dict[str, Any]) -> None:
    module = lstm_class(E, H, **options)
    rows = [torch.randn(n, E) for n in lengths]
    packed = pack_sequence(rows, enforce_sorted=False)
    output, (h, c) = module(packed)
    assert torch.equal(output.batch_sizes, packed.batch_sizes)
    assert torch.equal(output.sorted_indices, packed.sorted_indices)
    for i, (row, got) in enumerate(zip(rows, nn.utils.rnn.unpack_sequence(output), strict=True)):
        assert_same((got, (h[:, i], c[:, i])), module(row))


@pytest.mark.compat("PackedSequence", "batch_sizes that increase are refused")
def test_increasing_batch_sizes(lstm_class: type[nn.LSTM]) -> None:
    with pytest.raises(RuntimeError):
        lstm_class(E, H)(PackedSequence(torch.zeros(6, E), torch.tensor([1, 2, 3])))


@pytest.mark.compat(
    "PackedSequence",
    "more rows of data than batch_sizes say are refused",
    nn_lstm="leaves the rest out, without a word",
    difference="nn.LSTM answers for a part of the data; that part of it is meant is hardly so",
)
def test_rows_that_no_step_reads(lstm_class: type[nn.LSTM]) -> None:
    with pytest.raises(RuntimeError):
        lstm_class(E, H)(PackedSequence(torch.zeros(9, E), torch.tensor([3, 2, 1])))


@pytest.mark.compat(
    "PackedSequence",
    "a zero in batch_sizes is refused",
    nn_lstm="computes",
    difference="packing never makes such a one",
)
def test_a_zero_in_batch_sizes(lstm_class: type[nn.LSTM]) -> None:
    with pytest.raises(RuntimeError):
        lstm_class(E, H)(PackedSequence(torch.zeros(5, E), torch.tensor([3, 2, 0])))


@pytest.mark.compat("PackedSequence", "what pack_padded_sequence makes of a length beyond the input is refused")
def test_a_length_beyond_the_input(lstm_class: type[nn.LSTM]) -> None:
    packed = pack_padded_sequence(X, torch.tensor([6, 4, 3]))
    with pytest.raises(RuntimeError):
        lstm_class(E, H)(packed)


@pytest.mark.compat(
    "PackedSequence", "other features, dtypes, states: errors that name them", nn_lstm="errors of its products"
)
@pytest.mark.parametrize(
    ("data", "states", "message"),
    [
        (torch.zeros(6, 7), None, "input.size.-1. must be equal to input_size. Expected 5, got 7"),
        (torch.zeros(6, E).double(), None, "RNN input dtype"),
        (torch.zeros(6, E), (H0[:, :2], H0[:, :2]), r"Expected hidden\[0\] size \(1, 3, 6\), got \[1, 2, 6\]"),
    ],
)
def test_packed_errors(lstm_class: type[nn.LSTM], data: Tensor, states: Any, message: str) -> None:
    with pytest.raises((RuntimeError, ValueError), match=message):
        lstm_class(E, H)(PackedSequence(data, torch.tensor([3, 2, 1])), states)


# ---- Results -------------------------------------------------------------------------------------


@pytest.mark.compat("results", "strides: output as a view of time-major memory, states contiguous")
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_strides(lstm_class: type[nn.LSTM], batch_first: bool, grad: bool) -> None:
    module = lstm_class(E, H, 2, batch_first=batch_first, bidirectional=True)
    with torch.set_grad_enabled(grad):
        output, (h, c) = module(torch.randn((B, T, E) if batch_first else (T, B, E)))
    assert output.stride() == ((2 * H, B * 2 * H, 1) if batch_first else (B * 2 * H, 2 * H, 1))
    assert h.is_contiguous()
    assert c.is_contiguous()


@pytest.mark.compat("results", "no result shares memory with another, nor with what was given")
@pytest.mark.parametrize("steps", [1, T])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_nothing_is_shared(lstm_class: type[nn.LSTM], steps: int, options: dict[str, Any]) -> None:
    module = lstm_class(E, H, **options)
    layers = module.num_layers * (1 + module.bidirectional)
    given = [torch.randn(steps, B, E), torch.randn(layers, B, H), torch.randn(layers, B, H), *module.parameters()]
    with torch.no_grad():
        results = flat(module(given[0], (given[1], given[2])))
        before = [t.clone() for t in [*given, *results]]
        for i, changed in enumerate(results):
            changed.fill_(7)
            others = [*given, *results]
            before[len(given) + i] = changed.clone()
            assert all(torch.equal(t, b) for t, b in zip(others, before, strict=True))


@pytest.mark.compat("results", "bidirectional: the output's ends are the final states")
def test_bidirectional_ends(lstm_class: type[nn.LSTM]) -> None:
    output, (h, _) = lstm_class(E, H, 2, bidirectional=True)(torch.randn(T, B, E))
    assert torch.equal(output[-1, :, :H], h[-2])
    assert torch.equal(output[0, :, H:], h[-1])


@pytest.mark.compat("results", "transposed, sliced, expanded, misaligned and flipped input and states")
@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
        lambda x: torch.stack([x, x], -1)[..., 1],
        lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape),
        lambda x: x.flip(0).flip(0),
        lambda x: x[:, :1].expand(x.shape),
    ],
    ids=["transposed", "sliced", "misaligned", "flipped", "expanded"],
)
def test_views(view: Any) -> None:
    plain, fused = pair(E, H, bidirectional=True)
    x, h0, c0 = view(torch.randn(T, B, E)), view(torch.randn(2, B, H)), view(torch.randn(2, B, H))
    assert_same(fused(x, (h0, c0)), plain(x, (h0, c0)))
    assert_same(fused(x, (h0, c0)), fused(x.contiguous(), (h0.contiguous(), c0.contiguous())))


class Tagged(Tensor):
    """A tensor subclass that does nothing of its own."""


@pytest.mark.compat("results", "a tensor subclass in, the subclass out")
@pytest.mark.parametrize("grad", [False, True])
def test_tensor_subclass(lstm_class: type[nn.LSTM], grad: bool) -> None:
    module, x = lstm_class(E, H), torch.randn(T, B, E)
    with torch.set_grad_enabled(grad):
        got = module(x.as_subclass(Tagged))
        assert all(type(t) is Tagged for t in flat(got))
        assert_same([got[0].as_subclass(Tensor), [t.as_subclass(Tensor) for t in got[1]]], module(x))


# ---- Dtypes --------------------------------------------------------------------------------------


@pytest.mark.compat("dtypes", "float64, float32, bfloat16, float16 and complex64")
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64], ids=str
)
def test_dtypes(dtype: torch.dtype, packed: bool) -> None:
    plain, fused = pair(E, H, 2, bidirectional=True)
    x = torch.randn(T, B, E).to(dtype)
    given = pack_padded_sequence(x, torch.tensor([2, 4, 1]), enforce_sorted=False) if packed else x
    got, want = fused.to(dtype)(given), plain.to(dtype)(given)
    assert [t.dtype for t in flat(got)] == [dtype] * 3
    for a, b in zip(flat(got), flat(want), strict=True):
        # One rounding at these magnitudes, below 1; the error as such is measured in test_lstm_numerics.py.
        torch.testing.assert_close(a, b, rtol=0, atol=5e-3 if dtype == torch.bfloat16 else 1e-6)


@pytest.mark.compat("dtypes", "to(), double(), half() go there and back")
def test_dtypes_and_back(lstm_class: type[nn.LSTM]) -> None:
    module, x = lstm_class(E, H), torch.randn(T, B, E)
    want = module(x)
    with torch.no_grad():
        for dtype in (torch.float64, torch.float32):
            got = module.to(dtype)(x.to(dtype))
            assert_same((got[0].float(), [t.float() for t in got[1]]), want)
    assert module.half().weight_ih_l0.dtype == torch.float16


# ---- Dropout -------------------------------------------------------------------------------------


@pytest.mark.compat("dropout", "drops the same numbers from the same seed, and leaves the generator at the same place")
@pytest.mark.parametrize("packed", [False, True])
def test_dropout_from_a_seed(packed: bool) -> None:
    plain, fused = pair(E, H, 3, dropout=0.4, bidirectional=True, dtype=torch.float64)
    x = torch.randn(T, B, E, dtype=torch.float64)
    given = pack_padded_sequence(x, torch.tensor([4, 4, 2])) if packed else x
    results, generators = [], []
    for module in (plain, fused):
        torch.manual_seed(7)
        results.append(module(given))
        generators.append(torch.get_rng_state())
    assert_same(*results)
    assert torch.equal(*generators)


@pytest.mark.compat("dropout", "lies between layers only; h_n of a lower layer is not dropped")
def test_dropout_lies_between_layers(lstm_class: type[nn.LSTM]) -> None:
    module, x = lstm_class(E, H, 2, dropout=1.0), torch.randn(T, B, E)
    output, (h, c) = module(x)
    first = lstm_class(E, H)
    second = lstm_class(H, H)
    for layer, other in enumerate((first, second)):
        other.load_state_dict({name: getattr(module, f"{name[:-1]}{layer}") for name in other.state_dict()})
    want_first, want_second = first(x), second(torch.zeros(T, B, H))
    assert_same((output, (h[1:], c[1:])), want_second)
    assert_same((want_first[0], (h[:1], c[:1])), want_first)


@pytest.mark.compat("dropout", "what is kept is scaled by 1 / (1 - p)")
def test_dropout_scales(lstm_class: type[nn.LSTM]) -> None:
    module = lstm_class(E, H, 2, dropout=0.5, dtype=torch.float64)
    x = torch.randn(T, B, E, dtype=torch.float64)
    torch.manual_seed(5)
    output, (h, _) = module(x)
    torch.manual_seed(5)
    mask = nn.functional.dropout(torch.ones(T, B, H, dtype=torch.float64), 0.5)
    assert mask.unique().tolist() == [0.0, 2.0]
    first, second = lstm_class(E, H, dtype=torch.float64), lstm_class(H, H, dtype=torch.float64)
    for layer, other in enumerate((first, second)):
        other.load_state_dict({name: getattr(module, f"{name[:-1]}{layer}") for name in other.state_dict()})
    torch.testing.assert_close(second(first(x)[0] * mask)[0], output)
    torch.testing.assert_close(second(first(x)[0] * mask)[1][0], h[1:])


@pytest.mark.compat("dropout", "differs from call to call in training, never in eval; follows a change of .dropout")
def test_dropout_changes(lstm_class: type[nn.LSTM]) -> None:
    module, x = lstm_class(E, H, 2, dropout=0.5), torch.randn(T, B, E)
    assert not torch.equal(module(x)[0], module(x)[0])
    module.dropout = 0.0
    without = module(x)[0]
    assert torch.equal(without, module(x)[0])
    module.dropout = 1.0
    dropped = module(x)[0]
    assert not torch.allclose(dropped, without)
    module.eval()
    torch.testing.assert_close(module(x)[0], without)
