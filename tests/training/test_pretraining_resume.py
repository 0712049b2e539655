"""A pre-training that was stopped goes on to the same bits, wherever it was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from textclf_fast.models import LanguageModel
from textclf_fast.text import DataError
from textclf_fast.training.pretraining import PretrainingOptions, pretrain
from textclf_fast.training.pretraining_resume import PretrainingCheckpoints

STREAM = np.random.default_rng(0).integers(30, size=481)  # 12 steps an epoch
OPTIONS = {"batch_size": 4, "steps": 10, "frequent": 10, "samples": 10, "epochs": 3, "learning_rate": 0.02}


class Killed(Exception):
    pass


def train(
    checkpoints: PretrainingCheckpoints | None = None,
    kill: int | None = None,
    stop: int | None = None,
    stream: np.ndarray = STREAM,
    changed: dict[str, Any] | None = None,
    **model: Any,
) -> tuple[list[Tensor], list[Any]]:
    """Weights and epochs; Killed after `kill` steps, told to stop after `stop`."""
    torch.manual_seed(0)
    language_model = LanguageModel(30, 8, 8, **{"dropout": 0.3, **model})
    steps = 0

    def on_step(unused: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == kill:
            raise Killed

    options = PretrainingOptions(**{**OPTIONS, **(changed or {})})
    epochs = pretrain(
        language_model, stream, STREAM, options, on_step, should_stop=lambda: steps == stop, checkpoints=checkpoints
    )
    numbers = [(epoch.epoch, epoch.loss, epoch.tokens, epoch.perplexity) for epoch in epochs]
    return list(language_model.state_dict().values()), numbers


@pytest.mark.parametrize("model", [{"bidirectional": True}, {"num_layers": 2}], ids=str)
def test_same_bits_wherever_it_was_stopped(tmp_path: Path, model: dict[str, Any]) -> None:
    want, epochs = train(**model)
    path = tmp_path / "checkpoint"
    places: list[tuple[int, int]] = []

    def checkpoints() -> PretrainingCheckpoints:
        return PretrainingCheckpoints(path, 5, True, lambda *place: places.append(place))

    for kill in (2, 6, 9):
        with pytest.raises(Killed):
            train(checkpoints(), kill, **model)
    _, cut_short = train(checkpoints(), stop=3, **model)
    assert cut_short[-1][2] == 3 * 40
    _, cut_short = train(checkpoints(), stop=9, **model)  # the last step of an epoch
    assert cut_short[-1] == epochs[1]
    got, gone_on = train(checkpoints(), **model)
    # Of 36 steps: killed in step 2, without a checkpoint; in 6, after that of 5; in 5 + 9, after the first epoch's.
    assert places == [(0, 5), (1, 0), (1, 3), (1, 12)]
    assert gone_on == epochs
    assert all(map(torch.equal, got, want))
    places.clear()
    got, over = train(checkpoints(), kill=1, **model)
    assert places == [(3, 0)]
    assert over == epochs
    assert all(map(torch.equal, got, want))


def test_a_limit_of_time_holds_over_all_parts(tmp_path: Path) -> None:
    checkpoints = PretrainingCheckpoints(tmp_path / "checkpoint", resume=True)
    changed = {"epochs": 10**6, "minutes": 0.5 / 60}
    train(checkpoints, changed=changed)
    train(checkpoints, kill=1, changed=changed)  # there is no step left


def test_without_resume_it_begins_anew(tmp_path: Path) -> None:
    train(PretrainingCheckpoints(tmp_path / "checkpoint"))
    with pytest.raises(Killed):
        train(PretrainingCheckpoints(tmp_path / "checkpoint"), kill=1)


def test_of_another_training(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    train(PretrainingCheckpoints(path))
    for other, message in (
        ({"changed": {"steps": 20}}, "of a training with steps 10, not 20"),
        ({"dropout": 0.1}, "of a training with model.dropout 0.3, not 0.1"),
        ({"stream": STREAM[:-1]}, "of a training on other texts"),
    ):
        with pytest.raises(DataError, match=message):
            train(PretrainingCheckpoints(path, resume=True), **other)


def test_damaged(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    train(PretrainingCheckpoints(path))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be read, or is cut short"):
        train(PretrainingCheckpoints(path, resume=True))


def test_bad_interval(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every: expected at least 1, got 0"):
        PretrainingCheckpoints(tmp_path / "checkpoint", every=0)
