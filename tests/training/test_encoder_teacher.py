"""A sentence encoder that is trained on with labels: a tiny one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_encoder import encoder as encoder

from textclf_fast.text import DataError
from textclf_fast.training import Step
from textclf_fast.training.encoder_teacher import EncoderTeacher, FineTuningOptions

GOOD, BAD = ["good", "fine", "the good film", "it is fine"], ["bad", "awful", "the bad film", "it is awful"]
TEXTS, LABELS = [*GOOD, *BAD] * 4, torch.tensor([0] * 4 + [1] * 4).repeat(4)
OPTIONS = FineTuningOptions(epochs=10, least_steps=0, batch_size=8, learning_rate=0.01, last_learning_rate=0.01)


def test_it_learns(encoder: Path) -> None:
    """And says it of texts that it has not seen, in their order, of more than one batch and one report."""
    teacher = EncoderTeacher(encoder, 2, OPTIONS)
    steps: list[Step] = []
    teacher.fit(TEXTS, LABELS, steps.append)
    assert len(steps) == 10 * 4
    assert [steps[-1].epoch, steps[-1].step] == [9, 3]
    assert sum(step.tokens for step in steps[:4]) == sum(map(len, TEXTS))
    assert steps[-1].loss < 0.3 < 0.5 < steps[0].loss
    asked = ["a fine film", "a film is bad", "it is a good film and fine", "awful film"] * 150
    done: list[int] = []
    found = teacher.probabilities(asked, done.append)
    assert (found.shape, found.dtype) == ((600, 2), torch.float64)
    torch.testing.assert_close(found.sum(1), torch.ones(600).double())
    assert found.argmax(1).tolist() == [0, 1, 0, 1] * 150
    assert done == [512, 600]
    torch.testing.assert_close(found[:4], teacher.probabilities(asked[:4]), atol=0.02, rtol=0)  # other rounding
    assert not found.requires_grad


def test_the_seed_decides_all_and_nothing_else_is_drawn(encoder: Path) -> None:
    before = torch.get_rng_state()
    found = []
    for seed in (0, 0, 1):
        teacher = EncoderTeacher(encoder, 2, FineTuningOptions(epochs=2, least_steps=0, batch_size=8, seed=seed))
        teacher.fit(TEXTS, LABELS)
        found.append(teacher.probabilities(TEXTS))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_few_texts_are_seen_more_often() -> None:
    options = FineTuningOptions(epochs=3, least_steps=100, batch_size=32)
    assert [options.epochs_of(count) for count in (1, 32, 33, 1_000, 10_000)] == [100, 100, 50, 4, 3]


def test_vectors_of_any_length(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is learnt does not depend on how long an encoder's vectors are."""
    found = []
    for factor in (1.0, 1000.0):
        teacher = EncoderTeacher(encoder, 2)
        forward = teacher._encoder.forward

        def scaled(features, factor=factor, forward=forward):  # type: ignore[no-untyped-def]
            return {"sentence_embedding": factor * forward(features)["sentence_embedding"]}

        monkeypatch.setattr(teacher._encoder, "forward", scaled)
        found.append(teacher.probabilities(TEXTS[:8]))
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=0)


def test_wrong_input(encoder: Path) -> None:
    teacher = EncoderTeacher(encoder, 2)
    with pytest.raises(ValueError, match="texts: expected at least one, got none"):
        teacher.fit([], torch.tensor([], dtype=torch.int64))
    with pytest.raises(ValueError, match=r"labels: expected shape \(2,\), one for each text, got \(1,\)"):
        teacher.fit(["a", "b"], torch.tensor([1]))
    with pytest.raises(ValueError, match="texts: expected at least one, got none"):
        teacher.probabilities([])
    with pytest.raises(DataError, match="there is no directory 'nowhere', and no sentence encoder"):
        EncoderTeacher("nowhere", 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs: expected at least 1, got 0"),
        ({"least_steps": -1}, "least_steps: expected at least 0, got -1"),
        ({"learning_rate": 0.0}, "learning_rate: expected a positive number, got 0.0"),
        ({"last_learning_rate": float("nan")}, "last_learning_rate: expected a positive number, got nan"),
    ],
)
def test_wrong_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FineTuningOptions(**options)  # type: ignore[arg-type]


def test_a_loss_that_is_no_number(encoder: Path) -> None:
    teacher = EncoderTeacher(encoder, 2)
    with torch.no_grad():
        teacher._last.bias.fill_(float("inf"))
    with pytest.raises(FloatingPointError, match="the loss became nan in epoch 1, step 1"):
        teacher.fit(TEXTS, LABELS)
