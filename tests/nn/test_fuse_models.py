"""fuse and unfuse: what they change in a model, and what they leave."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from fuse_cases import DIM, HIDDEN, IDS, VOCAB, Tagger, assert_same_gradients, gradients, two
from fuse_cases import from_ids as from_ids
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from textclf_fast import FusedEmbeddingLSTM, FusedLSTM, fuse, unfuse


def test_nothing_of_the_model_changes_but_the_classes() -> None:
    model = Tagger()
    model.lstm.eval()
    model.lstm.bias_hh_l0.requires_grad_(False)
    modules, state = list(model.modules()), model.state_dict()
    dicts = [dict(module.__dict__) for module in modules]
    parameters = list(model.parameters())
    fuse(model, pairs=[("embedding", "lstm")])
    assert isinstance(model.lstm, FusedLSTM)
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert model.state_dict().keys() == state.keys()
    assert not model.lstm.training
    assert model.embedding.training
    assert not model.lstm.bias_hh_l0.requires_grad
    model.load_state_dict(state)
    Tagger().load_state_dict(model.state_dict())
    with torch.no_grad():
        for _ in range(3):
            model(IDS)
    unfuse(model)
    assert [type(module) for module in modules] == [Tagger, nn.Embedding, nn.Dropout, nn.LSTM, nn.Linear]
    for module, before in zip(modules, dicts, strict=True):
        assert module.__dict__.keys() == before.keys()


def test_again_and_back_and_again(from_ids: list[Tensor]) -> None:
    plain, model = two()
    first = fuse(model, pairs=[("embedding", "lstm")])
    assert fuse(model) == first
    assert first.lstms == {"lstm": ""}
    assert first.pairs == first.trained_pairs == (("embedding", "lstm"),)
    unfuse(model)
    unfuse(model)
    assert not fuse(model).trained_pairs
    assert_same_gradients(model, plain, IDS)
    assert not from_ids


def test_copies_and_pickles_are_fused_and_apart(from_ids: list[Tensor]) -> None:
    plain, fused = two()
    fuse(fused, pairs=[("embedding", "lstm")])
    with torch.no_grad():
        for _ in range(3):
            fused(IDS)
    for other in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        from_ids.clear()
        with torch.no_grad():
            other.embedding.weight.mul_(2)
            assert (other(IDS) - plain(IDS)).abs().max() > 1e-3
            torch.testing.assert_close(fused(IDS), plain(IDS))
        gradients(other, IDS)
        assert len(from_ids) == 3
        unfuse(other)
        assert type(other.lstm) is nn.LSTM


class _Shared(nn.Module):
    """One LSTM and one embedding, each used at two places, and another LSTM that nothing embedded reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, DIM)
        self.first = nn.ModuleDict({"lstm": nn.LSTM(DIM, DIM), "embedding": self.embedding})
        self.second = self.first["lstm"]
        self.inner = [nn.LSTM(DIM, DIM)]  # no child: whoever hides it has it hidden
        self.third = nn.LSTM(DIM, HIDDEN, bidirectional=True)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        x, y = self.first["embedding"](a), self.embedding(b)
        first, hx = self.first["lstm"](x)
        second, _ = self.second(y, hx)
        return self.third(first + second)[0] + self.third(x)[0] + self.inner[0](y)[0].mean()


def test_shared_modules_are_fused_once(from_ids: list[Tensor]) -> None:
    plain = _Shared()
    fused = copy.deepcopy(plain)
    report = fuse(fused)
    assert report.lstms == {"first.lstm = second": "", "third": ""}
    assert report.pairs == tuple(("embedding = first.embedding", of) for of in report.lstms)
    assert fused.first["lstm"] is fused.second
    assert_same_gradients(fused, plain, IDS, IDS.flip(0))
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(fused(IDS, IDS.flip(0)), plain(IDS, IDS.flip(0)))
    assert len(from_ids) == 9
    assert type(fused.inner[0]) is nn.LSTM


def test_a_model_that_is_an_lstm() -> None:
    model = nn.LSTM(DIM, HIDDEN)
    assert str(fuse(model)) == "fused  (the model itself)"
    assert isinstance(model, FusedLSTM)
    assert repr(model) == "FusedLSTM(5, 8)"
    unfuse(model)
    assert type(model) is nn.LSTM
    assert str(fuse(nn.Linear(2, 2))) == "no LSTM"


class _OwnLSTM(nn.LSTM):
    def forward(self, *args: Any) -> Any:  # type: ignore[override]
        return super().forward(args[0] * 2)


def _with_own_forward(module: nn.Module) -> nn.Module:
    forward = module.forward
    module.forward = lambda *args: forward(*args)
    return module


class _OwnEmbedding(nn.Embedding):
    pass


def test_what_is_left_and_why() -> None:
    model = nn.ModuleDict(
        {
            "plain": nn.LSTM(DIM, HIDDEN),
            "float16": nn.LSTM(DIM, HIDDEN, dtype=torch.float16),
            "meta": nn.LSTM(DIM, HIDDEN, device="meta"),
            "projected": nn.LSTM(DIM, HIDDEN, proj_size=2),
            "own": _OwnLSTM(DIM, HIDDEN),
            "ours": FusedLSTM(DIM, HIDDEN),
            "both": FusedEmbeddingLSTM(VOCAB, DIM, HIDDEN),
            "normed": parametrizations.weight_norm(nn.LSTM(DIM, HIDDEN), "weight_hh_l0"),
            "cell": nn.LSTMCell(DIM, HIDDEN),
            "quantized": torch.ao.nn.quantizable.LSTM(DIM, HIDDEN),
            "patched": _with_own_forward(nn.LSTM(DIM, HIDDEN)),
            "words": nn.Embedding(VOCAB, DIM),
            "unit_words": nn.Embedding(VOCAB, DIM, max_norm=1.0),
            "patched_words": _with_own_forward(nn.Embedding(VOCAB, DIM)),
            "own_words": _OwnEmbedding(VOCAB, DIM),
            "wide_words": nn.Embedding(VOCAB, 7),
            "traced": torch.jit.trace(nn.LSTM(DIM, HIDDEN), torch.randn(4, 2, DIM)),
        }
    )
    classes = {name: type(module) for name, module in model.items()}
    report = fuse(model)
    assert str(report).splitlines() == [
        "fused  plain",
        "fused  float16: takes PyTorch's own path for float16 on cpu",
        "fused  meta: takes PyTorch's own path for float32 on meta",
        "fused  projected",
        "pair   words -> plain: in inference, where the one's output is the other's input",
        "pair   words -> float16: in inference, where the one's output is the other's input",
        "pair   words -> meta: in inference, where the one's output is the other's input",
        "pair   words -> projected: in inference, where the one's output is the other's input",
        f"left   own: is a {__name__}._OwnLSTM, which may do something of its own",
        "left   ours: is a FusedLSTM already",
        "left   both.lstm: is a FusedLSTM already",
        "left   normed: is parametrized; fuse first, then parametrize",
        "left   cell: is a torch.nn.modules.rnn.LSTMCell, not an nn.LSTM",
        "left   quantized: is a torch.ao.nn.quantizable.modules.rnn.LSTM, not an nn.LSTM",
        "left   patched: has a forward of its own, set on the module itself",
        "left   unit_words: has max_norm, with which a lookup changes the vectors",
        "left   patched_words: has a forward of its own, set on the module itself",
        f"left   own_words: is a {__name__}._OwnEmbedding, which may do something of its own",
        "left   traced: is a torch.jit._trace.TopLevelTracedModule, not an nn.LSTM",
    ]
    changed = {name for name, module in model.items() if type(module) is not classes[name]}
    assert changed == {"plain", "float16", "meta", "projected", "words"}
    assert type(model["both"].embedding) is nn.Embedding


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("lstm", "pairs: expected pairs of names, .embedding, lstm., got 'lstm'"),
        (("words", "lstm"), "pairs: expected an nn.Embedding that can be fused at 'words', but there is none"),
        (("drop", "lstm"), "at 'drop', but it is a torch.nn.modules.dropout.Dropout"),
        (
            ("embedding", "out"),
            "pairs: expected an nn.LSTM that can be fused at 'out', but it is a torch.nn.modules.linear",
        ),
        (("embedding", "wide"), "pairs: embedding has embedding_dim 5, expected the input_size of wide, 7"),
    ],
)
def test_pairs_that_are_none(pair: Any, message: str) -> None:
    model = Tagger()
    model.wide = nn.LSTM(7, 3)
    with pytest.raises(ValueError, match=message):
        fuse(model, pairs=[("embedding", "lstm"), pair])
    assert type(model.lstm) is nn.LSTM  # nothing was changed
    assert type(model.embedding) is nn.Embedding


def test_no_module() -> None:
    for function in (fuse, unfuse):
        with pytest.raises(TypeError, match=r"model: expected an nn\.Module, got int"):
            function(3)  # type: ignore[arg-type]
