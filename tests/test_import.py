"""What importing the package costs and offers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import textclf_fast


def _modules_after(code: str, folder: Path) -> set[str]:
    script = f"import sys\n{code}\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=folder)
    return {name.partition(".")[0] for name in run.stdout.split()}


def test_fused_lstm_needs_torch_and_numpy_alone(tmp_path: Path) -> None:
    loaded = _modules_after("from textclf_fast import FusedLSTM, FusedEmbeddingLSTM, TextClassifier", tmp_path)
    assert {"torch", "numpy"} <= loaded
    assert not loaded & {"safetensors", "platformdirs", "typer", "rich", "matplotlib", "sklearn"}


def test_the_program_starts_without_torch(tmp_path: Path) -> None:
    assert "torch" not in _modules_after("import textclf_fast.cli.app", tmp_path)


def test_all_names_are_there() -> None:
    for name in textclf_fast.__all__:
        assert name in dir(textclf_fast)
        assert getattr(textclf_fast, name) is not None
    with pytest.raises(AttributeError, match="'textclf_fast' has no attribute 'Nothing'"):
        textclf_fast.Nothing  # noqa: B018
