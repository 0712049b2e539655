"""Whatever looks at the weights sees rows that are up to date, and the hooks that see to it come and go."""

from __future__ import annotations

import copy
import gc
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gradient_streams import V, embedding, gradients, sparse_gradient
from torch import Tensor, nn

from textclf_fast import FusedEmbeddingLSTM, TextClassifier
from textclf_fast.optim import DeferredAdam

H = 5


def _classifier(sparse: bool) -> TextClassifier:
    torch.manual_seed(0)
    return TextClassifier(V, 6, H, 2, sparse=sparse).double()


def _train(model: TextClassifier, optimizer: torch.optim.Optimizer, steps: int = 30) -> None:
    for ids, _ in gradients(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(1 + ids[ids < V - 1].view(-1, 1)), torch.tensor([1])).backward()
        optimizer.step()


@pytest.fixture
def expected() -> TextClassifier:
    """Trained on dense gradients."""
    model = _classifier(False)
    _train(model, torch.optim.Adam(model.parameters(), lr=1e-2))
    return model


@pytest.fixture
def trained() -> tuple[TextClassifier, DeferredAdam]:
    """The same, with rows that are behind."""
    model = _classifier(True)
    optimizer = DeferredAdam(model.parameters(), model, lr=1e-2)
    _train(model, optimizer)
    return model, optimizer


def _same(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_some_rows_are_behind(trained: Any, expected: TextClassifier) -> None:
    """Else the tests below could not fail."""
    model, optimizer = trained
    behind = (model.encoder.embedding.weight - expected.encoder.embedding.weight).abs().amax(1) > 1e-6
    assert behind.sum() > 10
    optimizer.synchronize()
    _same(model.encoder.embedding.weight, expected.encoder.embedding.weight)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("prepare", [False, True])
def test_inference_through_the_table(trained: Any, expected: TextClassifier, mode: Any, prepare: bool) -> None:
    model, _ = trained
    ids = torch.arange(1, V).view(-1, 1)
    with mode():
        if prepare:
            model.encoder.prepare_inference()
        for _ in range(3):  # without a table, on the way to one, with it
            _same(model.encoder(ids)[0], expected.encoder(ids)[0])
    assert model.encoder.projected_table._table._kept[1] is not None


def test_the_table_is_stale_after_a_step(trained: Any) -> None:
    model, optimizer = trained
    ids = torch.arange(1, V).view(-1, 1)
    for nothing in (False, True):  # a step without any row moves the others, too
        optimizer.zero_grad()
        model(ids[:5]).sum().backward()
        with torch.no_grad():
            model.encoder.prepare_inference()
            before = model.encoder(ids)[0]
        if nothing:
            optimizer.zero_grad()
            model.encoder.embedding.weight.grad = torch.sparse_coo_tensor(
                torch.empty(1, 0, dtype=torch.int64), torch.empty(0, 6).double(), (V, 6), check_invariants=True
            )
        optimizer.step()
        with torch.no_grad():
            model.encoder.prepare_inference()
            after = model.encoder(ids)[0]
            want = nn.LSTM.forward(model.encoder.lstm, model.encoder.embedding(ids))[0]
        assert not torch.equal(before, after)
        _same(after, want)


def test_a_kept_table_stays(trained: Any) -> None:
    model, _ = trained
    model.encoder.prepare_inference()
    table = model.encoder.projected_table._table._kept[1]
    assert table is not None
    with torch.no_grad():
        model(torch.ones(3, 1, dtype=torch.int64))
    assert model.encoder.projected_table._table._kept[1] is table


def _pickled(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, _pickled])
def test_copies_and_pickles(trained: Any, expected: TextClassifier, duplicate: Callable[[Any], Any]) -> None:
    model, optimizer = trained
    twin = duplicate(model)
    _same(twin.encoder.embedding.weight, expected.encoder.embedding.weight)
    before = twin.encoder.embedding.weight.clone()
    _train(model, optimizer, 3)
    twin(torch.ones(3, 1, dtype=torch.int64))
    assert torch.equal(twin.encoder.embedding.weight, before)  # tied to nothing
    _train(twin, DeferredAdam(twin.parameters(), twin), 3)


def test_state_dict(trained: Any, expected: TextClassifier) -> None:
    for got, want in zip(trained[0].state_dict().values(), expected.state_dict().values(), strict=True):
        _same(got, want)


def test_missed_steps_are_not_made_up_for_on_loaded_weights(trained: Any, expected: TextClassifier) -> None:
    model, optimizer = trained
    other = {name: torch.randn_like(value) for name, value in model.state_dict().items()}
    model.load_state_dict(copy.deepcopy(other))
    optimizer.synchronize()
    assert torch.equal(model.encoder.embedding.weight, other["encoder.embedding.weight"])


def test_rows_that_are_up_to_date_are_left_alone(trained: Any) -> None:
    """So two forwards before a backward are no trouble, and nothing that autograd saved is touched."""
    model, _ = trained
    weight = model.encoder.embedding.weight
    ids = torch.randint(1, V, (4, 3))
    first = model(ids)
    version, before = weight._version, weight.detach().clone()
    second = model(ids)
    assert weight._version == version
    assert torch.equal(weight, before)
    third = model(torch.arange(1, V).view(-1, 1))  # brings other rows up to date
    assert weight._version > version
    (first.sum() + second.sum() + third.sum()).backward()


def test_max_norm_sees_rows_that_are_up_to_date() -> None:
    models = []
    for sparse in (True, False):
        module = embedding(torch.float64, sparse)
        module.max_norm = 3.0
        optimizer = DeferredAdam(module.parameters(), module) if sparse else torch.optim.Adam(module.parameters())
        for ids, values in gradients(40):
            module(ids)
            grad = sparse_gradient(ids, values)
            module.weight.grad = grad if sparse else grad.to_dense()
            optimizer.step()
        models.append(module)
    _same(models[0].state_dict()["weight"], models[1].state_dict()["weight"])


def test_the_optimizer_may_go(trained: Any, expected: TextClassifier) -> None:
    model = trained[0]
    del trained
    gc.collect()
    _same(model.encoder.embedding(torch.arange(V)), expected.encoder.embedding.weight)


def _hooks(module: nn.Module) -> int:
    hooks = (module._forward_pre_hooks, module._state_dict_pre_hooks, module._load_state_dict_pre_hooks)
    return sum(map(len, hooks))


def test_detached_and_attached_again(trained: Any, expected: TextClassifier) -> None:
    model, optimizer = trained
    weight = model.encoder.embedding.weight
    optimizer.detach()
    assert _hooks(model.encoder.embedding) == 0
    _same(weight, expected.encoder.embedding.weight)
    twin = copy.deepcopy(model)
    peer = torch.optim.Adam(twin.parameters(), lr=1e-2)
    peer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    twin.encoder.embedding.sparse = False
    _train(model, optimizer)
    _train(twin, peer)
    assert _hooks(model.encoder.embedding) == 3
    _same(model.state_dict()["encoder.embedding.weight"], twin.encoder.embedding.weight)


def test_two_optimizers_in_turns(trained: Any) -> None:
    model, first = trained
    twin = copy.deepcopy(model)
    twin.encoder.embedding.sparse = False
    first_peer = torch.optim.Adam(twin.parameters(), lr=1e-2)
    first_peer.load_state_dict(copy.deepcopy(first.state_dict()))
    second, second_peer = DeferredAdam(model.parameters(), model), torch.optim.Adam(twin.parameters())
    for ours, theirs in ((second, second_peer), (first, first_peer), (second, second_peer)):
        _train(model, ours, 10)
        _train(twin, theirs, 10)
        assert _hooks(model.encoder.embedding) == 3
    _same(model.state_dict()["encoder.embedding.weight"], twin.encoder.embedding.weight)


def test_a_copy_of_the_optimizer_takes_gradients_as_dense(trained: Any) -> None:
    model, optimizer = trained
    twin, twin_optimizer = copy.deepcopy((model, optimizer))
    assert isinstance(twin_optimizer, DeferredAdam)
    _train(model, optimizer)
    _train(twin, twin_optimizer)
    _same(twin.encoder.embedding.weight, model.state_dict()["encoder.embedding.weight"])


def test_an_id_out_of_range_changes_nothing(trained: Any) -> None:
    module = trained[0].encoder
    before = module.embedding.weight.detach().clone()
    with pytest.raises(RuntimeError, match=f"ids: id {V} at position 1, expected 0 <= id < {V}"):
        module.embedding(torch.tensor([5, V]))
    with pytest.raises(IndexError, match=rf"ids: token id {V} at \(0, 1\)"):
        module(torch.tensor([[5, V]]))
    assert torch.equal(module.embedding.weight, before)


def test_int32_ids(trained: Any, expected: TextClassifier) -> None:
    _same(trained[0].encoder.embedding(torch.arange(V).int()), expected.encoder.embedding.weight)


def test_from_modules_of_a_trained_embedding(trained: Any, expected: TextClassifier) -> None:
    fused = FusedEmbeddingLSTM.from_modules(trained[0].encoder.embedding, trained[0].encoder.lstm)
    ids = torch.arange(1, V).view(-1, 1)
    with torch.no_grad():
        fused.prepare_inference()
        _same(fused(ids)[0], expected.encoder(ids)[0])
