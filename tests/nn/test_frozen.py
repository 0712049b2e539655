"""FrozenRun: which calls take the short way, which must not, and that both have the same results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from frozen_cases import LENGTHS, B, Calls, E, H, T, V, assert_right, make_ids, make_model, plain_lstm
from layer_cases import threads
from lstm_cases import pytorch_lowers, rms
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from textclf_fast import FusedEmbeddingLSTM


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


# ---- Taken ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS, torch.full((B,), T), torch.full((B,), 2)], ids=str)
@pytest.mark.usefixtures("_poisoned")
def test_taken_and_right(
    isa: str, calls: Calls, bidirectional: bool, batch_first: bool, bias: bool, lengths: Tensor | None
) -> None:
    model = make_model(bidirectional=bidirectional, batch_first=batch_first, bias=bias)
    ids = make_ids(batch_first)
    assert calls.of(lambda: assert_right(model, ids, lengths)) == 1
    output, states = model(ids, lengths)
    assert calls.of(lambda: model(ids, lengths, need_output=False)) == 1
    nothing, final = model(ids, lengths, need_output=False)
    assert nothing is None
    model.projected_table.frozen.clear()
    general, general_states = model(ids, lengths)
    assert torch.equal(output, general)
    for a, b, c in zip(states, final, general_states, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "bias": False}], ids=str)
@pytest.mark.usefixtures("_poisoned")
def test_taken_with_a_projection(isa: str, calls: Calls, options: dict[str, bool]) -> None:
    model, ids = make_model(proj_size=4, **options), make_ids()
    assert calls.of(lambda: assert_right(model, ids, LENGTHS)) == 1
    assert calls.of(lambda: assert_right(model, ids)) == 1
    for change in (model.lstm.weight_hh_l0, model.lstm.weight_hr_l0):
        change.mul_(2)
        assert calls.of(lambda: assert_right(model, ids)) == 0
        model.prepare_inference()
        assert calls.of(lambda: assert_right(model, ids)) == 1


def test_taken_once_the_table_is_there(calls: Calls) -> None:
    model = FusedEmbeddingLSTM(V, E, H)
    assert calls.of(lambda: [model(torch.zeros(V - 1, 1, dtype=torch.int64)) for _ in range(1)]) == 0
    assert calls.of(lambda: model(make_ids())) == 0  # makes the table, the general way
    assert calls.of(lambda: model(make_ids())) == 1


def test_taken_in_inference_mode_and_whatever_the_mode_of_training(calls: Calls) -> None:
    model = make_model()
    ids = make_ids()
    for mode in (model.train, model.eval):
        mode()
        with torch.inference_mode():
            assert calls.of(lambda: model(ids, LENGTHS)) == 1


def test_taken_for_strided_ids_and_one_row(calls: Calls) -> None:
    model = make_model()
    ids = torch.randint(0, V, (T, 2 * B))[:, ::2]
    assert calls.of(lambda: assert_right(model, ids, torch.stack([LENGTHS, LENGTHS], 1)[:, 0])) == 1
    assert calls.of(lambda: assert_right(model, ids[:, :1])) == 1
    assert calls.of(lambda: model(ids[:, 0])) == 1  # (T,): as a batch of one row
    torch.testing.assert_close(model(ids[:, 0])[0], model(ids[:, :1])[0].squeeze(1))


def test_ids_in_the_padding_are_never_read(calls: Calls) -> None:
    model, ids = make_model(), make_ids()
    want = model(ids, LENGTHS)[0]
    ids[torch.arange(T).unsqueeze(1) >= LENGTHS] = 10**9
    assert calls.of(lambda: model(ids, LENGTHS)) == 1
    assert calls.refused == 0
    assert torch.equal(model(ids, LENGTHS)[0], want)


# ---- Left ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda m, ids: m(ids, LENGTHS.tolist()),
        lambda m, ids: m(ids, tuple(LENGTHS.tolist())),
        lambda m, ids: m(ids, LENGTHS.numpy()),
        lambda m, ids: m(ids, LENGTHS.int()),
        lambda m, ids: m(ids.int(), LENGTHS),
    ],
)
def test_left_for_other_forms_of_the_same(calls: Calls, call: Callable[..., Any]) -> None:
    model, ids = make_model(), make_ids()
    want, (h_n, c_n) = model(ids, LENGTHS)
    output, (h, c) = calls.returned(lambda: call(model, ids), 0)
    for got, expected in ((output, want), (h, h_n), (c, c_n)):
        assert torch.equal(got, expected)


def test_left_with_initial_states(calls: Calls) -> None:
    model, ids = make_model(), make_ids()
    hx = (torch.randn(1, B, H).double(), torch.randn(1, B, H).double())
    output, _ = calls.returned(lambda: model(ids, None, hx), 0)
    want, _ = plain_lstm(model)(model.embedding(ids), hx)
    torch.testing.assert_close(output, want)


def test_left_for_a_packed_sequence_and_an_empty_batch(calls: Calls) -> None:
    model = make_model()
    packed = pack_sequence([torch.arange(n) for n in (4, 2)])
    assert calls.of(lambda: model(packed)) == 0
    output, _ = calls.returned(lambda: model(torch.zeros(T, 0, dtype=torch.int64)), 0)
    assert output.shape == (T, 0, H)


def test_left_where_gradients_are_recorded(calls: Calls) -> None:
    model, ids = make_model(), make_ids()
    with torch.enable_grad():
        output, _ = calls.returned(lambda: model(ids), 0)
        output.sum().backward()
    assert model.lstm.weight_hh_l0.grad is not None
    assert model.projected_table.frozen._layer.is_empty


def test_left_under_autocast(calls: Calls) -> None:
    model, ids = make_model(dtype=torch.float32), make_ids()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, _ = calls.returned(lambda: model(ids), 0)
        want = plain_lstm(model)(model.embedding(ids))[0] if pytorch_lowers() else None
    assert output.dtype == torch.bfloat16
    exact, _ = plain_lstm(model)(model.embedding(ids))  # float32: next to bfloat16, exact
    assert rms(output - exact) <= (2**-8 if want is None else 1.5 * rms(want - exact))
    calls.returned(lambda: model(ids), 1)  # autocast's call has left it in place


@torch.enable_grad()
def test_left_under_transforms(calls: Calls) -> None:
    model, ids = make_model(), make_ids()
    weights = {name: p.detach() for name, p in model.named_parameters()}
    plain = plain_lstm(model)

    def by_pytorch(weights: dict[str, Tensor], ids: Tensor) -> Tensor:
        of_lstm = {name.removeprefix("lstm."): w for name, w in weights.items() if name != "embedding.weight"}
        embedded = nn.functional.embedding(ids, weights["embedding.weight"])
        return torch.func.functional_call(plain, of_lstm, (embedded,))[0]

    def by_us(weights: dict[str, Tensor], ids: Tensor) -> Tensor:
        return torch.func.functional_call(model, weights, (ids,))[0]

    got = calls.returned(lambda: torch.func.grad(lambda w: by_us(w, ids).square().sum())(weights), 0)
    want = torch.func.grad(lambda w: by_pytorch(w, ids).square().sum())(weights)
    for name, expected in want.items():
        torch.testing.assert_close(got[name], expected, msg=lambda m, n=name: f"{n}: {m}")
    with torch.no_grad(), torch.autograd.forward_ad.dual_level():
        dual = {name: torch.autograd.forward_ad.make_dual(w, torch.ones_like(w)) for name, w in weights.items()}
        got_dual = torch.autograd.forward_ad.unpack_dual(calls.returned(lambda: by_us(dual, ids), 0))
        want_dual = torch.autograd.forward_ad.unpack_dual(by_pytorch(dual, ids))
        assert got_dual.tangent is not None  # not dropped without a word
        torch.testing.assert_close(got_dual.tangent, want_dual.tangent)
        assert calls.of(lambda: model(ids)) == 0


def test_left_with_layers_or_without_a_table(calls: Calls) -> None:
    for options in ({"num_layers": 2}, {"max_table_bytes": 0}, {"dtype": torch.float16}):
        model = make_model(**options)
        model.projected_table.max_bytes = options.get("max_table_bytes", 2**20)
        for _ in range(3):
            assert calls.of(lambda: model(torch.arange(V).unsqueeze(1))) == 0, options  # noqa: B023


def test_left_when_frozen_rows_are_bounded_in_norm(calls: Calls) -> None:
    """max_norm changes the weight in a lookup: there has to be one."""
    model = make_model()
    model.embedding.max_norm = 0.1
    model.projected_table.clear()
    for _ in range(3):
        assert calls.of(lambda: model(torch.arange(V).unsqueeze(1))) == 0
    assert (model.embedding.weight.norm(dim=1) <= 0.1 + 1e-6).all()


# ---- Bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [V, -1, -(2**63), 2**62])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [None, torch.full((B,), T), torch.tensor([T, 4, 7, 6])], ids=str)
def test_an_id_out_of_range_is_named(calls: Calls, bad: int, batch_first: bool, lengths: Tensor | None) -> None:
    model, ids = make_model(batch_first=batch_first), make_ids(batch_first)
    ids[2, 3] = bad
    with pytest.raises(IndexError, match=rf"ids: token id {bad} at \(2, 3\), expected 0 <= id < 23 \(num_embeddings\)"):
        model(ids, lengths)
    assert calls.refused == 1
    ids[2, 3] = 0
    assert calls.of(lambda: model(ids, lengths)) == 1  # it is still there


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        (torch.tensor([3, 8, 1, 5]), RuntimeError, r"lengths: lengths\[1\] = 8, expected 1 <= length <= 7"),
        (torch.tensor([3, 7, 0, 5]), RuntimeError, r"lengths: lengths\[2\] = 0"),
        (torch.tensor([3, 7, -1, 5]), RuntimeError, r"lengths: lengths\[2\] = -1"),
        (torch.tensor([3, 7, 1]), ValueError, "lengths: got 3 lengths, expected 4, one for each row of the batch"),
        (torch.tensor([[3, 7, 1, 5]]), ValueError, "lengths: expected one dimension"),
        (torch.tensor(7), ValueError, "lengths: expected one dimension"),
        (torch.tensor([3.0, 7, 1, 5]), TypeError, "lengths: expected integers, got a tensor of dtype torch.float32"),
    ],
)
def test_bad_lengths_are_named_as_ever(lengths: Tensor, error: type[Exception], message: str) -> None:
    model, ids = make_model(), make_ids()
    with pytest.raises(error, match=message) as frozen:
        model(ids, lengths)
    model.projected_table.clear()
    with pytest.raises(error) as general:
        model(ids, lengths)
    assert str(frozen.value) == str(general.value)


# ---- Threads -------------------------------------------------------------------------------------


def test_many_threads_run_one_module(isa: str, calls: Calls) -> None:
    """Batches of other sizes at the same time, each with the results that it has alone."""
    model = FusedEmbeddingLSTM(V, E, 70, bidirectional=True)
    model.prepare_inference()
    batches = [
        (torch.randint(0, V, (steps, rows)), torch.randint(1, steps + 1, (rows,)) if rows % 2 else None)
        for steps in (1, 9, 60)
        for rows in (1, 2, 3, 8, 17)
    ] * 4

    def run(batch: tuple[Tensor, Tensor | None]) -> tuple[Tensor, ...]:
        with torch.no_grad():  # each thread has its own
            output, states = model(*batch)
        assert output is not None
        return (output, *states)

    with threads(2), ThreadPoolExecutor(8) as pool:
        alone = [run(batch) for batch in batches]
        before = calls.count
        for got, want in zip(pool.map(run, batches), alone, strict=True):
            for a, b in zip(got, want, strict=True):
                assert torch.equal(a, b)
    assert calls.count > before


def test_threads_that_find_no_table_yet() -> None:
    """All of them may begin to make it; none sees half of one."""
    for _ in range(5):
        model, ids = FusedEmbeddingLSTM(V, E, H), torch.arange(V).unsqueeze(1)
        want, _ = model(ids)

        def run(_: int, model: FusedEmbeddingLSTM = model, ids: Tensor = ids) -> Tensor | None:
            with torch.no_grad():
                return model(ids)[0]

        with ThreadPoolExecutor(8) as pool:
            for got in pool.map(run, range(32)):
                torch.testing.assert_close(got, want)
        assert not model.projected_table.frozen._layer.is_empty
