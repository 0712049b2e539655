"""Which training calls go by way of the one op (textclf_fast/nn/trained.py), and that they are nn.LSTM's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from frozen_cases import LENGTHS, B, E, H, T, V, plain_lstm
from lstm_cases import reference_forward
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from textclf_fast import FusedEmbeddingLSTM, ops


class Calls:
    """Counts the calls of the one op: on padded batches, and on packed ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.padded = self.packed = 0
        ops_ = ops.embedding_lstm_padded, ops.embedding_lstm

        def padded(*arguments: Any) -> Any:
            self.padded += 1
            return ops_[0](*arguments)

        def packed(*arguments: Any) -> Any:
            self.packed += 1
            return ops_[1](*arguments)

        monkeypatch.setattr(ops, "embedding_lstm_padded", padded)
        monkeypatch.setattr(ops, "embedding_lstm", packed)

    @property
    def count(self) -> int:
        return self.padded + self.packed


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def _model(**options: Any) -> FusedEmbeddingLSTM:
    return FusedEmbeddingLSTM(V, E, H, **{"dtype": torch.float64, **options})


def _ids(batch_first: bool = False) -> Tensor:
    return torch.randint(0, V, (B, T) if batch_first else (T, B))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS, torch.full((B,), T), LENGTHS.tolist()], ids=str)
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"padding_idx": 2}, {"dtype": torch.float32}], ids=str)
@pytest.mark.usefixtures("_poisoned")
def test_it_is_nn_lstm(calls: Calls, batch_first: bool, lengths: Any, options: dict[str, Any]) -> None:
    model = _model(batch_first=batch_first, **options)
    lstm = plain_lstm(model)
    embedding = nn.Embedding(V, E, model.embedding.padding_idx, dtype=model.embedding.weight.dtype)
    embedding.load_state_dict(model.embedding.state_dict())
    ids = _ids(batch_first)
    output, (h_n, c_n) = model(ids, lengths)
    assert (calls.padded, calls.packed) == ((0, 1) if isinstance(lengths, list) else (1, 0))
    given = None if lengths is None else torch.as_tensor(lengths)
    want, (want_h, want_c) = reference_forward(lstm)(embedding(ids), None, given)
    for got, expected in ((output, want), (h_n, want_h), (c_n, want_c)):
        torch.testing.assert_close(got, expected)
    weights = torch.randn_like(want)
    for results in ((output, h_n, c_n), (want, want_h, want_c)):
        ((results[0] * weights).sum() + results[1].square().sum() + results[2].sum()).backward()
    torch.testing.assert_close(model.embedding.weight.grad, embedding.weight.grad)
    for name in lstm._flat_weights_names:
        torch.testing.assert_close(getattr(model.lstm, name).grad, getattr(lstm, name).grad, msg=name)


def _run_packed(model: FusedEmbeddingLSTM) -> Any:
    return model(pack_padded_sequence(_ids(), LENGTHS, enforce_sorted=False))


def _run_frozen_table(model: FusedEmbeddingLSTM) -> Any:
    model.embedding.requires_grad_(False)
    return model(_ids())


@pytest.mark.parametrize(
    "run",
    [
        lambda model: model(_ids(), LENGTHS, need_output=False),
        lambda model: model(_ids()[:, 0]),
        lambda model: model(_ids().int()),
        _run_packed,
        _run_frozen_table,
    ],
    ids=["h_n alone", "one row", "int32", "packed", "frozen table"],
)
def test_what_it_takes(calls: Calls, run: Callable[[FusedEmbeddingLSTM], Any]) -> None:
    model = _model()
    _, (h_n, _) = run(model)
    assert calls.count == 1
    h_n.sum().backward()
    assert model.lstm.weight_hh_l0.grad is not None
    assert (model.embedding.weight.grad is None) == (not model.embedding.weight.requires_grad)


def test_an_output_may_be_changed_unless_the_backward_reads_it() -> None:
    """As with nn.LSTM's output: in place, for an error in the backward; the states, without one."""
    model = _model()
    output, (h_n, c_n) = model(_ids())
    h_n.add_(1)
    c_n.mul_(2)
    torch.autograd.grad(h_n.sum() + c_n.sum(), model.embedding.weight, retain_graph=True)
    output.relu_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [LENGTHS, LENGTHS.tolist()], ids=["tensor", "list"])
def test_a_padded_output_may_be_changed(batch_first: bool, lengths: Any) -> None:
    """As that of nn.LSTM and pad_packed_sequence: it is not what the backward reads."""
    model, ids = _model(batch_first=batch_first), _ids(batch_first)
    weights = torch.randn(*ids.shape, H, dtype=torch.float64)
    grads = []
    for change in (False, True):
        output, (h_n, _) = model(ids, lengths)
        if change:
            output.mul_(weights)
        loss = output.square().sum() if change else (output * weights).square().sum()
        grads.append(torch.autograd.grad(loss + h_n.sum(), list(model.parameters())))
    for got, want in zip(*grads, strict=True):
        torch.testing.assert_close(got, want)
    output, (h_n, _) = model(ids, lengths)
    want = torch.autograd.grad(h_n.sum(), model.lstm.weight_hh_l0, retain_graph=True)
    output.data.zero_()
    assert torch.equal(torch.autograd.grad(h_n.sum(), model.lstm.weight_hh_l0)[0], want[0])


def _hooked(model: FusedEmbeddingLSTM) -> None:
    model.embedding.register_forward_hook(lambda module, inputs, output: output * 2)


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({"num_layers": 2}, None),
        ({"bidirectional": True}, None),
        ({"proj_size": 3}, None),
        ({"sparse": True}, None),
        ({"dtype": torch.bfloat16}, None),
        ({"weight_dropout": 0.5}, None),
        ({"embedding_dropout": 0.5}, None),
        ({"learn_initial_state": True}, None),
        ({"checkpoint_every": 2}, None),
        ({}, _hooked),
        ({}, lambda model: setattr(model.embedding, "max_norm", 0.1)),
        ({}, lambda model: setattr(model.embedding, "scale_grad_by_freq", True)),
        ({}, lambda model: model.requires_grad_(False)),
        ({"dtype": torch.bfloat16}, lambda model: model.embedding.float()),
    ],
)
def test_what_it_does_not_take(
    calls: Calls, options: dict[str, Any], change: Callable[[FusedEmbeddingLSTM], None] | None
) -> None:
    model = _model(**options)
    if change is not None:
        change(model)
    model(_ids())
    assert calls.count == 0


def test_other_calls(calls: Calls) -> None:
    model = _model(dtype=torch.float32)
    states = torch.zeros(1, B, H), torch.zeros(1, B, H)
    model(_ids(), None, states)
    model(_ids(), return_cell_states=True)
    with torch.autocast("cpu", torch.bfloat16):
        model(_ids())
    with torch.no_grad():
        model(_ids())
    torch.func.vmap(lambda ids: model(ids)[1][0])(torch.stack([_ids(), _ids()]))
    assert calls.count == 0


def test_it_ends_what_inference_keeps() -> None:
    """A training call is followed by a change of the weights: nothing kept may outlive it."""
    model = _model()
    ids = _ids()
    model.prepare_inference()
    with torch.no_grad():
        model(ids)
    _, (h_n, _) = model(ids)
    h_n.sum().backward()
    model.lstm.weight_hh_l0.data.mul_(2)  # not counted by any version
    with torch.no_grad():
        got, _ = model(ids)
    want, _ = plain_lstm(model)(model.embedding(ids))
    torch.testing.assert_close(got, want)


def test_a_bad_id_is_named_by_its_place(calls: Calls) -> None:
    ids = _ids()
    ids[3, 2] = V
    with pytest.raises(IndexError, match=rf"ids: token id {V} at \(3, 2\), expected 0 <= id < {V}"):
        _model()(ids)
    assert (calls.padded, calls.packed) == (1, 1)  # the general way says where it is


def test_weights_for_one_call() -> None:
    """Those of the call count, not those that the module was made with."""
    model, ids = _model(), _ids()
    with torch.inference_mode():
        frozen = _model()
    weights = dict(model.named_parameters())
    _, (h_n, _) = torch.func.functional_call(frozen, weights, (ids, LENGTHS))
    assert torch.equal(h_n, model(ids, LENGTHS)[1][0])
    with pytest.raises(RuntimeError, match="the weights were made in inference mode"):
        torch.func.functional_call(model, dict(frozen.named_parameters()), (ids, LENGTHS))


def test_weights_made_in_inference_mode() -> None:
    with torch.inference_mode():
        model = _model()
    with pytest.raises(RuntimeError, match="the weights were made in inference mode"):
        model(_ids())
