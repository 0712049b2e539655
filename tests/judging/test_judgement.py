from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from sklearn import metrics

from textclf_fast.judging import Judgement, judge
from textclf_fast.training import EncodedTexts, evaluate


@pytest.mark.parametrize("num_classes", [2, 5, 60])
def test_agrees_with_scikit_learn(num_classes: int) -> None:
    generator = torch.Generator().manual_seed(num_classes)
    truth = torch.randint(num_classes, (500,), generator=generator)
    logits = torch.randn(500, num_classes, generator=generator)
    logits[torch.arange(0, 500, 2), truth[::2]] += 3
    labels = [f"class {number}" for number in range(num_classes)]
    found = Judgement.of(labels, logits, truth)
    predicted = logits.argmax(1)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(truth, predicted))
    for average, score in (("macro", found.macro_f1), ("micro", found.micro_f1)):
        assert score == pytest.approx(metrics.f1_score(truth, predicted, average=average, zero_division=0))
    assert found.loss == pytest.approx(metrics.log_loss(truth, logits.double().softmax(1), labels=range(num_classes)))
    expected = metrics.precision_recall_fscore_support(
        truth, predicted, labels=range(num_classes), zero_division=float("nan")
    )
    for score, precision, recall, f1, support in zip(found.classes, *expected, strict=True):
        wanted = [None if number != number else pytest.approx(number) for number in (precision, recall, f1)]
        assert [score.precision, score.recall, score.f1, score.support] == [*wanted, support]


def test_what_nothing_tells_is_none() -> None:
    """Class 0 is there and never predicted, class 1 the other way round, class 2 neither."""
    logits = torch.tensor([[0.0, 1.0, 0.0]] * 2)
    found = Judgement.of(["a", "b", "c"], logits, torch.tensor([0, 0]))
    scores = [(score.precision, score.recall, score.f1, score.support) for score in found.classes]
    assert scores == [(None, 0, 0, 2), (0, None, 0, 0), (None, None, None, 0)]
    assert json.loads(json.dumps(found.record(), allow_nan=False))["classes"][2]["f1"] is None


def test_answers_are_in_the_order_of_the_texts(toy: Any) -> None:
    model = toy.model().train()
    found = judge(model, toy.data, toy.labels, batch_size=7)
    assert model.training
    model.eval()
    with torch.no_grad():
        wanted = torch.cat([model(toy.data.tokens.packed([row])) for row in range(len(toy.data))])
    torch.testing.assert_close(found.logits, wanted, rtol=0, atol=1e-6)
    evaluated = evaluate(model, toy.data)
    assert (found.accuracy, found.macro_f1) == (evaluated.accuracy, evaluated.macro_f1)
    assert found.loss == pytest.approx(evaluated.loss, abs=1e-6)


def test_bad_input(toy: Any) -> None:
    nothing = EncodedTexts(type(toy.data.tokens).from_lists([]), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="data: expected at least one text"):
        judge(toy.model(), nothing, toy.labels)
    with pytest.raises(ValueError, match=r"logits: expected shape \(n, 2\), n above 0, got \(4, 3\)"):
        Judgement.of(["a", "b"], torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))
