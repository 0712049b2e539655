"""The learning-rate finder: rates that can be trained at, and a model as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from textclf_fast.training import EncodedTexts, TrainingOptions, fit
from textclf_fast.training.lr_finder import LearningRateCurve, draw_curve, find_learning_rate


def test_the_model_stays_as_it_is(toy: Any) -> None:
    model = toy.model(sparse=True, dropout=0.2).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rng = torch.get_rng_state()
    curves = [find_learning_rate(model, toy.data, steps=30, batch_size=8) for _ in range(2)]
    assert curves[0] == curves[1]
    assert not model.training
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_suggestion_trains(toy: Any) -> None:
    model = toy.model(sparse=True)
    curve = find_learning_rate(model, toy.data, steps=60, batch_size=8)
    assert curve.rates == sorted(curve.rates)
    assert curve.rates[0] == 1e-5
    assert min(curve.losses) < 0.85 * curve.losses[0]
    history = fit(model, toy.data, toy.data, TrainingOptions(learning_rate=curve.suggestion, batch_size=8, epochs=5))
    assert history.best.held_out.accuracy > 0.9


def test_it_ends_where_the_loss_grows(toy: Any) -> None:
    curve = find_learning_rate(toy.model(), toy.data, last=1e4, steps=60, batch_size=8)
    assert len(curve.rates) < 60
    assert max(curve.losses[curve.losses.index(min(curve.losses)) :]) <= 3 * min(curve.losses)


def test_suggestion() -> None:
    assert LearningRateCurve([1e-4, 1e-3, 1e-2, 1e-1, 1.0], [0.7, 0.69, 0.4, 0.35, 0.9]).suggestion == 0.01


def test_groups_have_their_own_rates(toy: Any) -> None:
    """With a rate of 0 nothing moves: the loss of one and the same batch stays."""
    model = toy.model()
    still = torch.optim.Adam(model.parameters(), lr=0.0)
    curve = find_learning_rate(model, toy.data, steps=20, batch_size=200, optimizer=still)
    assert max(curve.losses) - min(curve.losses) < 1e-4


def test_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw_curve(LearningRateCurve([1e-3, 1e-2, 1e-1], [0.7, 0.5, 0.6]), tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"first": 1.0}, "first, last: expected 0 < first < last, got 1.0 and 1.0"), ({"steps": 1}, "steps: expected at")],
)
def test_bad_arguments(toy: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_learning_rate(toy.model(), toy.data, **arguments)


def test_no_data(toy: Any) -> None:
    nothing = EncodedTexts(type(toy.data.tokens).from_lists([]), torch.empty(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="train: expected at least one text"):
        find_learning_rate(toy.model(), nothing)
