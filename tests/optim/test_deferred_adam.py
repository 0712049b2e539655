"""DeferredAdam against torch.optim.Adam on dense gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from gradient_streams import E, V, embedding, gradients, sparse_gradient, train_deferred, train_pytorch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from textclf_fast.optim import DeferredAdam, deferred_rows

STEPS = 400

OPTIONS: list[dict[str, Any]] = [
    {"lr": 1e-2},
    {"lr": 1e-2, "betas": (0.5, 0.9), "eps": 1e-4},
    {"lr": 1e-2, "betas": (0.0, 0.99)},
    {"lr": 1e-3, "betas": (0.99, 0.9)},  # sqrt(v) shrinks faster than m: a row moves the more, the longer it waits
    {"lr": 1e-2, "weight_decay": 0.1, "decoupled_weight_decay": True},
    {"lr": 1e-2, "weight_decay": 0.1},
]
SCHEDULES: list[Any] = [
    None,
    lambda optimizer: OneCycleLR(optimizer, 0.05, STEPS),  # changes lr and beta1
    lambda optimizer: LambdaLR(optimizer, lambda step: float(step >= 300)),  # no movement, then the rest of it
]
options_and_schedules = [
    pytest.mark.parametrize("options", OPTIONS, ids=str),
    pytest.mark.parametrize("schedule", SCHEDULES, ids=["constant", "one cycle", "late"]),
]


def everything(test: Any) -> Any:
    for mark in options_and_schedules:
        test = mark(test)
    return test


@everything
def test_float64_is_adam(isa: str, options: dict[str, Any], schedule: Any) -> None:
    want = train_pytorch(torch.float64, STEPS, schedule, **options)
    got = train_deferred(torch.float64, STEPS, schedule, **options)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@everything
def test_float32_is_no_further_from_exact_than_adam(isa: str, options: dict[str, Any], schedule: Any) -> None:
    """Against Adam in float64. Where a late movement is huge, rounding is relative to it: hence the relative error."""
    exact = train_pytorch(torch.float64, STEPS, schedule, **options)
    scale = (exact - embedding(torch.float64, False).weight.detach()).abs() + 1

    def error(weight: torch.Tensor) -> torch.Tensor:
        return (weight.double() - exact).abs() / scale

    ours = error(train_deferred(torch.float32, STEPS, schedule, **options))
    theirs = error(train_pytorch(torch.float32, STEPS, schedule, **options))
    assert ours.max() <= 1.5 * theirs.max()
    assert ours.mean() <= 1.5 * theirs.mean()


def test_beta2_of_zero_takes_every_step() -> None:
    """v is 0 after one missed step: a row then moves by m / eps, and no step is negligible."""
    options = {"lr": 1e-2, "betas": (0.9, 0.0), "eps": 1.0}
    got, want = (train(torch.float64, STEPS, **options) for train in (train_deferred, train_pytorch))
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_synchronized_now_and_then(weight_decay: float) -> None:
    def each_step(optimizer: DeferredAdam, step: int) -> None:
        if step in (0, 1, 50, 51, 230):
            optimizer.synchronize()

    got = train_deferred(torch.float64, STEPS, each_step=each_step, weight_decay=weight_decay)
    want = train_pytorch(torch.float64, STEPS, weight_decay=weight_decay)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_more_steps_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred_rows, "_MAX_STEPS", 64)
    got, want = train_deferred(torch.float64, STEPS), train_pytorch(torch.float64, STEPS)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_the_same_bits_with_any_number_of_threads() -> None:
    weights = []
    threads = torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        rows = [torch.arange(V), torch.arange(0, V, 3)]
        module = embedding(torch.float32, True)
        optimizer = DeferredAdam(module.parameters(), module)
        for step in range(300):
            ids = rows[step > 0]
            module.weight.grad = sparse_gradient(ids, torch.full((len(ids), E), 0.1 * step))
            optimizer.step()
        optimizer.synchronize()
        weights.append(module.weight.detach())
    torch.set_num_threads(threads)
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def _network(sparse: bool) -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "words": nn.Embedding(V, E, padding_idx=0, sparse=sparse),
            "tags": nn.Embedding(7, E, sparse=sparse),
            "linear": nn.Linear(E, 3),
        }
    ).double()


def _train(network: nn.ModuleDict, optimizer: torch.optim.Optimizer, begin: int, end: int) -> None:
    for step, (ids, _) in enumerate(gradients(end)):
        if step < begin:
            continue
        logits = network["linear"](network["words"](ids) * network["tags"](ids % 7))
        optimizer.zero_grad(set_to_none=step % 2 == 0)
        nn.functional.cross_entropy(logits, ids % 3).backward()
        optimizer.step()


def _assert_same(got: nn.Module, want: nn.Module) -> None:
    for (name, a), b in zip(got.state_dict().items(), want.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("decoupled", [False, True])
def test_a_network_with_two_embeddings_and_groups(decoupled: bool) -> None:
    """The gradients depend on the weights here: what a lookup reads matters, and differences grow a little."""
    ours, theirs = _network(True), _network(False)

    def groups(network: nn.ModuleDict) -> list[dict[str, Any]]:
        return [
            {"params": network["words"].parameters(), "lr": 1e-2, "weight_decay": 0.1},
            {"params": [*network["tags"].parameters(), *network["linear"].parameters()]},
        ]

    optimizer = DeferredAdam(groups(ours), ours, decoupled_weight_decay=decoupled)
    _train(ours, optimizer, 0, 200)
    peer = torch.optim.AdamW if decoupled else torch.optim.Adam
    _train(theirs, peer(groups(theirs), weight_decay=0), 0, 200)
    _assert_same(ours, theirs)
    assert not ours["words"].weight[0].any()  # padding_idx
    assert not ours["words"].weight.grad.is_coalesced()


def test_named_parameters_closure_and_hooks() -> None:
    ours, theirs = _network(True), _network(False)
    optimizers = [DeferredAdam(ours.named_parameters(), ours), torch.optim.Adam(theirs.parameters())]
    calls = []
    optimizers[0].register_step_post_hook(lambda *unused: calls.append(1))
    for network, optimizer in zip((ours, theirs), optimizers, strict=True):
        for ids, _ in gradients(50):

            def closure(network: nn.ModuleDict = network, ids: torch.Tensor = ids) -> torch.Tensor:
                network.zero_grad()
                loss = network["linear"](network["words"](input=ids)).square().sum()
                loss.backward()
                return loss

            assert optimizer.step(closure) > 0
    _assert_same(ours, theirs)
    assert len(calls) == 50
    assert optimizers[0].state_dict()["param_groups"][0]["param_names"][0] == "words.weight"


@pytest.mark.parametrize("source", ["ours", "torch"])
@pytest.mark.parametrize("target", ["ours", "torch"])
def test_saved_and_resumed(source: str, target: str) -> None:
    """Either optimizer goes on from the other's state as from its own."""

    def make(kind: str) -> tuple[nn.ModuleDict, torch.optim.Optimizer]:
        network = _network(kind == "ours")
        if kind == "ours":
            return network, DeferredAdam(network.parameters(), network, lr=1e-2)
        return network, torch.optim.Adam(network.parameters(), lr=1e-2)

    want, optimizer = make("torch")
    _train(want, optimizer, 0, 200)

    first, optimizer = make(source)
    _train(first, optimizer, 0, 100)
    states = copy.deepcopy((first.state_dict(), optimizer.state_dict()))
    _train(first, optimizer, 100, 200)  # saving changed nothing
    _assert_same(first, want)

    second, optimizer = make(target)
    _train(second, optimizer, 0, 7)  # a life before, which is to leave no trace
    second.load_state_dict(states[0])
    optimizer.load_state_dict(states[1])
    _assert_same(second, _loaded(states[0]))
    _train(second, optimizer, 100, 200)
    _assert_same(second, want)


def _loaded(state: dict[str, Any]) -> nn.Module:
    network = _network(False)
    network.load_state_dict(state)
    return network


def test_a_state_of_another_kind_of_adam_is_refused() -> None:
    module = embedding(torch.float32, True)
    optimizer = DeferredAdam(module.parameters(), module)
    for name in ("amsgrad", "maximize"):
        other = torch.optim.Adam(embedding(torch.float32, False).parameters(), **{name: True})
        with pytest.raises(ValueError, match=f"state_dict: {name} is True, expected False"):
            optimizer.load_state_dict(other.state_dict())


def test_dense_gradients_mixed_with_sparse_ones() -> None:
    module = embedding(torch.float64, True)
    peer = embedding(torch.float64, False)
    optimizers = [DeferredAdam(module.parameters(), module), torch.optim.Adam(peer.parameters())]
    for step, (ids, values) in enumerate(gradients(60)):
        grad = sparse_gradient(ids, values)
        module.weight.grad = grad.to_dense() if step % 7 == 3 else grad.coalesce() if step % 2 else grad
        peer.weight.grad = grad.to_dense()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(module.state_dict()["weight"], peer.weight.detach(), rtol=1e-12, atol=1e-12)


def test_a_step_without_a_gradient_is_none_and_one_of_no_rows_is_one() -> None:
    module, peer = embedding(torch.float64, True), embedding(torch.float64, False)
    optimizers = [DeferredAdam(module.parameters(), module), torch.optim.Adam(peer.parameters())]
    nothing = sparse_gradient(torch.empty(0, dtype=torch.int64), torch.empty(0, E, dtype=torch.float64))
    some = sparse_gradient(torch.tensor([3, 5]), torch.ones(2, E, dtype=torch.float64))
    for grad in (some, None, nothing, some, nothing, None):
        module.weight.grad = grad
        peer.weight.grad = None if grad is None else grad.to_dense()
        version = module.weight._version
        for optimizer in optimizers:
            optimizer.step()
        assert (module.weight._version > version) == (grad is not None)
    torch.testing.assert_close(module.state_dict()["weight"], peer.weight.detach(), rtol=1e-12, atol=1e-12)


class _Tied(nn.Module):
    """The embedding's weight is read by a linear layer as well."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        self.embedding = embedding(torch.float64, sparse)
        self.linear = nn.Linear(E, V, bias=False)
        self.linear.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.embedding(ids).sum(0) @ self.linear.weight.detach().T


@pytest.mark.parametrize("make", [_Tied, lambda sparse: nn.EmbeddingBag(V, E, sparse=sparse, dtype=torch.float64)])
def test_weights_that_are_not_only_looked_up_are_treated_as_dense(make: Any) -> None:
    models = []
    for sparse in (True, False):
        torch.manual_seed(0)
        model = make(sparse)
        optimizer = DeferredAdam(model.parameters(), model) if sparse else torch.optim.Adam(model.parameters())
        for ids, _ in gradients(40):
            optimizer.zero_grad()
            model(ids.unsqueeze(0) if isinstance(model, nn.EmbeddingBag) else ids).square().sum().backward()
            optimizer.step()
        models.append(model)
    assert not models[0].state_dict().keys() - models[1].state_dict().keys()
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):  # read directly: nothing is behind
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_two_embeddings_of_one_weight() -> None:
    ours, theirs = (nn.ModuleList([embedding(torch.float64, s), embedding(torch.float64, s)]) for s in (True, False))
    for pair in (ours, theirs):
        pair[1].weight = pair[0].weight
    for pair, optimizer in (
        (ours, DeferredAdam(ours.parameters(), ours)),
        (theirs, torch.optim.Adam(theirs.parameters())),
    ):
        for step, (ids, _) in enumerate(gradients(60)):
            optimizer.zero_grad()
            pair[step % 2](ids).square().sum().backward()
            optimizer.step()
    _assert_same(ours, theirs)


def test_bfloat16_is_treated_as_dense() -> None:
    module, peer = embedding(torch.bfloat16, True), embedding(torch.bfloat16, False)
    optimizers = [DeferredAdam(module.parameters(), module), torch.optim.Adam(peer.parameters(), fused=True)]
    for ids, values in gradients(5):
        module.weight.grad = sparse_gradient(ids, values.bfloat16())
        peer.weight.grad = module.weight.grad.to_dense()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(module.weight, peer.weight)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lr": -1.0}, ValueError, "learning rate: -1"),
        ({"betas": (1.0, 0.9)}, ValueError, "beta parameter at index 0"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay value: -1"),
        ({"eps": 0.0}, ValueError, "eps: expected a number above 0, got 0.0"),
        ({"model": "model"}, TypeError, "model: expected an nn.Module, got str"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    module = embedding(torch.float32, True)
    with pytest.raises(error, match=message):
        DeferredAdam(module.parameters(), **{"model": module, **options})
