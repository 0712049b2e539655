"""weight_dropout, variational_dropout, embedding_dropout and learn_initial_state: options on the kernels."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from cell_loop import Changes, run_loop
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from textclf_fast import FusedEmbeddingLSTM, FusedLSTM, ops
from textclf_fast.nn.distinct import embed_with_dropout
from textclf_fast.nn.extended import _lock_dropout
from textclf_fast.nn.layout import padded_layout

LENGTHS = [3, 6, 1, 4]
SHAPES: list[dict[str, Any]] = [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False, "num_layers": 3}]


def _masks(module: FusedLSTM, seed: int, rows: int) -> tuple[dict[str, Tensor], list[Tensor | None]]:
    """The masks of W_hh by name and of each layer's input, drawn in the order in which a forward draws them."""
    torch.manual_seed(seed)
    options, dtype = module.options, module.weight_hh_l0.dtype
    rates = options.variational_dropout
    rates = rates if isinstance(rates, tuple) else (rates, rates)
    of_weights, of_inputs = {}, []
    width = module.input_size
    for layer in range(module.num_layers):
        rate = rates[layer > 0]
        of_inputs.append(functional.dropout(torch.ones(1, rows, width, dtype=dtype), rate)[0] if rate else None)
        width = module.hidden_size * (1 + module.bidirectional)
        for suffix in ("", "_reverse")[: 1 + module.bidirectional]:
            name = f"weight_hh_l{layer}{suffix}"
            ones = torch.ones_like(getattr(module, name))
            of_weights[name] = functional.dropout(ones, options.weight_dropout) if options.weight_dropout else ones
    return of_weights, of_inputs


def _loop(module: FusedLSTM, x: Tensor, seed: int, lengths: list[int] = LENGTHS) -> Any:
    of_weights, of_inputs = _masks(module, seed, x.size(1))

    def layer_input(layer: int, row: int, x: Tensor) -> Tensor:
        mask = of_inputs[layer]
        return x if mask is None else x * mask[row]

    changes = Changes(w_hh=lambda name, w: w * of_weights[name], layer_input=layer_input)
    return run_loop(module, x, lengths, changes=changes)


@pytest.mark.compat("options", "weight_dropout=p: DropConnect on W_hh, at the kernels' speed", nn_lstm="no")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"weight_dropout": 0.5},
        {"variational_dropout": 0.5},
        {"variational_dropout": (0.3, 0.0)},
        {"weight_dropout": 0.3, "variational_dropout": (0.0, 0.4)},
    ],
    ids=str,
)
def test_against_a_loop_with_the_same_masks(isa: str, shape: dict[str, Any], options: dict[str, Any]) -> None:
    module = FusedLSTM(3, 5, **shape, **options, dtype=torch.float64)
    x = torch.randn(6, 4, 3, dtype=torch.float64, requires_grad=True)
    output, states, cells = _loop(module, x, seed=7)
    torch.manual_seed(7)
    got, got_states, got_cells = module(x, lengths=LENGTHS, return_cell_states=True)
    results = (output, *states, cells)
    mine = (got, *got_states, got_cells)
    for a, b in zip(mine, results, strict=True):
        torch.testing.assert_close(a, b)
    grads = [torch.randn_like(t) for t in results]
    leaves = [x, *module.parameters()]
    for a, b in zip(torch.autograd.grad(mine, leaves, grads), torch.autograd.grad(results, leaves, grads), strict=True):
        torch.testing.assert_close(a, b)
    torch.manual_seed(7)
    packed = module(pack_padded_sequence(x, torch.tensor(LENGTHS), enforce_sorted=False))[0]
    assert torch.equal(pad_packed_sequence(packed)[0], got)
    with torch.no_grad():  # nn.Dropout, too, is on in training mode, gradients or not
        torch.manual_seed(7)
        assert torch.equal(module(x, lengths=LENGTHS)[0], got)


@pytest.mark.parametrize("options", [{"weight_dropout": 0.5}, {"variational_dropout": 0.5}], ids=str)
@pytest.mark.parametrize("lengths", [None, [2, 3, 1]])
def test_gradcheck(options: dict[str, Any], lengths: list[int] | None) -> None:
    module = FusedLSTM(3, 4, num_layers=2, bidirectional=True, learn_initial_state=True, **options, dtype=torch.float64)
    x = torch.randn(3, 3, 3, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in module.named_parameters()]
    with torch.no_grad():
        module.h_0.normal_()
        module.c_0.normal_()

    def run(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        torch.manual_seed(3)
        given = dict(zip(names, weights, strict=True))
        arguments = {"lengths": lengths, "return_cell_states": True}
        output, states, cells = torch.func.functional_call(module, given, (x,), arguments)
        return output, *states, cells

    assert torch.autograd.gradcheck(run, (x, *module.parameters()), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, (x, *module.parameters()), fast_mode=True)


def test_masks_are_drawn_anew_and_follow_the_seed() -> None:
    for options in ({"weight_dropout": 0.5}, {"variational_dropout": 0.5}):
        module = FusedLSTM(3, 5, **options)
        x = torch.randn(6, 4, 3)
        torch.manual_seed(1)
        first, second = module(x)[0], module(x)[0]
        torch.manual_seed(1)
        assert torch.equal(module(x)[0], first)
        assert not torch.equal(first, second)


def test_a_locked_mask_is_the_same_at_every_step_and_another_in_every_row() -> None:
    lengths = [50, 80, 30, 80]
    layout = padded_layout(lengths, 80, 4, False)
    masked = _lock_dropout(torch.ones(240, 1000), None, layout, 0.3)
    of_rows: dict[int, list[Tensor]] = {}
    for t, alive in enumerate(layout.batch_sizes.tolist()):
        start = int(layout.batch_sizes[:t].sum())
        for row in range(alive):
            of_rows.setdefault(row, []).append(masked[start + row])
    for row in of_rows.values():
        assert all(torch.equal(row[0], other) for other in row)
    firsts = torch.stack([row[0] for row in of_rows.values()])
    scale = 1 / (1 - 0.3)
    assert ((firsts == 0) | (firsts - scale).abs().lt(1e-6)).all()
    dropped = (firsts == 0).double().mean()
    assert abs(dropped - 0.3) < 5 * (0.3 * 0.7 / firsts.numel()) ** 0.5
    agreement = (firsts[0] == firsts[1]).double().mean()  # of independent masks: 0.7^2 + 0.3^2
    assert abs(agreement - 0.58) < 5 * (0.58 * 0.42 / 1000) ** 0.5


def test_statistics_of_weight_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    real = ops.lstm

    def spy(gates: Tensor, index: Any, batch_sizes: Tensor, w_hh: Tensor, *rest: Any, **named: Any) -> Any:
        seen.append(w_hh)
        return real(gates, index, batch_sizes, w_hh, *rest, **named)

    monkeypatch.setattr(ops, "lstm", spy)
    module = FusedLSTM(3, 64, num_layers=2, bidirectional=True, weight_dropout=0.4)
    module(torch.randn(5, 2, 3))
    weights = torch.stack([module.weight_hh_l0, module.weight_hh_l0_reverse])
    assert len(seen) == 2  # a layer, whatever the steps: one mask a forward
    zero = seen[0] == 0
    torch.testing.assert_close(seen[0][~zero], weights[~zero] / 0.6)
    assert abs(zero.double().mean() - 0.4) < 5 * (0.24 / zero.numel()) ** 0.5
    assert not torch.equal(zero[0], zero[1])


@pytest.mark.compat("options", "dropout masks of weights never reach what is kept for inference")
def test_what_is_kept_for_inference_is_made_of_whole_weights() -> None:
    module = FusedEmbeddingLSTM(9, 3, 5, weight_dropout=0.5, variational_dropout=0.5, embedding_dropout=0.5)
    plain = nn.LSTM(3, 5)
    plain.load_state_dict(module.lstm.state_dict())
    ids = torch.randint(0, 9, (6, 4))
    want = plain(module.embedding(ids))[0].detach()
    with torch.no_grad():
        for _ in range(2):
            module.eval().prepare_inference()
            assert not module.projected_table.frozen._layer.is_empty
            torch.testing.assert_close(module(ids)[0], want)
            assert not torch.allclose(module.train()(ids)[0], want)
            torch.testing.assert_close(module.eval()(ids)[0], want)
        module.prepare_inference("int8")
        torch.testing.assert_close(module(ids)[0], want, rtol=0.02, atol=0.02)
        assert not torch.allclose(module.train()(ids)[0], want, atol=0.02)
    module.train()(ids)[0].sum().backward()
    assert module.projected_table.frozen._layer.is_empty
    lstm = FusedLSTM.from_lstm(plain, weight_dropout=0.5)
    x = torch.randn(6, 4, 3)
    with torch.no_grad():
        lstm.train()(x)
        torch.testing.assert_close(lstm.eval()(x)[0], plain(x)[0])
        lstm.train()(x)
        torch.testing.assert_close(lstm.eval()(x, lengths=[1, 2, 3, 4])[0][0], plain(x)[0][0])


# ---- Embedding dropout ---------------------------------------------------------------------------


@pytest.mark.compat("options", "embedding_dropout=p: whole words, still projected once each", nn_lstm="no")
@pytest.mark.parametrize("options", [{}, {"variational_dropout": 0.5, "weight_dropout": 0.5}], ids=str)
@pytest.mark.parametrize("by_freq", [False, True])
def test_embedding_dropout(isa: str, options: dict[str, Any], by_freq: bool) -> None:
    lstm = FusedLSTM(3, 5, bidirectional=True, num_layers=2, **options, dtype=torch.float64)
    embedding = nn.Embedding(9, 3, padding_idx=0, scale_grad_by_freq=by_freq, dtype=torch.float64)
    module = FusedEmbeddingLSTM.from_modules(embedding, lstm, embedding_dropout=0.5)
    ids = torch.randint(0, 9, (6, 4))
    lengths = None if by_freq else LENGTHS  # padding would count for nn.Embedding
    real = ids.flatten() if by_freq else ids.flatten()[padded_layout(lengths, 6, 4, False).positions]
    tokens, _ = ops.distinct_tokens(real, 9)
    torch.manual_seed(5)
    keep = functional.dropout(torch.ones(tokens.numel(), 1, dtype=torch.float64), 0.5)
    mask = torch.zeros(9, 1, dtype=torch.float64).index_copy_(0, tokens, keep)
    want = lstm(embedding(ids) * mask[ids], lengths=lengths)[0]
    torch.manual_seed(5)
    got = module(ids, lengths)[0]
    torch.testing.assert_close(got, want)
    (expected,) = torch.autograd.grad(want.square().sum(), embedding.weight)
    (grad,) = torch.autograd.grad(got.square().sum(), embedding.weight)
    torch.testing.assert_close(grad, expected)
    assert (grad[tokens][keep.squeeze(1) == 0] == 0).all()


def test_statistics_of_embedding_dropout() -> None:
    module = FusedEmbeddingLSTM(4000, 3, 5, embedding_dropout=0.2)
    ids = torch.arange(4000).repeat(2)
    rows, index = embed_with_dropout(module.embedding, ids, module.embedding_dropout)
    assert torch.equal(index, ids)
    whole = module.embedding.weight
    dropped = (rows == 0).all(1)
    torch.testing.assert_close(rows[~dropped], whole[~dropped] / 0.8)
    assert abs(dropped.double().mean() - 0.2) < 5 * (0.16 / 4000) ** 0.5
    sentence = ids[:50]
    assert not torch.allclose(module(sentence)[0], module.lstm(module.embedding(sentence))[0])
    module.eval()
    torch.testing.assert_close(module(sentence)[0], module.lstm(module.embedding(sentence))[0])


def test_embedding_dropout_with_sparse_gradients() -> None:
    module = FusedEmbeddingLSTM(9, 3, 5, sparse=True, embedding_dropout=0.5)
    dense = copy.deepcopy(module)
    dense.embedding.sparse = False
    ids = torch.randint(0, 9, (6, 4))
    for m in (module, dense):
        torch.manual_seed(2)
        m(ids)[0].sum().backward()
    assert module.embedding.weight.grad.is_sparse
    torch.testing.assert_close(module.embedding.weight.grad.to_dense(), dense.embedding.weight.grad)


# ---- Learned initial state -----------------------------------------------------------------------


@pytest.mark.compat("options", "learn_initial_state=True: h_0 and c_0 are parameters", nn_lstm="zero, or given")
@pytest.mark.parametrize("options", [{}, {"proj_size": 2}, {"weight_dropout": 0.5}, {"layer_norm": True}], ids=str)
def test_learned_initial_state(options: dict[str, Any]) -> None:
    module = FusedLSTM(3, 5, num_layers=2, bidirectional=True, learn_initial_state=True, **options).eval()
    with torch.no_grad():
        module.h_0.normal_()
        module.c_0.normal_()
    x = torch.randn(6, 4, 3)
    hx = module.h_0.expand(-1, 4, -1), module.c_0.expand(-1, 4, -1)
    packed = pack_padded_sequence(x, torch.tensor(LENGTHS), enforce_sorted=False)

    def run(*states: Any) -> list[Tensor]:
        return [module(x, *states)[0], module(x, *states, lengths=LENGTHS)[0], module(packed, *states)[0].data]

    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            for a, b in zip(run(), run(hx), strict=True):
                torch.testing.assert_close(a, b)
            torch.testing.assert_close(module(x[:, 0])[0], module(x, hx)[0][:, 0])
    zeros = torch.zeros_like(hx[0]), torch.zeros_like(hx[1])
    assert not torch.allclose(module(x)[0], module(x, zeros)[0])
    module(x, lengths=LENGTHS)[0].sum().backward()
    assert module.h_0.grad.abs().sum() > 0
    assert module.c_0.grad.shape == module.c_0.shape


def test_learned_initial_state_at_middling_sizes_and_on_tokens() -> None:
    """Where PyTorch's path is taken, and where a table is kept."""
    module = FusedEmbeddingLSTM(9, 3, 256, learn_initial_state=True).eval()
    with torch.no_grad():
        module.lstm.h_0.normal_()
        module.lstm.c_0.normal_()
    ids = torch.randint(0, 9, (3, 8))
    plain = nn.LSTM(3, 256)
    weights = module.lstm.state_dict()
    hx = weights.pop("h_0").expand(-1, 8, -1).contiguous(), weights.pop("c_0").expand(-1, 8, -1).contiguous()
    plain.load_state_dict(weights)
    want = plain(module.embedding(ids), hx)[0]
    torch.testing.assert_close(module(ids)[0], want)
    with torch.no_grad():
        module.prepare_inference()
        for _ in range(2):
            torch.testing.assert_close(module(ids)[0], want)
            torch.testing.assert_close(module.lstm(module.embedding(ids))[0], want)
        torch.testing.assert_close(module(ids[:, 0])[0], want[:, 0])


@pytest.mark.parametrize("proj_size", [0, 2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_without_kernels(proj_size: int, dtype: torch.dtype) -> None:
    """PyTorch's own layer, on masked weights and inputs."""
    module = FusedLSTM(3, 5, 2, bidirectional=True, proj_size=proj_size, weight_dropout=0.5, variational_dropout=0.4)
    x = torch.randn(6, 4, 3)
    torch.manual_seed(3)
    want = module.double()(x.double(), lengths=LENGTHS, return_cell_states=True)
    torch.manual_seed(3)
    got = module.to(dtype)(x.to(dtype), lengths=LENGTHS)
    tolerance = {"rtol": 0.01, "atol": 0.01} if dtype == torch.float16 else {}
    torch.testing.assert_close(got[0].double(), want[0], **(tolerance or {"rtol": 1e-5, "atol": 1e-6}))
    got[0].float().sum().backward()
    assert all(p.grad is not None for p in module.parameters())
