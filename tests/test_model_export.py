"""Saved classifiers as files for other programs: what these compute is the model's, and what goes with it is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from textclf_fast import TextClassifier, model_export
from textclf_fast.model_export import export_model
from textclf_fast.models import Classifier, MLPClassifier, MultiInputClassifier
from textclf_fast.text import Vocabulary, WordTokenizer
from textclf_fast.training import SavedModel

WORDS = Vocabulary(["<pad>", "<unk>", "good", "bad", "naïve"])
V = len(WORDS)
MODELS: dict[str, Any] = {
    "lstm": lambda: TextClassifier(V, 4, 5, 2),
    "pooled": lambda: TextClassifier(V, 4, 5, 2, num_layers=2, bidirectional=True, pooling="concat", batch_first=True),
    "mlp": lambda: MLPClassifier(V, None, 5, 2, token_weights=True),
    "multi": lambda: MultiInputClassifier(
        V,
        {
            "text": {"kind": "text", "embedding_dim": 4, "hidden_dim": 5},
            "rows": {"kind": "sequence", "size": 3, "hidden_dim": 5, "pooling": "max"},
            "age": {"kind": "columns", "size": 2, "hidden_dim": 3},
        },
        2,
    ),
}


def saved(model: Classifier) -> SavedModel:
    return SavedModel(model.eval(), WORDS, WordTokenizer(), ["no", "yes"], {})


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("form", ["onnx", "torch-export"])
def test_computes_the_same(tmp_path: Path, kind: str, form: Any) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    difference = export_model(saved(MODELS[kind]()), tmp_path / "file", form)
    assert difference is not None
    assert difference < 1e-5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "file.json"]


@pytest.mark.parametrize("form", ["onnx", "torch-export"])
def test_random_numbers_stay_the_same(tmp_path: Path, form: Any) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    model = saved(MODELS["multi"]())
    state = torch.get_rng_state()
    export_model(model, tmp_path / "file", form)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_program_that_is_loaded_takes_other_sizes(tmp_path: Path) -> None:
    model = MODELS["lstm"]()
    export_model(saved(model), tmp_path / "model.pt2", "torch-export")
    program = torch.export.load(tmp_path / "model.pt2").module()
    ids = torch.tensor([[2, 3], [4, 2], [0, 3], [0, 2]])
    with torch.no_grad():
        torch.testing.assert_close(program(ids, torch.tensor([2, 4])), model(ids))


def test_onnx_and_its_json_are_all_that_is_needed(tmp_path: Path) -> None:
    """From a text to its label, without the model."""
    runtime = pytest.importorskip("onnxruntime")
    original = saved(MODELS["lstm"]())
    export_model(original, tmp_path / "model.onnx", "onnx")
    about = json.loads((tmp_path / "model.onnx.json").read_text(encoding="utf-8"))
    assert about["inputs"] == {"ids": "int64 (T, B)", "lengths": "int32 (B)"}
    assert about["tokenizer"] == {"kind": "word"}
    numbers = {token: number for number, token in enumerate(about["tokens"])}
    ids = np.array([[numbers.get(word, about["unknown_id"])] for word in ("naïve", "odd", "good")])
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"ids": ids, "lengths": np.array([3], np.int32)})
    with torch.no_grad():
        wanted = original.model(torch.tensor([[4], [1], [2]]))
    assert about["labels"][logits[0].argmax()] == original.labels[int(wanted.argmax())]
    np.testing.assert_allclose(logits, wanted.numpy(), atol=1e-5)


def test_what_computes_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.pt2").write_text("of before")
    run = model_export._run_program
    monkeypatch.setattr(model_export, "_run_program", lambda *args: [each + 0.01 for each in run(*args)])
    with pytest.raises(RuntimeError, match=r"logits that differ by 0\.0\d+ from the model's"):
        export_model(saved(MODELS["mlp"]()), tmp_path / "model.pt2", "torch-export")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("model.pt2", "of before")]


def test_not_a_number_is_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is in the last batch alone."""
    run = model_export._run_program

    def run_badly(*args: Any) -> list[torch.Tensor]:
        *others, last = run(*args)
        return [*others, last * torch.nan]

    monkeypatch.setattr(model_export, "_run_program", run_badly)
    with pytest.raises(RuntimeError, match="logits that differ by nan"):
        export_model(saved(MODELS["mlp"]()), tmp_path / "model.pt2", "torch-export")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [3, 5])
def test_columns_are_no_steps_and_no_rows(tmp_path: Path, size: int) -> None:
    """As many as the batch has rows or steps from which the inputs are described."""
    inputs: dict[str, Any] = {
        "text": {"kind": "text", "embedding_dim": 4, "hidden_dim": 5},
        "age": {"kind": "columns", "size": size, "hidden_dim": 3},
    }
    export_model(saved(MultiInputClassifier(V, inputs, 2)), tmp_path / "model.pt2", "torch-export")
    assert json.loads((tmp_path / "model.pt2.json").read_text())["inputs"]["age.columns"] == f"float32 (B, {size})"


def test_inputs_of_several_are_named(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    export_model(saved(MODELS["multi"]()), tmp_path / "model.onnx", "onnx")
    assert json.loads((tmp_path / "model.onnx.json").read_text())["inputs"] == {
        "text.ids": "int64 (T, B)",
        "text.lengths": "int32 (B)",
        "rows.input": "float32 (T, B, 3)",
        "rows.lengths": "int32 (B)",
        "age.columns": "float32 (B, 2)",
    }
