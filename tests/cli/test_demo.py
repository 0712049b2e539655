"""The demo on the toy set instead of the real one."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from textclf_fast import text
from textclf_fast.text import read_labelled

TOY = Path(__file__).parents[1] / "text" / "toy.csv"


@pytest.fixture(autouse=True)
def _toy_instead_of_rt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "load_dataset", lambda name, say: read_labelled(TOY))


def test_trains_all_and_reports(run: Any, tmp_path: Path) -> None:
    ran = run("demo", "--out", "results", "--epochs", 2)
    assert (ran.status, ran.err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["demo.json", "demo.png"]

    record = json.loads((tmp_path / "results" / "demo.json").read_text())
    assert set(record["machine"]) == {"CPU", "kernels", "threads", "Python", "torch", "textclf_fast"}
    padded, packed, same_loop, trainer = record["runs"]
    for result in record["runs"]:
        assert ran.out.count(result["name"]) == 4  # what it is, two epochs, the table
        assert len(result["epochs"]) == 2
        assert result["times_the_first"] == pytest.approx(
            padded["median_seconds_per_epoch"] / result["median_seconds_per_epoch"]
        )
    # The same weights, the same batches: only the kernels differ.
    for ours, theirs in zip(same_loop["epochs"], packed["epochs"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-4)
    assert same_loop["options"] == packed["options"] == padded["options"]
    assert trainer["options"] != same_loop["options"]

    png = (tmp_path / "results" / "demo.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert min(struct.unpack(">II", png[16:24])) > 500


def test_without_matplotlib(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ran = run("demo", "--epochs", 1)
    assert ran.status == 0
    assert "pip install 'textclf_fast[report]'" in ran.out
    assert [path.name for path in tmp_path.iterdir()] == ["demo.json"]
