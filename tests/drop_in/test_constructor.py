"""The constructor, and what instances come of besides it: copies, pickles, old pickles, other devices."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import typing
from typing import Any

import pytest
import torch
from lstm_pair import assert_same, pair
from torch import nn

from textclf_fast import FusedLSTM
from textclf_fast.nn.lstm_base import LSTMBase

OPTIONS = {"num_layers": 2, "bias": False, "batch_first": True, "dropout": 0.5, "bidirectional": True, "proj_size": 2}


@pytest.mark.compat("constructor", "bad arguments: the same errors, word for word")
@pytest.mark.parametrize(
    ("args", "options"),
    [
        ((3, 0), {}),
        ((0, 4), {}),
        ((3, 4, 0), {}),
        ((3, 4, 1.5), {}),
        ((3.0, 4), {}),
        ((3, "4"), {}),
        ((3, 4), {"bias": 1}),
        ((3, 4), {"bias": "yes"}),
        ((3, 4), {"batch_first": 0}),
        ((3, 4), {"dropout": 1.5}),
        ((3, 4), {"dropout": -0.1}),
        ((3, 4), {"dropout": True}),
        ((3, 4), {"dropout": "a"}),
        ((3, 4), {"proj_size": -1}),
        ((3, 4), {"proj_size": 4}),
        ((3, 4), {"unknown": 1}),
        ((), {}),
        ((3,), {}),
    ],
    ids=str,
)
def test_bad_arguments(args: tuple[Any, ...], options: dict[str, Any]) -> None:
    errors = []
    for cls in (nn.LSTM, FusedLSTM):
        with pytest.raises((TypeError, ValueError)) as caught:
            cls(*args, **options)
        errors.append(caught)
    assert errors[0].type is errors[1].type
    assert str(errors[0].value) == str(errors[1].value)


@pytest.mark.compat("constructor", "dropout with one layer warns")
def test_dropout_with_one_layer_warns(lstm_class: type[nn.LSTM]) -> None:
    with pytest.warns(UserWarning, match="dropout option adds dropout after all but last") as caught:
        lstm_class(3, 4, dropout=0.5)
    assert len(caught) == 1
    assert caught[0].filename == inspect.getfile(nn.LSTM if lstm_class is nn.LSTM else LSTMBase)  # who calls RNNBase


@pytest.mark.compat("constructor", "takes all arguments by position and by name")
def test_arguments_by_position(lstm_class: type[nn.LSTM]) -> None:
    module = lstm_class(3, 5, 2, False, True, 0.5, True, 2, "meta", torch.float64)
    assert module.extra_repr() == lstm_class(3, 5, **OPTIONS).extra_repr()
    assert {(p.device.type, p.dtype) for p in module.parameters()} == {("meta", torch.float64)}


@pytest.mark.compat("constructor", "repr, but for the class's name")
@pytest.mark.parametrize("options", [{}, OPTIONS], ids=str)
def test_repr(options: dict[str, Any]) -> None:
    plain, fused = pair(3, 5, **options)
    assert repr(fused) == repr(plain).replace("LSTM", "FusedLSTM")
    assert str(nn.Sequential(fused)) == str(nn.Sequential(plain)).replace("LSTM", "FusedLSTM")


@pytest.mark.compat("constructor", "the same parameters from the same seed, in the same order")
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}, OPTIONS], ids=str)
def test_parameters(options: dict[str, Any]) -> None:
    made = []
    for cls in (nn.LSTM, FusedLSTM):
        torch.manual_seed(3)
        made.append(cls(3, 5, **options))
    plain, fused = made
    assert [name for name, _ in fused.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert fused._all_weights == plain._all_weights
    assert list(fused.state_dict()) == list(plain.state_dict())
    for a, b in zip(fused.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)
    for module in made:
        torch.manual_seed(4)
        module.reset_parameters()
    assert all(torch.equal(a, b) for a, b in zip(fused.parameters(), plain.parameters(), strict=True))


@pytest.mark.compat("constructor", "isinstance(module, nn.LSTM), and all of its attributes")
def test_attributes(lstm_class: type[nn.LSTM]) -> None:
    module = lstm_class(3, 5, **OPTIONS)
    assert isinstance(module, nn.LSTM)
    assert isinstance(module, nn.RNNBase)
    names = ("mode", "input_size", "hidden_size", *OPTIONS)
    assert [getattr(module, name) for name in names] == ["LSTM", 3, 5, *OPTIONS.values()]
    assert [len(weights) for weights in module.all_weights] == [3] * 4
    module.flatten_parameters()


@pytest.mark.compat("constructor", "forward has typing overloads, for tensors and for PackedSequence")
def test_overloads(lstm_class: type[nn.LSTM]) -> None:
    if not hasattr(typing, "get_overloads"):
        pytest.skip("typing.get_overloads is Python 3.11's")
    # nn.LSTM's two; ours has one more, for return_cell_states.
    assert len(typing.get_overloads(lstm_class.forward)) == (2 if lstm_class is nn.LSTM else 3)
    assert list(inspect.signature(lstm_class.forward).parameters)[:3] == ["self", "input", "hx"]


@pytest.mark.compat("constructor", "device and dtype reach every parameter, torch.device('meta') too, then to_empty")
def test_meta_then_to_empty(lstm_class: type[nn.LSTM]) -> None:
    module = lstm_class(3, 5, 2, device="meta", dtype=torch.float64)
    with torch.device("meta"):
        inside = lstm_class(3, 5, 2)
    assert all(p.is_meta for p in [*module.parameters(), *inside.parameters()])
    assert module(torch.empty(4, 2, 3, device="meta", dtype=torch.float64))[0].shape == (4, 2, 5)
    module.to_empty(device="cpu")
    module.reset_parameters()
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    reference = nn.LSTM(3, 5, 2, dtype=torch.float64)
    reference.load_state_dict(module.state_dict())
    assert_same(module(x), reference(x))
    inside.to_empty(device="cpu").double()
    inside.load_state_dict(module.state_dict())
    assert_same(inside(x), reference(x))


@pytest.mark.compat("copies", "copy.deepcopy and pickle, before a call and after")
@pytest.mark.parametrize("called", [False, True])
def test_copies(lstm_class: type[nn.LSTM], called: bool) -> None:
    module = lstm_class(3, 5, 2, bidirectional=True)
    x = torch.randn(4, 2, 3)
    if called:
        with torch.no_grad():
            module(x)
    for other in (copy.deepcopy(module), copy.copy(module), pickle.loads(pickle.dumps(module))):
        assert type(other) is lstm_class
        assert_same(other(x), module(x))
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.weight_hh_l0.zero_()
    assert not torch.equal(other(x)[0], module(x)[0])


@pytest.mark.compat("copies", "torch.save of the whole module; its state_dict with torch.load's defaults")
def test_saved(lstm_class: type[nn.LSTM]) -> None:
    module, x = lstm_class(3, 5), torch.randn(4, 2, 3)
    for saved, options in ((module, {"weights_only": False}), (module.state_dict(), {})):
        buffer = io.BytesIO()
        torch.save(saved, buffer)
        buffer.seek(0)
        loaded = torch.load(buffer, **options)
        if saved is not module:
            other = lstm_class(3, 5)
            other.load_state_dict(loaded)
            loaded = other
        assert_same(loaded(x), module(x))


@pytest.mark.compat("copies", "state_dicts are interchangeable, both ways")
def test_state_dicts() -> None:
    plain, fused = pair(3, 5, **OPTIONS)
    with torch.no_grad():
        for p in fused.parameters():
            p.mul_(2)
    assert not plain.load_state_dict(fused.state_dict(), strict=True).missing_keys
    x = torch.randn(2, 4, 3)
    assert_same(fused.eval()(x), plain.eval()(x))


@pytest.mark.compat("copies", "pickles of old, without proj_size, and with weights listed under all_weights")
def test_pickles_of_old(lstm_class: type[nn.LSTM]) -> None:
    module, x = lstm_class(3, 5), torch.randn(4, 2, 3)
    want = module(x)
    state = module.__getstate__()
    del state["proj_size"]
    other = lstm_class.__new__(lstm_class)
    other.__setstate__(state)
    assert other.proj_size == 0
    assert_same(other(x), want)
    state = module.__getstate__()
    state["all_weights"] = [[getattr(module, name) for name in names] for names in state.pop("_all_weights")]
    other = lstm_class.__new__(lstm_class)
    other.__setstate__(state)
    assert_same(other(x), want)


@pytest.mark.compat("copies", "an optimizer's state_dict goes over with the module's")
def test_optimizer_state_goes_over() -> None:
    plain, fused = pair(3, 5, 2, dtype=torch.float64)
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    first = torch.optim.Adam(plain.parameters())
    plain(x)[0].square().sum().backward()
    first.step()
    fused.load_state_dict(plain.state_dict())
    second = torch.optim.Adam(fused.parameters())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for module, optimizer in ((plain, first), (fused, second)):
        module.zero_grad()
        module(x)[0].square().sum().backward()
        optimizer.step()
    for a, b in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b)
