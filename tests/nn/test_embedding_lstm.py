"""FusedEmbeddingLSTM against nn.Embedding followed by nn.LSTM."""

from __future__ import annotations

import copy

import pytest
import torch
from lstm_cases import Case, option_cases, reference_forward
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

from textclf_fast import FusedEmbeddingLSTM, FusedLSTM

V, E, H = 23, 6, 11


def _pair(dtype: torch.dtype = torch.float64, **options: object) -> tuple[nn.Embedding, nn.LSTM, FusedEmbeddingLSTM]:
    padding_idx = options.pop("padding_idx", None)
    embedding = nn.Embedding(V, E, padding_idx, dtype=dtype)  # type: ignore[arg-type]
    lstm = nn.LSTM(E, H, **options, dtype=dtype)  # type: ignore[arg-type]
    fused = FusedEmbeddingLSTM(V, E, H, **options, padding_idx=padding_idx, dtype=dtype)  # type: ignore[arg-type]
    fused.embedding.load_state_dict(embedding.state_dict())
    fused.lstm.load_state_dict(lstm.state_dict())
    return embedding, lstm, fused


@pytest.mark.usefixtures("_poisoned")
@pytest.mark.parametrize("case", [case for case in option_cases() if case.num_layers < 3], ids=str)
def test_outputs_and_gradients(case: Case) -> None:
    embedding, lstm, fused = _pair(**case.options(), padding_idx=0)
    shape = (case.rows, case.steps) if case.batch_first else (case.steps, case.rows)
    ids, lengths, hx = torch.randint(0, V, shape), case.make_lengths(), case.make_states()
    expected, (h_n, c_n) = reference_forward(lstm)(embedding(ids), hx, lengths)
    output, (h, c) = fused(ids, lengths, hx)
    with torch.no_grad():
        inferred, _ = fused(ids, lengths, hx)
    torch.testing.assert_close(inferred, output)
    assert output.stride() == expected.stride() or lengths is not None
    for got, want in ((output, expected), (h, h_n), (c, c_n)):
        torch.testing.assert_close(got, want)
    grads = [torch.randn_like(t) for t in (output, h, c)]
    torch.autograd.backward([expected, h_n, c_n], grads)
    torch.autograd.backward([output, h, c], grads)
    torch.testing.assert_close(fused.embedding.weight.grad, embedding.weight.grad)
    for (name, p), q in zip(lstm.named_parameters(), fused.lstm.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, msg=lambda m, n=name: f"{n}: {m}")


def test_packed_sequence_of_ids() -> None:
    embedding, lstm, fused = _pair(bidirectional=True)
    texts = [torch.randint(0, V, (n,)) for n in (3, 7, 1, 5)]
    packed = pack_sequence(texts, enforce_sorted=False)
    output, (h, c) = fused(packed)
    expected, (h_n, c_n) = lstm(packed._replace(data=embedding(packed.data)))
    torch.testing.assert_close(output.data, expected.data)
    torch.testing.assert_close(h, h_n)
    torch.testing.assert_close(c, c_n)
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        assert torch.equal(getattr(output, name), getattr(packed, name))


@pytest.mark.parametrize("batch_first", [False, True])
def test_one_row_without_a_batch_dimension(batch_first: bool) -> None:
    embedding, lstm, fused = _pair(batch_first=batch_first, num_layers=2)
    ids = torch.randint(0, V, (6,))
    hx = (torch.randn(2, H).double(), torch.randn(2, H).double())
    for state in (None, hx):
        output, (h, c) = fused(ids, None, state)
        expected, (h_n, c_n) = lstm(embedding(ids), state)
        for got, want in ((output, expected), (h, h_n), (c, c_n)):
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_final_states_alone(options: dict[str, object]) -> None:
    _, _, fused = _pair(**options)
    ids, lengths = torch.randint(0, V, (7, 4)), [7, 2, 1, 5]
    packed = pack_sequence([torch.randint(0, V, (n,)) for n in (3, 7, 1, 5)], enforce_sorted=False)
    for grad in (True, False):
        for arguments in ((ids, lengths), (ids,), (packed,), (ids[:, 0],)):
            with torch.set_grad_enabled(grad):
                _, (h_n, c_n) = fused(*arguments)
                output, (h, c) = fused(*arguments, need_output=False)
            assert output is None
            torch.testing.assert_close(h, h_n)
            torch.testing.assert_close(c, c_n)


def test_int32_ids_and_ids_with_gaps() -> None:
    embedding, lstm, fused = _pair()
    ids = torch.randint(0, V, (5, 8))[:, ::2]
    expected = lstm(embedding(ids))[0]
    torch.testing.assert_close(fused(ids)[0], expected)
    torch.testing.assert_close(fused(ids.int())[0], expected)


def test_empty_batch() -> None:
    embedding, lstm, fused = _pair()
    ids = torch.zeros(4, 0, dtype=torch.int64)
    assert fused(ids)[0].shape == lstm(embedding(ids))[0].shape == (4, 0, H)
    with pytest.raises(RuntimeError, match="sequence length to be larger than 0"):
        fused(torch.zeros(0, 3, dtype=torch.int64))


def test_state_dicts_are_interchangeable() -> None:
    embedding, lstm, fused = _pair(num_layers=2, bidirectional=True)
    state = fused.state_dict()
    assert list(state) == [f"embedding.{k}" for k in embedding.state_dict()] + [f"lstm.{k}" for k in lstm.state_dict()]
    plain = nn.ModuleDict({"embedding": embedding, "lstm": lstm})
    plain.load_state_dict(state)
    fused.load_state_dict(plain.state_dict())


def test_from_modules_shares_the_parameters() -> None:
    embedding, lstm, _ = _pair(num_layers=2, bidirectional=True, batch_first=True, bias=False, dropout=0.25)
    fused = FusedEmbeddingLSTM.from_modules(embedding, lstm.eval())
    assert fused.embedding is embedding
    assert all(p is q for p, q in zip(lstm.parameters(), fused.lstm.parameters(), strict=True))
    assert fused.lstm.dropout == 0.25
    assert not fused.training
    ids = torch.randint(0, V, (3, 5))
    torch.testing.assert_close(fused(ids)[0], lstm(embedding(ids))[0])
    fused(ids)[0].sum().backward()
    assert lstm.weight_hh_l1_reverse.grad is not None
    with torch.no_grad():
        lstm.weight_ih_l0.mul_(2)
    torch.testing.assert_close(fused(ids)[0], lstm(embedding(ids))[0])
    again = FusedEmbeddingLSTM.from_modules(embedding, fused.lstm)
    assert again.lstm is fused.lstm
    with pytest.raises(ValueError, match="lstm: input_size is 7, expected embedding's embedding_dim, 6"):
        FusedEmbeddingLSTM.from_modules(embedding, nn.LSTM(7, 3))


def test_sparse_and_frequency_scaled_embedding_gradients() -> None:
    ids = torch.tensor([[1, 2], [2, 2], [3, 1]])
    for options in ({"sparse": True}, {"scale_grad_by_freq": True}):
        embedding, lstm, _ = _pair()
        embedding = nn.Embedding(V, E, **options, dtype=torch.float64)
        fused = FusedEmbeddingLSTM.from_modules(copy.deepcopy(embedding), lstm)
        fused(ids)[0].sum().backward()
        lstm(embedding(ids))[0].sum().backward()
        got, want = fused.embedding.weight.grad, embedding.weight.grad
        assert got is not None
        assert want is not None
        assert got.is_sparse == want.is_sparse
        torch.testing.assert_close(got.to_dense(), want.to_dense())


@pytest.mark.parametrize("padding_idx", [None, 2])
def test_sparse_gradients(padding_idx: int | None) -> None:
    """One row for each distinct token of the batch but the padding; added up over two backwards."""
    embedding, lstm, _ = _pair(padding_idx=padding_idx)
    fused = FusedEmbeddingLSTM(V, E, H, padding_idx=padding_idx, sparse=True, dtype=torch.float64)
    fused.embedding.load_state_dict(embedding.state_dict())
    fused.lstm.load_state_dict(lstm.state_dict())
    for ids in (torch.tensor([[1, 2], [2, 2], [3, 1]]), torch.tensor([[3, 5]])):
        fused(ids)[0].sum().backward()
        lstm(embedding(ids))[0].sum().backward()
        got, want = fused.embedding.weight.grad, embedding.weight.grad
        assert got is not None
        assert got.is_sparse
        torch.testing.assert_close(got.to_dense(), want)
        if len(ids) > 1:
            assert sorted(got._indices()[0].tolist()) == [token for token in (1, 2, 3) if token != padding_idx]


def test_sparse_adam_takes_the_gradients() -> None:
    fused = FusedEmbeddingLSTM(V, E, H, padding_idx=0, sparse=True)
    before = fused.embedding.weight.detach().clone()
    optimizer = torch.optim.SparseAdam(fused.embedding.parameters(), lr=0.1)
    fused(torch.tensor([[1, 0], [7, 7]]))[0].square().sum().backward()
    optimizer.step()
    changed = (fused.embedding.weight != before).any(1)
    assert changed.nonzero().flatten().tolist() == [1, 7]


def test_what_the_kernels_do_not_cover_takes_pytorchs_path() -> None:
    ids, lengths = torch.randint(0, V, (5, 3)), torch.tensor([5, 2, 4])
    embedding, lstm, fused = _pair(torch.float16)
    want = reference_forward(lstm)(embedding(ids), None, lengths)[0]
    torch.testing.assert_close(fused(ids, lengths)[0], want)
    torch.testing.assert_close(fused.lstm(embedding(ids), lengths=lengths)[0], want)


@pytest.mark.parametrize("training", [False, True])
def test_autocast_computes_in_bfloat16(training: bool) -> None:
    _, _, fused = _pair(torch.float32)
    low = FusedEmbeddingLSTM.from_modules(
        nn.Embedding.from_pretrained(fused.embedding.weight.detach().bfloat16()), copy.deepcopy(fused.lstm).bfloat16()
    )
    ids, lengths = torch.randint(0, V, (5, 3)), torch.tensor([5, 2, 4])
    with torch.set_grad_enabled(training):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output, states = fused(ids, lengths)
        want, want_states = low(ids, lengths)
    for got, expected in zip((output, *states), (want, *want_states), strict=True):
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got, expected)
    if training:
        output.float().sum().backward()
        assert fused.embedding.weight.grad is not None


# ---- The table kept for inference ----------------------------------------------------------------


def _warm(fused: FusedEmbeddingLSTM) -> Tensor:
    """Runs until the table is there, and returns the last output."""
    ids = torch.arange(V).view(-1, 1)
    with torch.no_grad():
        fused(ids)
        return fused(ids)[0]


def _table(fused: FusedEmbeddingLSTM) -> Tensor | None:
    return fused.projected_table._table._kept[1]


def test_table_is_made_once_it_has_paid_and_used_then() -> None:
    _, _, fused = _pair()
    with torch.no_grad():
        fused(torch.zeros(V - 1, 1, dtype=torch.int64))
        assert _table(fused) is None
        fused(torch.zeros(1, 1, dtype=torch.int64))
        table = _table(fused)
        assert table is not None
        fused(torch.zeros(1, 1, dtype=torch.int64))
    assert _table(fused) is table


def test_tokens_of_older_weights_do_not_pay_for_the_table() -> None:
    _, _, fused = _pair()
    ids = torch.zeros(V - 1, 1, dtype=torch.int64)
    with torch.no_grad():
        for _ in range(3):
            fused(ids)
            assert _table(fused) is None
            fused.lstm.weight_ih_l0.mul_(0.5)
        fused(ids)
        fused(ids)
    assert _table(fused) is not None


def test_table_is_made_when_asked_for() -> None:
    _, _, fused = _pair()
    fused.prepare_inference()
    table = _table(fused)
    assert table is not None
    with torch.no_grad():
        fused(torch.zeros(1, 1, dtype=torch.int64))
    assert _table(fused) is table


@pytest.mark.parametrize(
    "change",
    [
        lambda m: (m.lstm.weight_ih_l0.data.fill_(0.5), m.projected_table.clear()),
        lambda m: m.lstm.bias_hh_l0.add_(1),
        lambda m: m.embedding.weight[3].zero_(),
        lambda m: m.load_state_dict({k: v + 0.1 for k, v in m.state_dict().items()}),
        lambda m: m.load_state_dict({k: v + 0.1 for k, v in m.state_dict().items()}, assign=True),
        lambda m: setattr(m.lstm, "weight_ih_l0", nn.Parameter(torch.ones_like(m.lstm.weight_ih_l0))),
        lambda m: setattr(m.lstm.weight_ih_l0, "data", torch.ones_like(m.lstm.weight_ih_l0)),
        lambda m: m.embedding.reset_parameters(),
        lambda m: m.float().double(),
    ],
)
def test_table_follows_every_change_of_the_weights(change: object) -> None:
    _, _, fused = _pair()
    before = _warm(fused)
    with torch.no_grad():
        change(fused)  # type: ignore[operator]
    ids = torch.arange(V).view(-1, 1)
    want = nn.LSTM.forward(fused.lstm, fused.embedding(ids))[0]
    assert not torch.equal(want, before)
    torch.testing.assert_close(_warm(fused), want)


@pytest.mark.parametrize("options", [{}, {"fused": True}, {"foreach": True}], ids=str)
def test_table_after_an_optimizer_step(options: dict[str, bool]) -> None:
    """Fused optimizers do not count their changes in the version counters."""
    _, _, fused = _pair()
    optimizer = torch.optim.Adam(fused.parameters(), **options)
    ids = torch.arange(V).view(-1, 1)
    for _ in range(3):
        optimizer.zero_grad()
        loss = fused(ids)[0].sum()
        before = _warm(fused)  # made between the forward and the step
        loss.backward()
        optimizer.step()
        want = nn.LSTM.forward(fused.lstm, fused.embedding(ids))[0]
        assert not torch.allclose(before, want)
        torch.testing.assert_close(_warm(fused), want)


def test_table_is_bounded_and_can_be_switched_off() -> None:
    size = V * 4 * H * 8
    for limit, there in ((size, True), (size - 1, False), (0, False)):
        fused = FusedEmbeddingLSTM(V, E, H, max_table_bytes=limit, dtype=torch.float64)
        _warm(fused)
        assert (_table(fused) is not None) == there
    fused.projected_table.max_bytes = size
    _warm(fused)
    assert _table(fused) is not None
    fused.projected_table.max_bytes = 0
    _warm(fused)
    assert _table(fused) is None
    with pytest.raises(ValueError, match="max_table_bytes: expected 0 or more, got -1"):
        FusedEmbeddingLSTM(V, E, H, max_table_bytes=-1)


def test_table_is_not_kept_while_training_nor_copied_nor_made_in_inference_mode() -> None:
    _, _, fused = _pair()
    fused(torch.arange(V).view(-1, 1))
    fused(torch.arange(V).view(-1, 1))
    assert _table(fused) is None
    _warm(fused)
    assert _table(copy.deepcopy(fused)) is None
    with torch.inference_mode():
        inside = FusedEmbeddingLSTM(V, E, H)
        inside(torch.arange(V).view(-1, 1))
        inside(torch.arange(V).view(-1, 1))
        assert _table(inside) is None
        table_of_normal_weights = fused(torch.arange(V).view(-1, 1))[0]
    torch.testing.assert_close(table_of_normal_weights, _warm(fused))


# ---- Bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [V, V + 5, -1, -(2**63), 2**62])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("with_lengths", [False, True])
def test_an_id_out_of_range_is_named(bad: int, grad: bool, batch_first: bool, with_lengths: bool) -> None:
    _, _, fused = _pair(batch_first=batch_first)
    _warm(fused)
    ids = torch.ones(4, 3, dtype=torch.int64)
    ids[2, 1] = bad
    lengths = torch.tensor([3, 3, 3, 2] if batch_first else [4, 3, 4]) if with_lengths else None
    with (
        torch.set_grad_enabled(grad),
        pytest.raises(IndexError, match=rf"ids: token id {bad} at \(2, 1\), expected 0 <= id < 23"),
    ):
        fused(ids, lengths)


def test_an_id_out_of_range_in_the_padding_is_never_read() -> None:
    _, _, fused = _pair()
    ids = torch.ones(4, 2, dtype=torch.int64)
    ids[3, 1] = 10**9
    assert fused(ids, [4, 3])[0].isfinite().all()


def test_an_id_out_of_range_in_a_packed_sequence_is_named() -> None:
    _, _, fused = _pair()
    with pytest.raises(IndexError, match=r"ids: token id 99 at \(1,\)"):
        fused(PackedSequence(torch.tensor([1, 99, 2]), torch.tensor([2, 1])))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.ones(4, 2),), TypeError, "ids: expected dtype int64 or int32, got torch.float32"),
        ((torch.ones(4, 2, dtype=torch.bool),), TypeError, "ids: expected dtype int64 or int32"),
        ((torch.ones(4, 2, 2, dtype=torch.int64),), ValueError, r"ids: expected shape \(T, B\)"),
        ((torch.tensor(3),), ValueError, r"ids: expected shape \(T, B\)"),
        ((torch.ones(4, dtype=torch.int64), [4]), ValueError, "lengths: expected None beside ids of shape"),
        (
            (PackedSequence(torch.ones(3, 2, dtype=torch.int64), torch.tensor([2, 1])),),
            ValueError,
            r"ids: expected a PackedSequence of shape \(N,\)",
        ),
        (
            (pack_padded_sequence(torch.ones(3, 2).long(), torch.tensor([3, 1])), [3, 1]),
            ValueError,
            "lengths: expected None",
        ),
    ],
)
def test_bad_ids(arguments: tuple[object, ...], error: type[Exception], message: str) -> None:
    _, _, fused = _pair()
    with pytest.raises(error, match=message):
        fused(*arguments)


def test_children_have_the_right_types() -> None:
    _, _, fused = _pair()
    assert type(fused.embedding) is nn.Embedding
    assert type(fused.lstm) is FusedLSTM
