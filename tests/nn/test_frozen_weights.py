"""FrozenRun follows every change of the weights, and is left where they are computed or given."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from frozen_cases import B, Calls, E, T, V, assert_right, make_ids, make_model, plain_lstm
from torch import Tensor, nn

from textclf_fast import FusedEmbeddingLSTM
from textclf_fast.optim import DeferredAdam


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.mark.parametrize(
    "change",
    [
        lambda m: (m.lstm.weight_ih_l0.data.fill_(0.5), m.projected_table.clear()),
        lambda m: m.lstm.bias_hh_l0.add_(1),
        lambda m: m.lstm.weight_hh_l0.mul_(2),
        lambda m: m.embedding.weight[3].zero_(),
        lambda m: m.load_state_dict({k: v + 0.1 for k, v in m.state_dict().items()}),
        lambda m: m.load_state_dict({k: v + 0.1 for k, v in m.state_dict().items()}, assign=True),
        lambda m: setattr(m.lstm, "weight_ih_l0", nn.Parameter(torch.ones_like(m.lstm.weight_ih_l0))),
        lambda m: setattr(m.lstm, "weight_hh_l0", nn.Parameter(torch.ones_like(m.lstm.weight_hh_l0))),
        lambda m: setattr(m.lstm.weight_ih_l0, "data", torch.ones_like(m.lstm.weight_ih_l0)),
        lambda m: setattr(m.lstm.weight_hh_l0, "data", torch.ones_like(m.lstm.weight_hh_l0)),
        lambda m: setattr(m.embedding, "weight", nn.Parameter(torch.ones_like(m.embedding.weight))),
        lambda m: setattr(m, "embedding", nn.Embedding(V, E, dtype=torch.float64)),
        lambda m: m.embedding.reset_parameters(),
        lambda m: m.lstm.reset_parameters(),
        lambda m: m.float().double(),
    ],
)
def test_every_change_of_the_weights_is_followed(calls: Calls, change: Callable[..., Any]) -> None:
    model, ids = make_model(), torch.arange(T * B).remainder(V).view(T, B)  # every token is there
    before, _ = calls.returned(lambda: model(ids), 1)
    change(model)
    after, _ = calls.returned(lambda: model(ids), 0)
    assert not torch.equal(before, after)
    assert_right(model, ids)
    model.prepare_inference()
    assert calls.of(lambda: assert_right(model, ids)) == 1


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda m: torch.optim.Adam(m.parameters(), lr=0.1),
        lambda m: torch.optim.Adam(m.parameters(), lr=0.1, fused=True),
        lambda m: torch.optim.SGD(m.parameters(), lr=0.1, foreach=True),
        lambda m: DeferredAdam(m.parameters(), m, lr=0.1),
        lambda m: DeferredAdam(m.embedding.parameters(), m, lr=0.1),
    ],
)
def test_steps_of_optimizers_are_followed(calls: Calls, optimizer: Callable[..., torch.optim.Optimizer]) -> None:
    """Of deferred rows too: those that are behind are brought up to date before the layer is remembered."""
    model = make_model(sparse="Deferred" in str(optimizer.__code__.co_names))
    stepper, ids = optimizer(model), make_ids()
    for step in range(3):
        with torch.enable_grad():
            stepper.zero_grad()
            loss = model(ids[: step + 1])[0].sum()
        model.prepare_inference()  # between the forward and the step
        before, _ = calls.returned(lambda: model(ids), 1)
        with torch.enable_grad():
            loss.backward()
            stepper.step()
        after, _ = calls.returned(lambda: model(ids), 0)
        assert not torch.allclose(before, after)
        model.prepare_inference()
        taken, _ = calls.returned(lambda: model(ids), 1)
        if isinstance(stepper, DeferredAdam):
            stepper.synchronize()
        torch.testing.assert_close(taken, plain_lstm(model)(nn.functional.embedding(ids, model.embedding.weight))[0])


def test_functional_call_uses_the_weights_it_is_given(calls: Calls) -> None:
    model, ids = make_model(), make_ids()
    want, _ = model(ids)
    doubled = {name: p.detach() * 2 for name, p in model.named_parameters()}
    other = copy.deepcopy(model)
    other.load_state_dict(doubled)
    for _ in range(3):
        got, _ = calls.returned(lambda: torch.func.functional_call(model, doubled, (ids,)), 0)
        torch.testing.assert_close(got, other(ids)[0])
        assert torch.equal(model(ids)[0], want)


@pytest.mark.parametrize("name", ["weight_hh_l0", "weight_ih_l0"])
def test_left_for_weights_that_are_computed(calls: Calls, name: str) -> None:
    """weight_norm: the weight is no parameter, and what it is computed from may change."""
    model, ids = make_model(), make_ids()
    before = model(ids)[0]
    nn.utils.parametrizations.weight_norm(model.lstm, name)
    for scale in (1, 2, 3):
        original = getattr(model.lstm.parametrizations, name).original0  # type: ignore[union-attr]
        original.mul_(scale)
        model.prepare_inference()
        output, _ = calls.returned(lambda: model(ids), 0)
        torch.testing.assert_close(output, before) if scale == 1 else assert_right(model, ids)
    assert not torch.allclose(output, before)


def test_left_for_a_parametrized_embedding(calls: Calls) -> None:
    class Doubled(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    model, ids = make_model(), make_ids()
    nn.utils.parametrize.register_parametrization(model.embedding, "weight", Doubled())
    for _ in range(3):
        assert calls.of(lambda: assert_right(model, ids)) == 0


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_copies_start_without_it(calls: Calls, copied: Callable[[Any], FusedEmbeddingLSTM]) -> None:
    model, ids = make_model(), make_ids()
    want = model(ids)[0]
    other = copied(model)
    other.lstm.weight_hh_l0.zero_()
    assert other.projected_table.frozen._layer.is_empty
    assert copied(model.projected_table.frozen)._layer.is_empty
    assert len(pickle.dumps(model.projected_table.frozen)) < 100  # bytes: nothing of the table
    got, _ = calls.returned(lambda: other(ids), 0)
    assert not torch.allclose(got, want)
    other.prepare_inference()
    assert calls.of(lambda: assert_right(other, ids)) == 1
    assert calls.of(lambda: assert_right(model, ids)) == 1


def test_another_instruction_set_later(isa: str, calls: Calls) -> None:
    """Kept panels are those of the set they were packed for; the others pack their own."""
    model, ids = make_model(), make_ids()
    assert_right(model, ids)
    layer = model.projected_table.frozen._layer._kept[1]
    assert layer is not None
    layer.panels[-1] += 1
    assert calls.of(lambda: assert_right(model, ids)) == 1
