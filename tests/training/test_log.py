from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from textclf_fast.training import Schedule, TrainingOptions, fit
from textclf_fast.training.log import TrainingLog

OPTIONS = TrainingOptions(epochs=2, batch_size=3, learning_rate=1e-2, schedule=Schedule("one-cycle"))  # 67 steps


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_means_of_steps_and_epochs(tmp_path: Path, toy: Any) -> None:
    log = TrainingLog(tmp_path / "log.jsonl", OPTIONS, 67)
    log.write("start", note="naïve")
    history = fit(toy.model(), toy.data, toy.data, OPTIONS, log.on_step, log.on_epoch)
    log.close()
    lines = lines_of(tmp_path / "log.jsonl")
    assert [line["event"] for line in lines] == ["start", *["steps", "steps", "epoch"] * 2]
    assert all(line["time"].endswith("+00:00") for line in lines)
    for result, (first, second, epoch) in zip(history.epochs, (lines[1:4], lines[4:7]), strict=True):
        assert [(part["epoch"], part["step"], part["steps"]) for part in (first, second)] == [
            (result.epoch + 1, 50, 50),
            (result.epoch + 1, 67, 17),
        ]
        assert (50 * first["loss"] + 17 * second["loss"]) / 67 == pytest.approx(result.loss)
        assert epoch["held_out"]["accuracy"] == result.held_out.accuracy
    assert lines[4]["learning_rate"] == pytest.approx(1e-2 * OPTIONS.schedule.factor(67 + 49, 134))


def test_goes_on_after_a_line_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"event": "start"}\n{"event": "st')
    log = TrainingLog(path, OPTIONS, 67, resume=True)
    log.write("resume")
    log.close()
    first, cut, last = path.read_text().splitlines()
    assert (json.loads(first)["event"], cut, json.loads(last)["event"]) == ("start", '{"event": "st', "resume")
    TrainingLog(path, OPTIONS, 67).close()
    assert path.read_text() == ""


def test_tensorboard(tmp_path: Path, toy: Any) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = TrainingLog(tmp_path / "log.jsonl", OPTIONS, 67, tensorboard=tmp_path / "board")
    history = fit(toy.model(), toy.data, toy.data, OPTIONS, log.on_step, log.on_epoch)
    log.close()
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    accuracies = [(event.step, event.value) for event in events.Scalars("held_out/accuracy")]
    assert accuracies == [
        (67 * (result.epoch + 1), pytest.approx(result.held_out.accuracy)) for result in history.epochs
    ]
    assert [event.step for event in events.Scalars("train/loss")] == [50, 67, 117, 134]
