"""Gradient x input, against differences of the classifier's own scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from textclf_fast import TextClassifier
from textclf_fast.attribution import token_scores
from textclf_fast.models import Classifier, MLPClassifier, MultiInputClassifier
from textclf_fast.predictor import Predictor
from textclf_fast.text import Vocabulary

V, C = 12, 3
TEXT = {"kind": "text", "embedding_dim": 5, "hidden_dim": 6}
KINDS: dict[str, Any] = {
    "LSTM": lambda: TextClassifier(V, 5, 6, C),
    "LSTM, batch first, two layers, both ways, concat": lambda: TextClassifier(
        V, 5, 6, C, batch_first=True, num_layers=2, bidirectional=True, pooling="concat", dropout=0.5
    ),
    "LSTM, projected, max": lambda: TextClassifier(V, 5, 6, C, proj_size=3, pooling="max"),
    "MLP, mean": lambda: MLPClassifier(V, 5, 6, C, num_layers=2, dropout=0.5),
    "MLP, weighted": lambda: MLPClassifier(V, 5, 6, C, token_weights=True),
    "MLP, sum": lambda: MLPClassifier(V, 5, 6, C, mode="sum", token_weights=True),
    "MLP, wide": lambda: MLPClassifier.wide(V, C, hidden_dim=9),
    "a text alone of several inputs": lambda: MultiInputClassifier(V, {"the text": TEXT}, C, head_dim=4),
}


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> Classifier:
    model = KINDS[request.param]().double().eval()
    if isinstance(model, MLPClassifier) and model.token_weights is not None:
        model.set_token_weights(torch.rand(V) + 0.5)
    return model


def log_odds(model: Classifier, ids: torch.Tensor, target: int) -> float:
    """As forward has them."""
    batch = ids.unsqueeze(0 if model.config["batch_first"] else 1)
    logits = model({"the text": batch} if isinstance(model, MultiInputClassifier) else batch)[0]  # type: ignore[arg-type]
    others = [number for number in range(C) if number != target]
    return float(logits[target] - logits[others].logsumexp(0))


@torch.no_grad()
@pytest.mark.parametrize("target", range(C))
def test_is_the_slope_of_the_log_odds(model: Classifier, target: int) -> None:
    """A token once in the text: its vector a little longer or shorter, and everything else as it is."""
    ids = torch.tensor([3, 7, 1, 10])
    scores = token_scores(model, ids, target)
    weight = next(module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding))
    step = 1e-4
    for place, token in enumerate(ids.tolist()):
        row = weight[token].clone()
        ends = []
        for factor in (1 + step, 1 - step):
            weight[token] = row * factor
            ends.append(log_odds(model, ids, target))
        weight[token] = row
        assert float(scores[place]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-9)
    assert float(scores.abs().max()) > 1e-4


def test_a_token_has_a_score_at_each_place() -> None:
    scores = token_scores(TextClassifier(V, 5, 6, C).eval(), torch.tensor([3, 4, 3]), 0)
    assert abs(float(scores[0] - scores[2])) > 1e-6


def test_a_predictor_takes_the_classifier(model: Classifier) -> None:
    vocabulary = Vocabulary(["<pad>", "<unk>", *(f"w{number}" for number in range(V - 2))])
    predictor = Predictor(model, vocabulary, ["a", "b", "c"])
    texts = ["w1 w2 w3", "w4", "", "w5 x w5"]
    together = predictor.predict_proba(texts)
    for row, text in enumerate(texts):
        found = predictor.explain(text)
        assert list(found.probabilities.values()) == pytest.approx(together[row].tolist(), abs=1e-6)
        target = predictor.labels.index(found.label)
        if found.tokens:
            ids = torch.from_numpy(vocabulary.encode(found.tokens))
            assert found.scores == pytest.approx(token_scores(model, ids, target).tolist(), rel=1e-6, abs=1e-12)


def test_several_inputs_are_refused() -> None:
    both = MultiInputClassifier(V, {"the text": TEXT, "more": {"kind": "columns", "size": 2, "hidden_dim": 3}}, C)
    with pytest.raises(ValueError, match=r"expected one text and nothing else, got \['the text', 'more'\]"):
        token_scores(both, torch.tensor([3]), 0)
