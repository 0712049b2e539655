"""MLPClassifier against nn.EmbeddingBag and plain layers; right whatever the padding; saved, loaded, predicting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, pad_sequence

import textclf_fast
from textclf_fast.models import MLPClassifier, inverse_document_frequency, make_classifier
from textclf_fast.optim import DeferredAdam
from textclf_fast.predictor import Predictor
from textclf_fast.text import Vocabulary, WordTokenizer, read_labelled
from textclf_fast.training import EncodedTexts, TrainingOptions, fit, load_model, save_model

V, E, H, C = 50, 6, 9, 3


@pytest.fixture
def texts() -> list[Tensor]:
    return [torch.randint(1, V, (n,)) for n in (3, 7, 1, 5, 7)]


def _plain(model: MLPClassifier, texts: list[Tensor]) -> Tensor:
    """Row by row, the first hidden layer as the formula has it."""
    activation = {"sigmoid": torch.sigmoid, "relu": torch.relu}[model.config["activation"]]
    bags = []
    for text in texts:
        vectors = model.embedding.weight[text]
        weights = torch.ones(len(text)) if model.token_weights is None else model.token_weights[text]
        bag = (weights.unsqueeze(1).to(vectors) * vectors).sum(0)
        bags.append(bag / weights.sum() if model.config["mode"] == "mean" else bag)
    units = torch.stack(bags)
    if model.bias is not None:
        units = activation(units + model.bias)
    for layer in model.hidden:
        units = activation(layer(units))
    return model.fc(units)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"mode": "sum", "activation": "relu", "num_layers": 3},
    {"embedding_dim": None, "num_layers": 2},
    {"token_weights": True},
    {"token_weights": True, "mode": "sum", "embedding_dim": None},
]


def _model(options: dict[str, Any], **more: Any) -> MLPClassifier:
    model = MLPClassifier(**{"vocab_size": V, "embedding_dim": E, "hidden_dim": H, "output_dim": C, **options, **more})
    if model.token_weights is not None:
        model.set_token_weights(torch.rand(V, generator=torch.Generator().manual_seed(1)) + 0.5)
    return model


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_form_of_a_batch(texts: list[Tensor], options: dict[str, Any]) -> None:
    model = _model(options)
    first = _model(options, batch_first=True)
    first.load_state_dict(model.state_dict())
    want = _plain(model, texts)
    assert want.shape == (5, C)
    lengths = torch.tensor([len(text) for text in texts])
    for extra in (0, 4):
        ids = pad_sequence([*texts, torch.zeros(7 + extra, dtype=torch.int64)])[:, :-1]
        for found in (
            model(ids),
            model(ids.to(torch.int32)),
            model(ids, lengths.tolist()),
            first(ids.T, lengths),
            model(pack_sequence(texts, enforce_sorted=False)),
        ):
            torch.testing.assert_close(found, want)
    by_length = sorted(texts, key=len, reverse=True)
    torch.testing.assert_close(model(pack_sequence(by_length)), _plain(model, by_length))


@pytest.mark.parametrize("mode", ["mean", "sum"])
def test_the_bags_are_those_of_embedding_bag(texts: list[Tensor], mode: Any) -> None:
    model = _model({"mode": mode})
    bags = nn.EmbeddingBag(V, E, mode=mode, _weight=model.embedding.weight.detach())
    offsets = torch.tensor([0, 3, 10, 11, 16])
    with torch.no_grad():
        want = model.fc(torch.sigmoid(model.hidden[0](bags(torch.cat(texts), offsets))))
        torch.testing.assert_close(model(pad_sequence(texts)), want)


@pytest.mark.usefixtures("_poisoned")
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients(texts: list[Tensor], options: dict[str, Any], sparse: bool) -> None:
    model = _model(options, sparse=sparse).double()
    ids, labels = pad_sequence(texts), torch.tensor([0, 1, 2, 1, 0])
    nn.functional.cross_entropy(_plain(model, texts), labels).backward()
    want = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    nn.functional.cross_entropy(model(ids), labels).backward()
    assert model.embedding.weight.grad.is_sparse == sparse
    for name, parameter in model.named_parameters():
        found = parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
        torch.testing.assert_close(found, want[name], msg=lambda m, n=name: f"{n}: {m}")


def test_rows_of_a_sparse_embedding_are_deferred(texts: list[Tensor]) -> None:
    """Training and evaluating in turns: the results of Adam on dense gradients."""
    results = []
    for sparse in (False, True):
        torch.manual_seed(0)
        model = _model({}, sparse=sparse).double()
        optimizer = DeferredAdam(model.parameters(), model) if sparse else torch.optim.Adam(model.parameters())
        for step in range(6):
            some = texts[step % 3 : step % 3 + 2]
            optimizer.zero_grad()
            model(pad_sequence(some)).square().sum().backward()
            optimizer.step()
            with torch.no_grad():
                results.append(model(pad_sequence(texts)))
    for dense, deferred in zip(results[:6], results[6:], strict=True):
        torch.testing.assert_close(dense, deferred)


def test_wide() -> None:
    model = MLPClassifier.wide(V, C)
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == {
        "bias": (1024,),
        "embedding.weight": (V, 1024),
        "fc.weight": (C, 1024),
        "fc.bias": (C,),
    }
    assert (model.config["activation"], model.config["dropout"]) == ("relu", 0.5)
    assert MLPClassifier.wide(V, C, hidden_dim=7, dropout=0.0).fc.in_features == 7


def test_dropouts_are_of_training_alone(texts: list[Tensor]) -> None:
    ids = pad_sequence(texts)
    for options in ({"dropout": 0.5}, {"embedding_dropout": 0.5}):
        model = _model(options)
        assert not torch.equal(model(ids), model(ids))
        torch.testing.assert_close(model.eval()(ids), _plain(model, texts))


def test_config_is_json(texts: list[Tensor]) -> None:
    for options in OPTIONS:
        model = _model(options)
        config = json.loads(json.dumps({"kind": model.kind, **model.config}))
        again = make_classifier(config)
        assert {"kind": again.kind, **again.config} == config
        again.load_state_dict(model.state_dict())
        assert torch.equal(again(pad_sequence(texts)), model(pad_sequence(texts)))


def test_compiled(texts: list[Tensor]) -> None:
    torch._dynamo.reset()
    model = _model({"token_weights": True})
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    ids, lengths = pad_sequence(texts), torch.tensor([len(text) for text in texts])
    torch.testing.assert_close(compiled(ids, lengths), model(ids))
    torch._dynamo.reset()


def test_inverse_document_frequency() -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    values, offsets = np.array([2, 3, 2, 4, 2, 3]), np.array([0, 3, 4, 6])
    words = ["c d c", "e", "c d"]
    want = text.TfidfVectorizer(token_pattern="[a-z]").fit(words).idf_
    found = inverse_document_frequency(values, offsets, 6)
    assert found[2:5] == pytest.approx(want)
    assert found[[0, 1, 5]] == pytest.approx(np.log(4) + 1)


def test_trained_saved_and_loaded(tmp_path: Path) -> None:
    data = read_labelled(Path(__file__).parents[1] / "text" / "toy.csv")
    tokenizer = WordTokenizer()
    vocabulary = Vocabulary.build(map(tokenizer, data.texts))
    encoded = EncodedTexts.from_texts(data, data.classes, vocabulary, tokenizer)
    model = MLPClassifier.wide(len(vocabulary), 2, hidden_dim=32, token_weights=True, sparse=True)
    model.set_token_weights(inverse_document_frequency(encoded.tokens.values, encoded.tokens.offsets, len(vocabulary)))
    history = fit(model, encoded, encoded, TrainingOptions(epochs=6, batch_size=8, learning_rate=1e-2))
    assert history.best.held_out.accuracy > 0.9
    ours = Predictor(model, vocabulary, data.classes)
    save_model(tmp_path / "model", model, vocabulary, data.classes)
    assert isinstance(load_model(tmp_path / "model").model, MLPClassifier)
    loaded = textclf_fast.load(tmp_path / "model")
    assert np.array_equal(loaded.predict_proba(data.texts), ours.predict_proba(data.texts))
    alone = np.concatenate([loaded.predict_proba([text]) for text in data.texts[:5]])
    assert alone == pytest.approx(ours.predict_proba(data.texts)[:5], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "tanh"}, "activation: expected one of 'relu', 'sigmoid', got 'tanh'"),
        ({"mode": "max"}, "mode: expected one of 'mean', 'sum', got 'max'"),
        ({"num_layers": 0}, "num_layers: expected at least 1, got 0"),
        ({"dropout": 1.5}, "dropout: expected a probability"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _model(options)


def test_bad_input() -> None:
    model = _model({})
    with pytest.raises(IndexError, match="ids: token id 50, expected 0 <= id < 50"):
        model(torch.tensor([[1, 2], [50, 2]]))
    with pytest.raises(ValueError, match="ids: row 1 holds padding alone"):
        model(torch.tensor([[1, 0], [2, 0]]))
    with pytest.raises(TypeError, match=r"ids: expected integers, got dtype torch\.float32"):
        model(torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"ids: expected shape \(T, B\), got \(3,\)"):
        model(torch.ones(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="lengths: expected None beside a PackedSequence"):
        model(pack_sequence([torch.tensor([1])]), [1])
    with pytest.raises(ValueError, match="made with token_weights=True"):
        model.set_token_weights(torch.ones(V))
    weighted = _model({"token_weights": True})
    with pytest.raises(ValueError, match=r"weights: expected shape \(50,\)"):
        weighted.set_token_weights(torch.ones(V + 1))
    with pytest.raises(ValueError, match="weights: expected finite numbers above 0"):
        weighted.set_token_weights(torch.zeros(V))
    with pytest.raises(ValueError, match="weights: expected None for a MLPClassifier, got 'int8'"):
        model.prepare_inference("int8")
