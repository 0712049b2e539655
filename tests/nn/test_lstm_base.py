"""FusedLSTM is an nn.LSTM to everybody but Dynamo: what that could upset."""

from __future__ import annotations

import copy
import copyreg
import functools
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.rnn import RNNBase
from torch.nn.utils import parametrize

from textclf_fast import FusedLSTM
from textclf_fast.nn.lstm_base import LSTMBase


class _Doubled(FusedLSTM):
    def forward(self, input: Tensor, hx: Any = None) -> Any:
        output, states = super().forward(input, hx)
        return 2 * output, states


class _Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def _same(one: nn.Module, other: nn.Module) -> bool:
    x = torch.randn(5, 3, 4)
    return type(one) is type(other) and torch.equal(one(x)[0], other(x)[0])


@pytest.mark.compat("module", "isinstance(module, nn.LSTM) is True", nn_lstm="True")
def test_an_instance_is_an_nn_lstm() -> None:
    lstm = FusedLSTM(4, 6)
    assert isinstance(lstm, nn.LSTM)
    assert isinstance(lstm, FusedLSTM)
    assert isinstance(lstm, nn.GRU | nn.LSTM)
    assert not isinstance(lstm, nn.GRU)
    kind = functools.singledispatch(lambda _: "other")
    kind.register(nn.LSTM, lambda _: "LSTM")
    assert kind(lstm) == "LSTM"


def test_names_are_its_own() -> None:
    lstm = FusedLSTM(4, 6)
    assert repr(lstm) == "FusedLSTM(4, 6)"
    assert torch.typename(lstm) == "textclf_fast.nn.lstm.FusedLSTM"
    assert str(lstm.__class__) == str(FusedLSTM)
    assert type(lstm) is FusedLSTM
    assert repr(_Doubled(4, 6)) == "_Doubled(4, 6)"


def test_nn_lstm_has_no_more_than_is_taken_over() -> None:
    own = {name for name in nn.LSTM.__dict__ if name not in ("__module__", "__doc__")}
    assert own <= set(LSTMBase.__dict__)
    assert nn.LSTM.__bases__ == LSTMBase.__bases__ == (RNNBase,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dumps", [pickle.dumps, pickle._dumps], ids=["C", "Python"])
def test_pickle(protocol: int, dumps: Callable[..., bytes]) -> None:
    lstm = FusedLSTM(4, 6)
    assert _same(pickle.loads(dumps(lstm, protocol)), lstm)


def test_torch_save_and_copies() -> None:
    lstm = FusedLSTM(4, 6)
    file = io.BytesIO()
    torch.save(lstm, file)
    file.seek(0)
    for other in (torch.load(file, weights_only=False), copy.copy(lstm), copy.deepcopy(lstm)):
        assert _same(other, lstm)
        assert isinstance(other, nn.LSTM)


def test_pickles_of_a_subclass_of_nn_lstm_still_load() -> None:
    lstm = FusedLSTM(4, 6)
    other = copyreg.__newobj__(FusedLSTM)  # what they name
    other.__setstate__(lstm.__dict__.copy())
    assert _same(other, lstm)


def test_made_by_way_of_its_class() -> None:
    other = FusedLSTM(4, 6).__class__(4, 7)
    assert type(other) is FusedLSTM
    assert isinstance(pickle.loads(pickle.dumps(other)), nn.LSTM)


def test_subclass() -> None:
    lstm, doubled = FusedLSTM(4, 6), _Doubled(4, 6)
    doubled.load_state_dict(lstm.state_dict())
    x = torch.randn(5, 3, 4)
    assert torch.equal(doubled(x)[0], 2 * lstm(x)[0])
    assert isinstance(doubled, nn.LSTM)
    assert type(copy.deepcopy(doubled)) is _Doubled


def test_parametrize_changes_the_class_and_back() -> None:
    lstm, x = FusedLSTM(4, 6), torch.randn(5, 3, 4)
    halved = copy.deepcopy(lstm)
    with torch.no_grad():
        halved.weight_hh_l0 /= 2
    parametrize.register_parametrization(lstm, "weight_hh_l0", _Halved())
    assert type(lstm).__name__ == "ParametrizedFusedLSTM"
    assert isinstance(lstm, FusedLSTM)
    assert isinstance(lstm, nn.LSTM)
    assert _same(copy.deepcopy(lstm), lstm)
    assert torch.equal(lstm(x)[0], halved(x)[0])
    parametrize.remove_parametrizations(lstm, "weight_hh_l0")
    assert type(lstm) is FusedLSTM
    assert _same(lstm, halved)


def test_dynamo_is_not_imported(tmp_path: Path) -> None:
    code = "import sys, torch; before = 'torch._dynamo' in sys.modules\n"
    code += "from textclf_fast import TextClassifier; TextClassifier(9, 4, 6, 2)(torch.ones(3, 2, dtype=torch.int64))\n"
    code += "print(before, 'torch._dynamo' in sys.modules)"
    # Elsewhere: in the project's folder it would import the sources.
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    before, after = run.stdout.split()
    assert before == after
