"""The program run within the test's process, and a model to predict with."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from textclf_fast.cli.app import main

TOY = Path(__file__).parents[1] / "text" / "toy.csv"


class Ran(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs the program in an empty directory: run("train", "file.csv", ...)."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> Ran:
        status = main([str(arg) for arg in args])
        # Some CI services make typer colour what no terminal sees.
        return Ran(status, *(re.sub(r"\x1b\[[0-9;]*m", "", text) for text in capsys.readouterr()))

    return run


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "toy"
    sizes = ["--embedding-dim", "16", "--hidden-dim", "16", "--lr", "0.01", "--batch-size", "8"]
    assert main(["train", str(TOY), "--out", str(directory), *sizes]) == 0
    return directory
