"""The program run within the test's process, and a model to predict with."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from textclf_fast.cli.app import main
from textclf_fast.text import read_labelled

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


@pytest.fixture(scope="session")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("language_models") / "lm"
    small = ["--embedding-dim", "12", "--hidden-dim", "16", "--batch-size", "4", "--steps", "10"]
    small += ["--min-frequency", "1", "--held-out", "0.1", "--epochs", "1"]
    assert main(["pretrain", str(TOY), "--out", str(directory), *small]) == 0
    return directory


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Fifty texts with labels, and the others without."""
    data = read_labelled(TOY)
    few, many = tmp_path / "few.csv", tmp_path / "many.txt"
    with few.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(zip(data.texts[:50], data.labels[:50], strict=True))
    many.write_text("".join(f"{text}\n" for text in data.texts[50:]))
    return few, many
