from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import textclf_fast
from textclf_fast.training import Step
from textclf_fast.training.autotune import Trial, Tuner

TOY = Path(__file__).parents[1] / "text" / "toy.csv"


def test_writes_the_best_model_and_all_trials(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def three_trials(self: Tuner, seconds: float, stopped: Any) -> None:
        assert seconds == pytest.approx(90, abs=1)
        ordinary(self, seconds, lambda: len(self.trials) > 3)

    ordinary = Tuner.run
    monkeypatch.setattr(Tuner, "run", three_trials)
    ran = run("autotune", TOY, "--out", "model", "--minutes", 1.5)
    assert (ran.status, ran.err) == (0, "")
    first, *trials, saved, use = ran.out.splitlines()
    assert first.startswith("200 texts, 2 classes; 128 to train on, 32 to choose by, 40 held out; ")
    assert trials[0].startswith("trial 1, epoch 1: accuracy ")
    assert trials[0].endswith("(the defaults)  best so far")
    assert "learning_rate" in trials[1]
    assert saved.startswith("model: the model of trial ")
    assert use.endswith("textclf-fast predict model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    record = json.loads((tmp_path / "model" / "trials.json").read_text())
    assert [trial["trial"] for trial in record][:3] == [1, 2, 3]
    best = max(epoch["accuracy"] for trial in record for epoch in trial["epochs"])
    extra = json.loads((tmp_path / "model" / "config.json").read_text())["extra"]
    assert extra["accuracy_chosen_by"] == best
    assert len(textclf_fast.load("model").predict(["a lovely garden"])) == 1
    assert "\n## Results\n" in (tmp_path / "model" / "README.md").read_text()
    held_out = json.loads(run("evaluate", "model", TOY, "--json").out)
    assert (held_out["part"], held_out["texts"], held_out["notes"]) == ("held-out", 40, [])
    assert held_out["accuracy"] == extra["held_out"]["accuracy"]
    assert run("autotune", TOY, "--out", "model", "--minutes", 1).status == 2
    assert run("train", TOY, "--out", "model", "--overwrite", "--epochs", 1).status == 0


def test_json(run: Any) -> None:
    ran = run("autotune", TOY, "--out", "model", "--minutes", 1e-6, "--json")
    assert ran.status == 0
    found = json.loads(ran.out)
    assert found["directory"] == "model"
    assert (found["trials"], found["trial"]) == (1, 1)
    assert 0 <= found["held_out"]["accuracy"] <= 1


def test_ctrl_c_keeps_the_best(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    after_step = Tuner._after_step
    steps: list[Trial] = []

    def interrupted(self: Tuner, trial: Trial, step: Step) -> None:
        steps.append(trial)
        if len(steps) == 6:  # the first trial's epoch has 4
            os.kill(os.getpid(), signal.SIGINT)
        after_step(self, trial, step)

    monkeypatch.setattr(Tuner, "_after_step", interrupted)
    ran = run("autotune", TOY, "--out", "model", "--minutes", 10)
    assert ran.status == 0
    assert len(steps) == 6
    assert "\nstopped\nmodel: the model of trial 1 of 2" in ran.out


def test_no_time(run: Any) -> None:
    ran = run("autotune", TOY, "--out", "model", "--minutes", 0)
    assert ran.status == 2
    assert "positive" in ran.err
