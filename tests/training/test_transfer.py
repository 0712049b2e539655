"""Transfer: what is taken over, which layers train when and how fast, and that it helps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from textclf_fast.models import LanguageModel
from textclf_fast.optim import DeferredAdam
from textclf_fast.text import Vocabulary, WordTokenizer
from textclf_fast.training import EncodedTexts, Schedule, TrainingOptions, transfer
from textclf_fast.training.language_model_files import SavedLanguageModel
from textclf_fast.training.transfer import (
    change_vocabulary,
    classifier_from,
    extend_vocabulary,
    fine_tune,
    layer_groups,
)

OLD = Vocabulary(["<pad>", "<unk>", "the", "film", "good"])


def language_model(vocabulary: Vocabulary = OLD, **options: Any) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(len(vocabulary), 6, 8, **options)


def test_extended_vocabulary() -> None:
    texts = [["bad", "film", "zest"], ["bad", "acting"], ["acting", "bad"]]
    assert extend_vocabulary(OLD, texts).tokens == [*OLD.tokens, "bad", "acting"]
    assert extend_vocabulary(OLD, texts, min_frequency=1).tokens[5:] == ["bad", "acting", "zest"]
    assert extend_vocabulary(OLD, []) == OLD


def test_changed_vocabulary() -> None:
    model = language_model()
    torch.nn.init.normal_(model.bias)
    new = Vocabulary(["<pad>", "<unk>", "good", "bad", "film"])
    changed = change_vocabulary(model, OLD, new, weight_dropout=0.5)
    assert changed.config == {**model.config, "vocab_size": 5, "weight_dropout": 0.5}
    for name, ours in changed.state_dict().items():
        before = model.state_dict()[name]
        if name in ("bias", "encoder.embedding.weight"):
            assert torch.equal(ours[[0, 1, 2, 4]], before[[0, 1, 4, 3]])  # by word
            torch.testing.assert_close(ours[3], before.mean(0))  # bad, which is new
        else:
            assert torch.equal(ours, before)
    with pytest.raises(ValueError, match="old: expected the 5 tokens of the model, got 2"):
        change_vocabulary(model, Vocabulary(["<pad>", "<unk>"]), new)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}])
def test_the_classifier_reads_as_the_language_model(options: dict[str, Any]) -> None:
    model = language_model(**options).eval()
    classifier = classifier_from(model, 3, dropout=0.2, sparse=True).eval()
    ids = torch.tensor([[2, 3], [4, 2], [3, 4]])
    torch.testing.assert_close(classifier.encoder(ids)[0], model(ids)[0])
    assert classifier(ids).shape == (2, 3)
    assert classifier.config["dropout"] == 0.2
    with torch.no_grad():
        classifier.encoder.embedding.weight.zero_()
    assert model.encoder.embedding.weight.any()  # a copy


@pytest.mark.parametrize(("options", "count"), [({"num_layers": 2}, 4), ({"bidirectional": True}, 3)])
def test_layer_groups(options: dict[str, Any], count: int) -> None:
    classifier = classifier_from(language_model(**options), 2)
    names = {id(parameter): name for name, parameter in classifier.named_parameters()}
    groups = [{names[id(parameter)] for parameter in group} for group in layer_groups(classifier)]
    assert len(groups) == count
    assert groups[0] == {"fc.weight", "fc.bias"}
    assert groups[-1] == {"encoder.embedding.weight"}
    assert all(f"_l{len(groups) - 3 - place}" in name for place, group in enumerate(groups[1:-1]) for name in group)
    assert sorted(name for group in groups for name in group) == sorted(names.values())


@pytest.mark.parametrize("gradual", [True, False])
def test_layers_thaw_from_the_top(toy: Any, gradual: bool) -> None:
    model = language_model(toy.vocabulary)
    classifier = classifier_from(model, 2, sparse=True)
    state = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    moved: list[set[str]] = []

    def note(_: object) -> None:
        now = classifier.state_dict()
        moved.append({name.split(".")[1] for name in now if not torch.equal(now[name], state[name])})

    fine_tune(classifier, toy.data, toy.data, TrainingOptions(epochs=3), on_epoch=note, gradual=gradual)
    top, middle, bottom = "weight", "lstm", "embedding"
    all_of_it = {top, "bias", middle, bottom}
    assert moved == [{top, "bias"}, {top, "bias", middle}, all_of_it] if gradual else [all_of_it] * 3
    assert all(parameter.requires_grad for parameter in classifier.parameters())


def test_rates(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[list[float]] = []
    step = DeferredAdam.step

    def note(self: DeferredAdam, closure: None = None) -> Any:
        rates.append([group["lr"] for group in self.param_groups])
        return step(self, closure)

    monkeypatch.setattr(DeferredAdam, "step", note)
    schedule = Schedule("one-cycle")
    options = TrainingOptions(epochs=2, batch_size=20, learning_rate=0.01, schedule=schedule)
    fine_tune(classifier_from(language_model(toy.vocabulary), 2), toy.data, toy.data, options, layer_factor=2.0)
    assert len(rates) == 20
    expected = [[0.01 * schedule.factor(done, 20) / factor for factor in (1, 2, 4)] for done in range(20)]
    np.testing.assert_allclose(rates, expected)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_all_of_it(toy: Any, bidirectional: bool) -> None:
    """A task learnt from 200 texts, and a vocabulary with the words that the language model lacked."""
    few = Vocabulary(toy.vocabulary.tokens[:20])
    saved = SavedLanguageModel(language_model(few, bidirectional=bidirectional), few, WordTokenizer(), {})
    before = {name: tensor.clone() for name, tensor in saved.model.state_dict().items()}
    classifier, adapted = transfer.transfer(saved, toy.texts, 2, epochs=1, sparse=True)
    vocabulary = adapted.vocabulary
    assert vocabulary.tokens[:20] == few.tokens
    assert len(few) < len(vocabulary) <= len(toy.vocabulary)
    assert all(torch.equal(tensor, before[name]) for name, tensor in saved.model.state_dict().items())
    assert not torch.equal(classifier.encoder.lstm.weight_hh_l0, saved.model.encoder.lstm.weight_hh_l0)
    assert torch.equal(classifier.encoder.lstm.weight_hh_l0, adapted.model.encoder.lstm.weight_hh_l0)
    rows = toy.data.labels
    data = EncodedTexts(transfer.encode_texts(toy.texts, WordTokenizer(), vocabulary), rows)
    options = TrainingOptions(epochs=8, learning_rate=0.02, batch_size=8)
    history = fine_tune(classifier, data, data, options, layer_factor=1.0, gradual=False)
    assert history.best.held_out.accuracy > 0.9


def test_bad_factor(toy: Any) -> None:
    with pytest.raises(ValueError, match=r"layer_factor: expected at least 1, got 0\.5"):
        fine_tune(toy.model(), toy.data, toy.data, layer_factor=0.5)
