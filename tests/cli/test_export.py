from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from textclf_fast import TextClassifier
from textclf_fast.text import Vocabulary
from textclf_fast.training import save_model


@pytest.mark.parametrize(("name", "options"), [("m.pt2", []), ("m.onnx", []), ("m", ["--to", "torch-export"])])
def test_exports(run: Any, model: Path, tmp_path: Path, name: str, options: list[str]) -> None:
    if name == "m.onnx":
        pytest.importorskip("onnxruntime")
    ran = run("export", model, name, *options)
    assert (ran.status, ran.err) == (0, "")
    written, compared = ran.out.splitlines()
    assert written == f"written: {name}, and {name}.json with labels, vocabulary and tokenizer"
    assert compared.startswith("compared with the model: logits differ by ")
    assert json.loads((tmp_path / f"{name}.json").read_text())["labels"] == ["negative", "positive"]


def test_without_onnx_runtime_it_is_not_compared(run: Any, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    ran = run("export", model, "m.onnx")
    assert ran.status == 0
    assert "note: not compared with the model: that needs the package onnxruntime" in ran.out


def test_without_onnx_it_says_what_to_install(run: Any, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    ran = run("export", model, "m.onnx")
    assert ran.status == 2
    assert "pip install 'textclf_fast[onnx]'" in ran.err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nowhere", "m.onnx"], "nowhere: there is no such directory"),
        ([None, "m.bin"], "--to"),
        ([None, "missing/m.pt2"], "No such file or directory"),
        ([None], "PATH"),
    ],
)
def test_wrong_usage(run: Any, model: Path, tmp_path: Path, args: list[Any], words: str) -> None:
    ran = run("export", *[model if arg is None else arg for arg in args])
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert words in ran.err
    assert not list(tmp_path.iterdir())


def test_a_model_that_onnx_does_not_have(run: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    words = Vocabulary(["<pad>", "<unk>", "good"])
    save_model("projected", TextClassifier(3, 4, 6, 2, proj_size=2), words, ["no", "yes"])
    ran = run("export", "projected", "m.onnx")
    assert ran.status == 2
    assert "ONNX's LSTM has no projection, expected proj_size = 0, got 2" in ran.err
    assert run("export", "projected", "m.pt2").status == 0
