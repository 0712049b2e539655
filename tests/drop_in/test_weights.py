"""Weights that are replaced, moved, tied, computed or shared: each call uses them as they are."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from textclf_fast import FusedLSTM

X = torch.linspace(-1, 1, 4 * 3 * 5, dtype=torch.float64).view(4, 3, 5)


def _module(lstm_class: type[nn.LSTM], **options: Any) -> nn.LSTM:
    return lstm_class(5, 6, dtype=torch.float64, **options)


def _by_hand(module: nn.LSTM) -> Tensor:
    """The output of one layer with the weights that the module shows."""
    w_ih, w_hh = module.weight_ih_l0, module.weight_hh_l0
    h = c = X.new_zeros(3, 6)
    outputs = []
    for x in X:
        i, f, g, o = (x @ w_ih.T + h @ w_hh.T + module.bias_ih_l0 + module.bias_hh_l0).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs)


def _assert_follows(module: nn.LSTM) -> None:
    """In training and in inference, where things are kept from call to call."""
    for grad in (True, False, False):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(module(X)[0], _by_hand(module))


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def _fill(module: nn.LSTM) -> None:
    with torch.no_grad():
        module.weight_hh_l0.fill_(0.3)


def _set_data(module: nn.LSTM) -> None:
    module.weight_hh_l0.data = torch.full((24, 6), 0.3, dtype=torch.float64)


def _set_(module: nn.LSTM) -> None:
    with torch.no_grad():
        module.weight_hh_l0.set_(torch.full((24, 6), 0.3, dtype=torch.float64))


def _replace(module: nn.LSTM) -> None:
    module.weight_hh_l0 = nn.Parameter(torch.full((24, 6), 0.3, dtype=torch.float64))


def _delete_and_replace(module: nn.LSTM) -> None:
    weight = module.weight_hh_l0.detach().clone() * 3
    del module.weight_hh_l0
    module.to(torch.float64)
    module.weight_hh_l0 = nn.Parameter(weight)


def _register(module: nn.LSTM) -> None:
    module.register_parameter("weight_hh_l0", nn.Parameter(torch.full((24, 6), 0.3, dtype=torch.float64)))


def _assign(module: nn.LSTM) -> None:
    state = {name: weight * 2 for name, weight in module.state_dict().items()}
    module.load_state_dict(state, assign=True)
    assert module.weight_hh_l0.data_ptr() == state["weight_hh_l0"].data_ptr()


def _tie(module: nn.LSTM) -> None:
    module.bias_ih_l0 = module.bias_hh_l0


def _share_memory(module: nn.LSTM) -> None:
    module.share_memory()
    _fill(module)


def _vector_to_parameters(module: nn.LSTM) -> None:
    vector = nn.utils.parameters_to_vector(module.parameters())
    nn.utils.vector_to_parameters(vector.detach() * 2, module.parameters())


def _row(change: Callable[[nn.LSTM], Any], mark: pytest.MarkDecorator) -> Any:
    return pytest.param(change, marks=mark, id=change.__name__.strip("_"))


@pytest.mark.parametrize(
    "change",
    [
        _row(_fill, pytest.mark.compat("weights", "changed in place")),
        _row(_set_data, pytest.mark.compat("weights", "p.data = ...")),
        _row(_set_, pytest.mark.compat("weights", "p.set_(...)")),
        _row(_replace, pytest.mark.compat("weights", "module.weight_hh_l0 = Parameter(...)")),
        _row(_delete_and_replace, pytest.mark.compat("weights", "deleted, then module.to(...), then assigned")),
        _row(_register, pytest.mark.compat("weights", "register_parameter")),
        _row(_assign, pytest.mark.compat("weights", "load_state_dict(..., assign=True)")),
        _row(_tie, pytest.mark.compat("weights", "tied: one Parameter under two names")),
        _row(_share_memory, pytest.mark.compat("weights", "share_memory()")),
        _row(_vector_to_parameters, pytest.mark.compat("weights", "vector_to_parameters")),
    ],
)
def test_changes_are_followed(lstm_class: type[nn.LSTM], change: Callable[[nn.LSTM], Any]) -> None:
    module = _module(lstm_class)
    _assert_follows(module)
    change(module)
    _assert_follows(module)


@pytest.mark.compat(
    "weights",
    "changed through p.data.mul_() between inference calls: noticed at the next module.to(...) or training call",
    nn_lstm="at once",
    difference="what inference keeps of W_hh is dropped when a version counter moves, and p.data has one of its own",
)
def test_changed_through_data() -> None:
    module = _module(FusedLSTM)
    with torch.no_grad():
        before = module(X)[0]
        module.weight_hh_l0.data.mul_(2)
        assert torch.equal(module(X)[0], before)
        torch.testing.assert_close(module.to("cpu")(X)[0], _by_hand(module))
        module.weight_hh_l0.data.mul_(2)
    _assert_follows(module)


# ---- Computed weights ----------------------------------------------------------------------------


def _weight_norm(module: nn.LSTM) -> Callable[[], None]:
    parametrizations.weight_norm(module, "weight_hh_l0")
    return lambda: parametrize.remove_parametrizations(module, "weight_hh_l0")


def _old_weight_norm(module: nn.LSTM) -> Callable[[], None]:
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(module, "weight_hh_l0")
    return lambda: nn.utils.remove_weight_norm(module, "weight_hh_l0")


def _spectral_norm(module: nn.LSTM) -> Callable[[], None]:
    parametrizations.spectral_norm(module, "weight_hh_l0")
    return lambda: parametrize.remove_parametrizations(module, "weight_hh_l0")


def _orthogonal(module: nn.LSTM) -> Callable[[], None]:
    parametrizations.orthogonal(module, "weight_ih_l0")
    return lambda: parametrize.remove_parametrizations(module, "weight_ih_l0")


def _parametrize(module: nn.LSTM) -> Callable[[], None]:
    parametrize.register_parametrization(module, "weight_hh_l0", Doubled())
    return lambda: parametrize.remove_parametrizations(module, "weight_hh_l0")


def _prune(module: nn.LSTM) -> Callable[[], None]:
    prune.l1_unstructured(module, "weight_hh_l0", amount=0.5)
    return lambda: prune.remove(module, "weight_hh_l0")


@pytest.mark.parametrize(
    "compute",
    [
        _row(_weight_norm, pytest.mark.compat("computed weights", "parametrizations.weight_norm")),
        _row(_old_weight_norm, pytest.mark.compat("computed weights", "nn.utils.weight_norm, the deprecated one")),
        _row(_spectral_norm, pytest.mark.compat("computed weights", "parametrizations.spectral_norm")),
        _row(_orthogonal, pytest.mark.compat("computed weights", "parametrizations.orthogonal")),
        _row(_parametrize, pytest.mark.compat("computed weights", "parametrize, with a class of one's own")),
        _row(_prune, pytest.mark.compat("computed weights", "prune.l1_unstructured")),
    ],
)
def test_computed_weights(lstm_class: type[nn.LSTM], compute: Callable[[nn.LSTM], Callable[[], None]]) -> None:
    """Used, trained through, stepped, and used again once they are plain."""
    module = _module(lstm_class)
    names = {name for name, _ in module.named_parameters()}
    _assert_follows(module)
    remove = compute(module)
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):
        before = [p.detach().clone() for p in module.parameters()]
        optimizer.zero_grad()
        output = module(X)[0]
        output.square().sum().backward()
        assert all(p.grad is not None for p in module.parameters())
        optimizer.step()
        assert not all(torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))
    module.eval()
    _assert_follows(module)
    want = module(X)[0]
    remove()
    assert {name for name, _ in module.named_parameters()} == names
    torch.testing.assert_close(module(X)[0], want)
    _assert_follows(module)
    assert all(isinstance(weight, nn.Parameter) for weight in module._flat_weights)


@pytest.mark.compat("computed weights", "parametrize.cached()")
def test_cached_parametrization(lstm_class: type[nn.LSTM]) -> None:
    module = _module(lstm_class)
    parametrize.register_parametrization(module, "weight_hh_l0", Doubled())
    with parametrize.cached():
        _assert_follows(module)
        _fill_original(module)
        cached = module(X)[0]
    _assert_follows(module)
    assert not torch.allclose(module(X)[0], cached)


def _fill_original(module: nn.LSTM) -> None:
    with torch.no_grad():
        module.parametrizations.weight_hh_l0.original.fill_(0.3)


@pytest.mark.compat("computed weights", "torch.func.functional_call, and the module's own weights after it")
def test_functional_call(lstm_class: type[nn.LSTM]) -> None:
    module, other = _module(lstm_class), _module(lstm_class)
    with torch.no_grad():
        mine, theirs = module(X)[0], other(X)[0]
        for _ in range(2):
            got = torch.func.functional_call(module, dict(other.named_parameters()), (X,))[0]
            assert torch.equal(got, theirs)
            assert torch.equal(module(X)[0], mine)
    weights = {name: p.detach().clone().requires_grad_() for name, p in other.named_parameters()}
    torch.func.functional_call(module, weights, (X,))[0].square().sum().backward()
    other(X)[0].square().sum().backward()
    for name, p in other.named_parameters():
        torch.testing.assert_close(weights[name].grad, p.grad)
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.compat("computed weights", "tied across directions; one gradient, one step")
def test_tied_directions(lstm_class: type[nn.LSTM]) -> None:
    module = _module(lstm_class, bidirectional=True)
    module.bias_ih_l0_reverse = module.bias_ih_l0
    module.weight_hh_l0_reverse = module.weight_hh_l0
    assert len(list(module.parameters())) == 6
    separate = _module(lstm_class, bidirectional=True)
    separate.load_state_dict(module.state_dict())
    for m in (module, separate):
        m(X)[0].square().sum().backward()
    for name in ("bias_ih_l0", "weight_hh_l0"):
        both = getattr(separate, name).grad + getattr(separate, f"{name}_reverse").grad
        torch.testing.assert_close(getattr(module, name).grad, both)


# ---- Moved and replicated ------------------------------------------------------------------------


@pytest.fixture
def _swapping() -> Iterator[None]:
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


@pytest.mark.compat(
    "moved weights", "set_swap_module_params_on_conversion: swapped where no graph holds them, else refused"
)
@pytest.mark.usefixtures("_swapping")
def test_swapped(lstm_class: type[nn.LSTM]) -> None:
    module = lstm_class(5, 6)
    with torch.no_grad():
        module(X.float())  # what is kept must not hold the parameters
    weight = module.weight_hh_l0
    module.double()
    assert module.weight_hh_l0 is weight
    del weight
    _assert_follows(module)
    output = module(X)[0]
    assert output.requires_grad
    with pytest.raises(RuntimeError, match="swap"):
        module.float()


@pytest.mark.compat("moved weights", "no reference to a parameter outlives the module")
def test_parameters_are_freed(lstm_class: type[nn.LSTM]) -> None:
    module = _module(lstm_class)
    with torch.no_grad():
        module(X)
    module(X)[0].sum().backward()
    gone = [weakref.ref(p) for p in module.parameters()]
    del module
    assert all(ref() is None for ref in gone)


@pytest.mark.compat("moved weights", "DataParallel's replicas use their own weights")
def test_replicas(lstm_class: type[nn.LSTM]) -> None:
    module = _module(lstm_class)
    with torch.no_grad():
        module(X)
    replica = module._replicate_for_data_parallel()
    assert type(replica) is lstm_class
    assert replica._flat_weights is not module._flat_weights
    for name, p in module.named_parameters():  # as torch.nn.parallel.replicate does
        setattr(replica, name, p.detach() * 2)
    for grad in (True, False, False):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(replica(X)[0], _by_hand(replica))
            torch.testing.assert_close(module(X)[0], _by_hand(module))


@pytest.mark.compat("moved weights", "AveragedModel and other deep copies average and step by themselves")
def test_averaged_model(lstm_class: type[nn.LSTM]) -> None:
    module = _module(lstm_class)
    averaged = torch.optim.swa_utils.AveragedModel(module)
    averaged.update_parameters(module)
    _fill(module)
    averaged.update_parameters(module)
    _assert_follows(averaged.module)
    _assert_follows(module)
    fast = copy.deepcopy(module)
    _assert_follows(fast)


@pytest.mark.compat("moved weights", "made in inference_mode: of use there; outside of it no autograd")
def test_made_in_inference_mode(lstm_class: type[nn.LSTM]) -> None:
    with torch.inference_mode():
        module = _module(lstm_class)
        torch.testing.assert_close(module(X)[0], _by_hand(module))
    with pytest.raises(RuntimeError, match="Inference tensors"):
        module(X)
    with torch.no_grad():
        torch.testing.assert_close(module(X)[0], _by_hand(module))


def test_deleted_weights_are_missed() -> None:
    """nn.LSTM goes on with the one that it has in its list; so does ours."""
    module = _module(FusedLSTM)
    want = module(X)[0]
    del module.weight_hh_l0
    assert torch.equal(module(X)[0], want)
