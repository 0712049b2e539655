"""The ways of `benchmarks.labels` that begin with a language model, on a toy task."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import labels
from textclf_fast.cli.app import main
from textclf_fast.text import read_labelled

TOY = Path(__file__).parents[1] / "text" / "toy.csv"


@pytest.mark.parametrize("way", ["scratch", "pretrained", "self-trained"])
def test_ways(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read_labelled(TOY)
    parts = {"train": data.select(range(150)), "test": data.select(range(150, 200))}
    monkeypatch.setattr(labels, "load_dataset", lambda name, part: parts[part])
    monkeypatch.setattr(labels, "LEAST_STEPS", 20)
    monkeypatch.setattr(labels, "TEACHERS", 1)
    small = ["--embedding-dim", "12", "--hidden-dim", "16", "--batch-size", "4", "--steps", "10", "--epochs", "1"]
    small += ["--min-frequency", "1", "--held-out", "0.1"]
    assert main(["pretrain", str(TOY), "--out", str(tmp_path / "lm"), *small]) == 0
    bench = labels._Bench("toy", tmp_path / "lm", 1, 1, 1, validate=False)
    assert 0 <= bench.run(way, 60, seed=0) <= 1
