"""`textclf-fast info`, and the loading of the compiled libraries behind it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import textclf_fast
from textclf_fast import _libraries
from textclf_fast.cli import info

PACKAGE = Path(textclf_fast.__file__).parent


def _python(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env={**os.environ, **environ}, capture_output=True, text=True
    )


def test_info_from_the_command_line(tmp_path: Path) -> None:
    done = _python("-m", "textclf_fast", "info", cwd=tmp_path, TEXTCLF_FAST_ISA="generic")
    assert done.returncode == 0, done.stderr
    rows = {line.partition("  ")[0]: line.partition("  ")[2].strip() for line in done.stdout.splitlines()}
    assert rows["torch"].startswith(torch.__version__)
    assert rows["Python"].startswith(sys.version.split()[0])
    assert rows["CPU kernels"] == "generic"
    assert rows["CUDA kernels"] == _libraries.cuda_status()
    assert int(rows["threads"]) >= 1


def test_info_needs_no_typer(tmp_path: Path) -> None:
    program = "import sys; sys.modules['typer'] = None; from textclf_fast.cli.info import info; info()"
    done = _python("-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "CPU kernels" in done.stdout


def test_every_row_says_something() -> None:
    rows = info.rows()
    assert len({label for label, _ in rows}) == len(rows)
    assert all(text.strip() and "unknown" not in text and "\n" not in text for _, text in rows), rows


def test_cuda_status_agrees_with_torch() -> None:
    status = _libraries.cuda_status()
    if status.startswith("not built: "):
        assert not (PACKAGE / "_C_cuda.so").exists()
    elif torch.version.cuda is None:
        assert status.endswith(f"not loaded: torch {torch.__version__} has no CUDA")
    else:
        assert status.endswith("; loaded")


def _copied_package(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PACKAGE, tmp_path / "textclf_fast", ignore=shutil.ignore_patterns("*.so")))


def _load_copy(tmp_path: Path, prelude: str = "") -> subprocess.CompletedProcess[str]:
    load = "import textclf_fast._libraries as libraries; libraries.load()"
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import torch; {prelude}{load}"
    return _python("-c", program, cwd=tmp_path)


def test_a_missing_library_says_what_to_do(tmp_path: Path) -> None:
    _copied_package(tmp_path)
    done = _load_copy(tmp_path)
    assert done.returncode != 0
    message = done.stderr.splitlines()[-1]
    assert message.startswith("ImportError: ")
    assert str(tmp_path / "textclf_fast/_C.so") in message
    assert "pip install ." in message


def test_a_broken_library_says_what_to_do(tmp_path: Path) -> None:
    (_copied_package(tmp_path) / "_C.so").write_bytes(b"not a library")
    message = _load_copy(tmp_path).stderr.splitlines()[-1]
    assert message.startswith("ImportError: ")
    assert "does not load" in message
    assert "build it again" in message


def test_too_old_a_torch_is_refused(tmp_path: Path) -> None:
    _copied_package(tmp_path)
    message = _load_copy(tmp_path, prelude="torch.__version__ = '2.10.1'; ").stderr.splitlines()[-1]
    assert message == "ImportError: textclf_fast needs torch >= 2.11, and this is torch 2.10.1: upgrade torch"


@pytest.mark.parametrize("text", ["", "cuda: not built: no nvcc found: a reason with colons\ntorch: 2.13.0\n"])
def test_build_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(_libraries, "_BUILD_RECORD", tmp_path / "_build.txt")
    assert _libraries.build_record() == {}
    (tmp_path / "_build.txt").write_text(text)
    record = _libraries.build_record()
    assert record == ({"cuda": "not built: no nvcc found: a reason with colons", "torch": "2.13.0"} if text else {})
