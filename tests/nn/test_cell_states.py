"""return_cell_states: c of every step, in every form of input, and the gradients that come in by it."""

from __future__ import annotations

import pytest
import torch
from cell_loop import run_loop
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from textclf_fast import FusedEmbeddingLSTM, FusedLSTM

LENGTHS = [3, 6, 1, 4]
SHAPES = [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}, {"proj_size": 2, "bidirectional": True}]


@pytest.mark.compat(
    "cell states", "return_cell_states=True: c of every step, differentiable", nn_lstm="h of every step, c of the last"
)
@pytest.mark.parametrize("options", SHAPES, ids=str)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("with_states", [False, True])
@pytest.mark.usefixtures("_poisoned")
def test_against_a_loop(isa: str, options: dict[str, object], batch_first: bool, with_states: bool) -> None:
    module = FusedLSTM(3, 5, **options, batch_first=batch_first, dtype=torch.float64)
    x = torch.randn(6, 4, 3, dtype=torch.float64, requires_grad=True)
    layers = module.num_layers * (1 + module.bidirectional)
    hx = None
    if with_states:
        hx = tuple(torch.randn(layers, 4, n, dtype=torch.float64) for n in (module.proj_size or 5, 5))
    output, states, cells = run_loop(module, x, LENGTHS, hx)
    leaves = [x, *module.parameters()]
    grads = [torch.randn_like(t) for t in (output, *states, cells)]
    want = torch.autograd.grad([output, *states, cells], leaves, grads)

    def in_form(padded: Tensor) -> Tensor:
        return padded.transpose(0, 1) if batch_first else padded

    got = module(in_form(x), hx, lengths=LENGTHS, return_cell_states=True)
    assert got[2].shape == in_form(cells).shape
    flat = [in_form(got[0]), *got[1], in_form(got[2])]
    for a, b in zip(flat, (output, *states, cells), strict=True):
        torch.testing.assert_close(a, b)
    for row, length in enumerate(LENGTHS):
        assert (flat[3][length:, row] == 0).all()
    for a, b in zip(torch.autograd.grad(flat, leaves, grads), want, strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        inferred = module(in_form(x), hx, lengths=LENGTHS, return_cell_states=True)
    for a, b in zip((inferred[0], *inferred[1], inferred[2]), (got[0], *got[1], got[2]), strict=True):
        torch.testing.assert_close(a, b)


def test_the_forms_of_a_batch() -> None:
    module = FusedLSTM(3, 5, num_layers=2, bidirectional=True)
    x = torch.randn(6, 4, 3)
    padded, states, cells = module(x, lengths=LENGTHS, return_cell_states=True)
    torch.testing.assert_close(padded, module(x, lengths=LENGTHS)[0])
    packed = pack_padded_sequence(x, torch.tensor(LENGTHS), enforce_sorted=False)
    output, packed_states, packed_cells = module(packed, return_cell_states=True)
    assert isinstance(packed_cells, PackedSequence)
    for got, want in ((output, padded), (packed_cells, cells)):
        assert torch.equal(pad_packed_sequence(got, total_length=6)[0], want)
    for got, want in zip(packed_states, states, strict=True):
        assert torch.equal(got, want)
    dense = module(x, return_cell_states=True)[2]
    torch.testing.assert_close(dense[-1, :, :5], module(x)[1][1][2])
    torch.testing.assert_close(dense[0, :, 5:], module(x)[1][1][3])
    alone, (h_n, _), row_cells = module(x[:, 1], return_cell_states=True)
    assert alone.shape == row_cells.shape == (6, 10)
    assert h_n.shape == (4, 5)
    torch.testing.assert_close(row_cells, dense[:, 1])


@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_token_ids(options: dict[str, object]) -> None:
    module = FusedEmbeddingLSTM(9, 3, 5, **options, dtype=torch.float64)
    ids = torch.randint(0, 9, (6, 4))
    want = module.lstm(module.embedding(ids), lengths=LENGTHS, return_cell_states=True)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            for _ in range(3):  # the last ones would find a table
                output, states, cells = module(ids, LENGTHS, return_cell_states=True)
            without, _, same = module(ids, LENGTHS, need_output=False, return_cell_states=True)
            module(ids, LENGTHS)
        torch.testing.assert_close(output, want[0])
        torch.testing.assert_close(cells, want[2])
        torch.testing.assert_close(states[1], want[1][1])
        assert without is None
        assert torch.equal(same, cells)
    packed = pack_padded_sequence(ids, torch.tensor(LENGTHS), enforce_sorted=False)
    got = pad_packed_sequence(module(packed, return_cell_states=True)[2])[0]
    torch.testing.assert_close(got, want[2])
    torch.testing.assert_close(
        module(ids[:, 0], return_cell_states=True)[2], module(ids, return_cell_states=True)[2][:, 0]
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    """float16 has no kernel: it goes step by step."""
    module = FusedLSTM(3, 6, bidirectional=True)
    x = torch.randn(6, 4, 3)
    want = module(x, lengths=LENGTHS, return_cell_states=True)[2]
    output, _, cells = module.to(dtype)(x.to(dtype), lengths=LENGTHS, return_cell_states=True)
    assert output.dtype == cells.dtype == dtype
    torch.testing.assert_close(cells.float(), want, rtol=0.05, atol=0.05)


def test_autocast() -> None:
    module = FusedLSTM(3, 6)
    embedded = FusedEmbeddingLSTM(9, 3, 6)
    x, ids = torch.randn(6, 4, 3), torch.randint(0, 9, (6, 4))
    packed = pack_padded_sequence(x, torch.tensor(LENGTHS), enforce_sorted=False)
    want = module(x, lengths=LENGTHS, return_cell_states=True)[2]
    same = module(packed, return_cell_states=True)[2].data
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = module(x, lengths=LENGTHS, return_cell_states=True)[2]
        of_tokens = embedded(ids, return_cell_states=True)[2]
        as_it_is = module(packed, return_cell_states=True)[2].data
    assert got.dtype == of_tokens.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), want, rtol=0.05, atol=0.05)
    assert torch.equal(as_it_is, same)


def test_per_sample_gradients() -> None:
    """Under torch.func it goes step by step, too."""
    module = FusedLSTM(3, 4, dtype=torch.float64)
    weights = {name: p.detach() for name, p in module.named_parameters()}
    x = torch.randn(5, 2, 3, dtype=torch.float64)

    def loss(w: dict[str, Tensor], row: Tensor) -> Tensor:
        return torch.func.functional_call(module, w, (row,), {"return_cell_states": True})[2].square().sum()

    got = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 1))(weights, x)
    for row in range(2):
        module.zero_grad()
        module(x[:, row], return_cell_states=True)[2].square().sum().backward()
        for name, p in module.named_parameters():
            torch.testing.assert_close(got[name][row], p.grad)


def test_kept_tables_and_panels_stay_right() -> None:
    module = FusedEmbeddingLSTM(9, 3, 5).eval()
    ids = torch.randint(0, 9, (6, 4))
    with torch.no_grad():
        module.prepare_inference()
        before = module(ids)[0]
        output, _, cells = module(ids, return_cell_states=True)
        torch.testing.assert_close(output, before)
        module.lstm.weight_hh_l0.mul_(2)
        want = nn.LSTM(3, 5)
        want.load_state_dict(module.lstm.state_dict())
        torch.testing.assert_close(module(ids, return_cell_states=True)[0], want(module.embedding(ids))[0])
        assert not torch.allclose(module(ids, return_cell_states=True)[2], cells)
