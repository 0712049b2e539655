"""`textclf-fast lr-find`."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.conftest import TOY, Run


def test_suggestion_and_plot(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ran = run("lr-find", TOY, "--hidden-dim", 16, "--embedding-dim", 16, "--batch-size", 8, "--plot", "curve.png")
    assert ran.status == 0
    assert 1e-5 <= float(ran.out) <= 0.1
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_of_a_transferred_classifier(run: Run) -> None:
    small = ["--embedding-dim", 8, "--hidden-dim", 8, "--batch-size", 4, "--steps", 10, "--held-out", 0.1]
    assert run("pretrain", TOY, "--out", "lm", "--epochs", 1, "--min-frequency", 1, *small).status == 0
    ran = run("lr-find", TOY, "--from", "lm", "--steps", 20)
    assert ran.status == 0
    assert 1e-5 <= float(ran.out) <= 0.1
