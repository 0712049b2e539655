"""The GPU script where there is no GPU: tried as a whole on the CPU, and beside processes that fail or hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from source_packages import ROOT

from benchmarks.gpu import run
from benchmarks.gpu.cells import CELLS, FLASHRNN_CELLS
from benchmarks.gpu.run import Script, main, run_parts

REPORT: dict[str, Any] = {"parts": [], "rows": [], "unmeasured": {"before": "earlier"}, "seconds": 0}


def test_a_dry_run_takes_every_way(tmp_path: Path) -> None:
    environ = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    script = ROOT / "benchmarks" / "gpu" / "run.sh"
    command = [script, "--dry-run", "--out", tmp_path, "--seconds", "1000"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "gpu-dry-run.json").read_text())
    assert [part["name"] for part in report["parts"]] == ["tests", "cells", "sanitizers", "flashrnn"]
    measured = {(row["section"], row["mode"]) for row in report["rows"]}
    assert measured == {(cell.section, cell.mode) for cell in CELLS if cell.section != "memory"}
    assert all(row["ours"] > 0 and row["ratios"] for row in report["rows"])
    reasons = sorted(report["unmeasured"].values())
    assert len(reasons) == 1 + len({cell.mode for cell in FLASHRNN_CELLS})
    assert reasons[0].startswith("FlashRNN cannot be imported")
    assert reasons[-1] == "peak memory is asked of CUDA's allocator"
    assert report["dry_run"]
    assert report["machine"]["GPU"].startswith("none")


def test_without_a_gpu_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if main(["--out", str(tmp_path), "--seconds", "0", "--no-build"]) == 2:
        assert "no GPU: nvidia-smi names none" in capsys.readouterr().err
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("builds", [False, True])
def test_every_part_asks_for_our_kernels(builds: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def part(self: Script, name: str, *arguments: Any, **options: Any) -> bool:
        asked.append((name, self.environ.get("TEXTCLF_FAST_CUDA_KERNELS")))
        return True

    monkeypatch.setattr(Script, "part", part)
    monkeypatch.setattr(Script, "measure", part)
    monkeypatch.setattr(run, "BUILT", tmp_path / "built")
    environ = {"PATH": os.environ["PATH"]}
    run_parts(Script(tmp_path / "gpu-test.json", time.monotonic() + 1000, True, tmp_path, {}, environ), builds)
    names = ["build"] * builds + ["tests", "cells", "sanitizers", "flashrnn"]
    assert asked == [(name, "1") for name in names]


# What stands in for measure.py: the first two cells come out, the third ends the process, the fourth never ends.
FAILING = """
import json, sys, time
skip = int(sys.argv[sys.argv.index("--skip") + 1])
out = open(sys.argv[sys.argv.index("--out") + 1], "a")
for number in range(skip, 5):
    print(json.dumps({"begun": number, "cell": f"cell {number}"}), file=out, flush=True)
    if number == 2:
        sys.exit("the GPU is lost")
    if number == 4:
        time.sleep(1000)
    print(json.dumps({"row": number}), file=out, flush=True)
"""


def _script(folder: Path, monkeypatch: pytest.MonkeyPatch, worker: str) -> Script:
    """One whose measuring processes run ``worker`` instead."""
    start = Script._start

    def replaced(self: Script, command: list[Any], out: Any, cwd: Path | None = None) -> Any:
        return start(self, [sys.executable, "-c", worker, *command[3:]], out, cwd)

    monkeypatch.setattr(Script, "_start", replaced)
    copy = json.loads(json.dumps(REPORT))
    return Script(folder / "gpu-test.json", time.monotonic() + 1000, True, folder, copy)


def test_a_cell_that_fails_or_hangs_loses_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = _script(tmp_path, monkeypatch, FAILING)
    script.measure("cells", 15)
    report = json.loads(script.path.read_text())
    assert report["rows"] == [0, 1, 3]
    failed = "its process failed or was ended"
    assert report["unmeasured"] == {"before": "earlier", "cell 2": failed, "cell 4": failed}
    assert [part["status"] for part in report["parts"]] == ["took too long"]
    assert "the GPU is lost" in report["parts"][0]["tail"]


def test_a_process_that_never_begins_is_not_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = _script(tmp_path, monkeypatch, "import sys; sys.exit('nothing works')")
    script.measure("cells", 600)
    assert script.report["parts"][0]["status"] == "a process failed"
    assert script.report["parts"][0]["tail"] == ["nothing works"]


def test_a_part_is_ended_in_time_and_the_next_one_begins(tmp_path: Path) -> None:
    script = Script(tmp_path / "gpu-test.json", time.monotonic() + 1000, True, tmp_path, json.loads(json.dumps(REPORT)))
    assert not script.part("slow", [sys.executable, "-c", "import time; time.sleep(1000)"], 0.5)
    assert not script.part("wrong", [sys.executable, "-c", "import sys; print('a'); sys.exit(3)"], 100)
    assert script.part("right", [sys.executable, "-c", "print('b')"], 100)
    report = json.loads(script.path.read_text())
    assert [(part["name"], part["status"]) for part in report["parts"]] == [
        ("slow", "took too long"),
        ("wrong", "ended with 3"),
        ("right", "ok"),
    ]
    assert report["parts"][1]["tail"] == ["a"]
