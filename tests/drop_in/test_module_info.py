"""PyTorch's own description of nn.LSTM, its samples and its bad arguments, with FusedLSTM in nn.LSTM's place."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._pytree import tree_leaves, tree_map

from textclf_fast import FusedLSTM

try:
    from torch.testing._internal.common_modules import ModuleErrorEnum, module_db
except ImportError as error:  # private, and it needs expecttest
    pytest.skip(f"torch.testing._internal.common_modules: {error}", allow_module_level=True)

LSTM_INFO = next(info for info in module_db if info.module_cls is nn.LSTM)
both_modes = pytest.mark.parametrize("training", [False, True])


def _samples(training: bool, dtype: torch.dtype = torch.float64, requires_grad: bool = False) -> Iterator[Any]:
    """FusedLSTM and nn.LSTM with the same weights, args and kwargs of a call."""
    samples = LSTM_INFO.module_inputs_func(
        LSTM_INFO, device="cpu", dtype=dtype, requires_grad=requires_grad, training=training
    )
    for sample in samples:
        if sample.forward_input is None:
            continue
        made = sample.constructor_input
        plain = nn.LSTM(*made.args, **made.kwargs).to(dtype).train(training)
        fused = FusedLSTM(*made.args, **made.kwargs).to(dtype).train(training)
        fused.load_state_dict(plain.state_dict())
        yield fused, plain, sample.forward_input.args, sample.forward_input.kwargs


@pytest.mark.compat("PyTorch's samples of nn.LSTM", "forward and every gradient, train and eval, float32 and float64")
@both_modes
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_forward_and_gradients(training: bool, dtype: torch.dtype) -> None:
    count = 0
    for fused, plain, args, kwargs in _samples(training, dtype, requires_grad=True):
        found = []
        for module in (fused, plain):
            inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor) and t.requires_grad]
            outputs = tree_leaves(module(*args, **kwargs))
            loss = sum(t.square().sum() for t in outputs)
            found.append([*outputs, *torch.autograd.grad(loss, [*inputs, *module.parameters()])])
        tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {}
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, **tolerance)
        count += 1
    assert count >= 16


@pytest.mark.compat("PyTorch's samples of nn.LSTM", "gradcheck and gradgradcheck")
def test_gradcheck() -> None:
    for i, (fused, _, args, kwargs) in enumerate(_samples(True, requires_grad=True)):
        names, weights = zip(*fused.named_parameters(), strict=True)

        def run(
            x: Any, *given: Any, fused: Any = fused, names: Any = names, args: Any = args, kwargs: Any = kwargs
        ) -> Any:
            weights = dict(zip(names, given, strict=True))
            return tuple(tree_leaves(torch.func.functional_call(fused, weights, (x, *args[1:]), kwargs)))

        if i % 3 == 0:  # all of the options, though not each with each
            assert gradcheck(run, (args[0], *weights), fast_mode=True)
        if i % 9 == 0:
            assert gradgradcheck(run, (args[0], *weights), fast_mode=True)


@pytest.mark.compat("PyTorch's samples of nn.LSTM", "repr, deepcopy, pickle, non-contiguous input")
@both_modes
def test_copies_and_layouts(training: bool) -> None:
    for fused, plain, args, kwargs in _samples(training):
        assert repr(fused) == repr(plain).replace("LSTM", "FusedLSTM")
        want = tree_leaves(plain(*args, **kwargs))

        def spread(t: Any) -> Any:
            return torch.stack([t, t], -1)[..., 0] if isinstance(t, torch.Tensor) else t

        for module, given in (
            (copy.deepcopy(fused), (args, kwargs)),
            (pickle.loads(pickle.dumps(fused)), (args, kwargs)),
            (fused, tree_map(spread, (args, kwargs))),
        ):
            for a, b in zip(tree_leaves(module(*given[0], **given[1])), want, strict=True):
                torch.testing.assert_close(a, b)


@pytest.mark.compat("PyTorch's samples of nn.LSTM", "device and dtype arguments reach every parameter")
@both_modes
def test_factory_arguments(training: bool) -> None:
    samples = LSTM_INFO.module_inputs_func(
        LSTM_INFO, device="cpu", dtype=torch.float64, requires_grad=False, training=training
    )
    for sample in samples:
        made = sample.constructor_input
        module = FusedLSTM(*made.args, **made.kwargs, device="meta", dtype=torch.float64)
        assert {(p.device.type, p.dtype) for p in module.parameters()} == {("meta", torch.float64)}


@pytest.mark.compat("PyTorch's samples of nn.LSTM", "bad arguments of constructor and call raise what it says")
def test_bad_arguments() -> None:
    info = LSTM_INFO if LSTM_INFO.module_error_inputs_func is not None else None
    if info is None:
        info = next(info for info in module_db if info.module_cls is nn.GRU)  # nn.LSTM has none of its own
    samples = info.module_error_inputs_func(info, device="cpu", dtype=torch.float64, requires_grad=False, training=True)
    for sample in samples:
        made, call = sample.module_error_input.constructor_input, sample.module_error_input.forward_input
        if sample.error_on == ModuleErrorEnum.CONSTRUCTION_ERROR:
            with pytest.raises(sample.error_type, match=sample.error_regex):
                FusedLSTM(*made.args, **made.kwargs)
        else:
            module = FusedLSTM(*made.args, **made.kwargs)
            with pytest.raises(sample.error_type, match=sample.error_regex):
                module(*call.args, **call.kwargs)
