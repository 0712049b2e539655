from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from textclf_fast.judging.curves import curves


@pytest.mark.parametrize("decimals", [1, 8], ids=["ties", "distinct"])
@pytest.mark.parametrize("size", [10, 1000])
def test_agrees_with_scikit_learn(size: int, decimals: int) -> None:
    random = np.random.default_rng(size)
    truth = random.random(size) < 0.3
    truth[:2] = [False, True]
    scores = np.round(random.random(size) + 0.3 * truth, decimals)
    found = curves(scores, truth)
    assert found is not None
    assert found.roc_area == pytest.approx(metrics.roc_auc_score(truth, scores))
    assert found.average_precision == pytest.approx(metrics.average_precision_score(truth, scores))
    false_positives, recall, _ = metrics.roc_curve(truth, scores, drop_intermediate=False)
    assert found.false_positives == pytest.approx(false_positives)
    assert found.recall == pytest.approx(recall)
    precision, _, _ = metrics.precision_recall_curve(truth, scores)
    assert found.precision == pytest.approx(precision[::-1])


def test_one_class_alone_has_none() -> None:
    assert curves([0.1, 0.2], [True, True]) is None
    assert curves([0.1, 0.2], [False, False]) is None
    assert curves([], []) is None


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"expected two of shape \(n,\), got \(2,\) and \(3,\)"):
        curves([0.1, 0.2], [True, False, True])
