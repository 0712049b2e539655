"""Options of FusedLSTM and FusedEmbeddingLSTM as arguments: values, repr, copies, parameters, defaults."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from textclf_fast import FusedEmbeddingLSTM, FusedLSTM
from textclf_fast.nn.options import DEFAULTS, LSTMOptions

ALL = {
    "weight_dropout": 0.5,
    "variational_dropout": (0.4, 0.25),
    "learn_initial_state": True,
    "recurrent_dropout": 0.1,
    "zoneout": 0.05,
    "layer_norm": True,
}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_dropout": 1.5}, "weight_dropout: expected a probability, 0 <= p <= 1, got 1.5"),
        ({"weight_dropout": True}, "weight_dropout: expected a probability, 0 <= p <= 1, got True"),
        ({"weight_dropout": (0.1, 0.2)}, "weight_dropout: expected a probability"),
        ({"variational_dropout": -0.1}, "variational_dropout: expected a probability, 0 <= p <= 1, got -0.1"),
        ({"variational_dropout": (0.1, 2)}, "variational_dropout: expected a probability, 0 <= p <= 1, got 2"),
        (
            {"variational_dropout": (0.1,)},
            r"variational_dropout: expected one rate, or a pair for the first input and between layers, got \(0.1,\)",
        ),
        ({"recurrent_dropout": "a"}, "recurrent_dropout: expected a probability, 0 <= p <= 1, got 'a'"),
        ({"zoneout": float("nan")}, "zoneout: expected a probability, 0 <= p <= 1, got nan"),
        ({"zoneout": [0.1, 0.2, 0.3]}, "zoneout: expected one rate, or a pair for h and c"),
        ({"layer_norm": 1}, "layer_norm: expected True or False, got 1"),
        ({"learn_initial_state": None}, "learn_initial_state: expected True or False, got None"),
        ({"checkpoint_every": 0}, "checkpoint_every: expected a number of steps of at least 1, or None, got 0"),
        ({"checkpoint_every": 2.0}, "checkpoint_every: expected a number of steps of at least 1, or None, got 2.0"),
        ({"checkpoint_every": True}, "checkpoint_every: expected a number of steps of at least 1, or None, got True"),
        ({"checkpoint_every": 4, "zoneout": 0.1}, "checkpoint_every: expected None beside recurrent_dropout, zoneout"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FusedLSTM(4, 5, **options)
    with pytest.raises(ValueError, match=message):
        FusedEmbeddingLSTM(9, 4, 5, **options)
    with pytest.raises(ValueError, match=message):
        FusedLSTM.from_lstm(nn.LSTM(4, 5), **options)


def test_bad_embedding_dropout_and_unknown_options() -> None:
    with pytest.raises(ValueError, match="embedding_dropout: expected a probability, 0 <= p <= 1, got 3"):
        FusedEmbeddingLSTM(9, 4, 5, embedding_dropout=3)
    with pytest.raises(TypeError, match="nonsense"):
        FusedLSTM(4, 5, nonsense=1)
    with pytest.raises(TypeError, match="nonsense"):
        FusedLSTM.from_lstm(nn.LSTM(4, 5), nonsense=1)


@pytest.mark.compat("options", "without options: nn.LSTM's repr, state_dict and attributes", nn_lstm="the same")
def test_the_defaults_leave_no_trace() -> None:
    plain, fused = nn.LSTM(4, 5, num_layers=2), FusedLSTM(4, 5, num_layers=2)
    assert repr(fused) == repr(plain).replace("LSTM", "FusedLSTM")
    assert list(fused.state_dict()) == list(plain.state_dict())
    assert fused.__dict__.keys() - {"_kept_panels"} == plain.__dict__.keys()
    assert fused.options is DEFAULTS
    assert pickle.loads(pickle.dumps(fused)).options is DEFAULTS
    embedded = FusedEmbeddingLSTM(9, 4, 5)
    assert "embedding_dropout" not in embedded.__dict__
    assert "dropout" not in repr(embedded)


def test_options_are_shown_where_they_are_set() -> None:
    module = FusedLSTM(4, 5, bidirectional=True, weight_dropout=0.5, zoneout=[0.1, 0.2])
    assert repr(module) == "FusedLSTM(4, 5, bidirectional=True, weight_dropout=0.5, zoneout=(0.1, 0.2))"
    embedded = FusedEmbeddingLSTM(9, 4, 5, embedding_dropout=0.1, checkpoint_every=8)
    assert "embedding_dropout=0.1" in repr(embedded)
    assert "FusedLSTM(4, 5, checkpoint_every=8)" in repr(embedded)
    assert embedded.lstm.options == LSTMOptions(checkpoint_every=8)


@pytest.mark.compat("options", "options survive pickling, deepcopy and state_dict")
def test_copies_and_pickles_keep_them() -> None:
    module = FusedLSTM(4, 5, num_layers=2, bidirectional=True, **ALL).eval()
    with torch.no_grad():
        for p in module.parameters():
            p.normal_()
    x = torch.randn(3, 2, 4)
    want = module(x)[0]
    other = FusedLSTM(4, 5, num_layers=2, bidirectional=True, **ALL).eval()
    other.load_state_dict(module.state_dict())
    for same in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), other):
        assert same.options == module.options
        assert torch.equal(same(x)[0], want)
    embedded = FusedEmbeddingLSTM(9, 4, 5, embedding_dropout=0.5, **ALL)
    for same in (copy.deepcopy(embedded), pickle.loads(pickle.dumps(embedded))):
        assert same.embedding_dropout == 0.5
        assert same.lstm.options == embedded.lstm.options


def test_from_lstm_and_from_modules() -> None:
    plain = nn.LSTM(4, 5, num_layers=2, bidirectional=True, dtype=torch.float64)
    module = FusedLSTM.from_lstm(plain, **ALL)
    assert module.options == LSTMOptions(**ALL)
    assert module.weight_hh_l1_reverse is plain.weight_hh_l1_reverse
    assert module.h_0.dtype == torch.float64
    assert module.h_0.device == plain.weight_hh_l0.device
    assert FusedLSTM.from_lstm(module) is module
    other = FusedLSTM.from_lstm(module, zoneout=0.5)
    assert other.options == LSTMOptions(**ALL | {"zoneout": 0.5})
    assert other.norm_cell_l0 is module.norm_cell_l0
    assert other.c_0 is module.c_0
    embedding = nn.Embedding(9, 4, dtype=torch.float64)
    embedded = FusedEmbeddingLSTM.from_modules(embedding, module, embedding_dropout=0.25)
    assert embedded.lstm is module
    assert embedded.embedding_dropout == 0.25
    assert FusedEmbeddingLSTM.from_modules(embedding, plain, weight_dropout=0.5).lstm.options.weight_dropout == 0.5


def test_parameters_that_options_add() -> None:
    def added(**options: object) -> dict[str, tuple[int, ...]]:
        module = FusedLSTM(4, 6, num_layers=2, bidirectional=True, proj_size=3, **options)
        plain = nn.LSTM(4, 6, num_layers=2, bidirectional=True, proj_size=3)
        names = {name: tuple(p.shape) for name, p in module.named_parameters()}
        for name, _ in plain.named_parameters():
            del names[name]
        return names

    assert added(weight_dropout=0.5, variational_dropout=0.5, zoneout=0.5, recurrent_dropout=0.5) == {}
    assert added(learn_initial_state=True) == {"h_0": (4, 1, 3), "c_0": (4, 1, 6)}
    norms = added(layer_norm=True)
    assert len(norms) == 16
    assert norms["norm_ih_l0"] == norms["norm_hh_l1_reverse"] == (24,)
    assert norms["norm_cell_l1"] == norms["norm_cell_bias_l0_reverse"] == (6,)


def test_reset_parameters() -> None:
    module = FusedLSTM(4, 5, learn_initial_state=True, layer_norm=True)
    with torch.no_grad():
        for p in module.parameters():
            p.fill_(7)
    module.reset_parameters()
    for name, p in module.named_parameters():
        if name.startswith(("weight", "bias")):
            assert p.abs().max() <= 5**-0.5
        else:
            expected = 1.0 if name in ("norm_ih_l0", "norm_hh_l0", "norm_cell_l0") else 0.0
            assert (p == expected).all(), name
    assert module.double().h_0.dtype == torch.float64


@pytest.mark.parametrize("name", ["weight_dropout", "variational_dropout", "recurrent_dropout"])
def test_training_options_change_nothing_in_evaluation(name: str) -> None:
    plain = nn.LSTM(4, 5, num_layers=2, bidirectional=True).eval()
    module = FusedLSTM.from_lstm(plain, **{name: 0.5})
    x = torch.randn(6, 3, 4)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(module(x)[0], plain(x)[0])
            assert not torch.allclose(module.train()(x)[0], plain(x)[0])
            module.eval()


def test_options_bring_nn_lstms_errors() -> None:
    module = FusedLSTM(4, 5, weight_dropout=0.5)
    embedded = FusedEmbeddingLSTM(9, 4, 5, embedding_dropout=0.5)
    state = torch.zeros(1, 3, 5)
    with pytest.raises(ValueError, match="input: expected 3 dimensions, or 2 for one row, got shape"):
        module(torch.zeros(4))
    with pytest.raises(ValueError, match="input: expected 2 dimensions, or 1 for one row, got shape"):
        embedded(torch.zeros(2, 3, 4, dtype=torch.int64))
    with pytest.raises(RuntimeError, match="Expected 4, got 7"):
        module(torch.zeros(6, 3, 7))
    with pytest.raises(ValueError, match="RNN input dtype"):
        module(torch.zeros(6, 3, 4).double())
    with pytest.raises(RuntimeError, match="sequence length to be larger than 0"):
        module(torch.zeros(0, 3, 4))
    with pytest.raises(RuntimeError, match=r"Expected hidden\[1\] size"):
        module(torch.zeros(6, 3, 4), (state, state[:, :2]))
    with pytest.raises(RuntimeError, match="hx: expected 3-D states, got 2-D and 2-D"):
        module(torch.zeros(6, 3, 4), (state[0], state[0]))
    with pytest.raises(RuntimeError, match=r"lengths: lengths\[1\] = 7"):
        module(torch.zeros(6, 3, 4), lengths=[1, 7, 2])
    with pytest.raises(ValueError, match="lengths: expected None beside one row"):
        module(torch.zeros(6, 4), lengths=[6])
    with pytest.raises(ValueError, match="lengths: expected None beside a PackedSequence"):
        module(nn.utils.rnn.pack_sequence([torch.zeros(3, 4)]), lengths=[3])
    with pytest.raises(IndexError, match=r"ids: token id 9 at \(1, 2\), expected 0 <= id < 9"):
        embedded(torch.tensor([[0, 1, 2], [3, 4, 9]]))
    with pytest.raises(TypeError, match="ids: expected dtype int64 or int32"):
        embedded(torch.zeros(2, 3))
    assert module(torch.zeros(6, 0, 4))[0].shape == (6, 0, 5)
    assert embedded(torch.zeros(6, 0, dtype=torch.int64))[0].shape == (6, 0, 5)
