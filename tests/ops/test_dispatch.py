"""The choice of the instruction set, in processes of their own: it is made when the library is first used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from textclf_fast import _libraries


def _run(cap: str, folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from textclf_fast import _libraries; print(_libraries.cpu_isa())"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TEXTCLF_FAST_ISA": cap},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("cap", _libraries.CPU_ISAS)
def test_the_cap_is_kept(cap: str, isa: str, tmp_path: Path) -> None:
    """`isa` is there for its skip: a cap above the best of the machine leaves the best."""
    best = _libraries.CPU_ISAS.index(isa)
    chosen = _run(cap, tmp_path).stdout.strip()
    assert chosen in _libraries.CPU_ISAS
    assert _libraries.CPU_ISAS.index(chosen) <= _libraries.CPU_ISAS.index(cap)
    if best >= _libraries.CPU_ISAS.index(cap):
        assert chosen == cap


def test_an_unknown_cap_is_refused_in_one_line(tmp_path: Path) -> None:
    run = _run("sse9", tmp_path)
    assert run.returncode == 1
    assert "TEXTCLF_FAST_ISA: got 'sse9', expected one of generic, avx2, avx512" in run.stderr.splitlines()[-1]


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="name: instruction set 'sse9' is unknown"):
        _libraries.use_cpu_isa("sse9")
