"""The GPU script: build, tests, measurements, sanitizers and FlashRNN, each in a process of its own and within a time.

What is there is written after every cell, so that whatever ends the script loses no more than the cell under way. A
part that fails or takes too long is noted, and the next one begins. Nothing but Python itself is imported here.

    benchmarks/gpu/run.sh [--name NAME] [--out FOLDER] [--seconds 570] [--no-build] [--dry-run]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "build" / "gpu"
RESULTS = ROOT / "benchmarks" / "results"
SANITIZERS = "memcheck or racecheck or synccheck"
# Seconds that a part may take at most, in the order in which they run; the measurements get what is left.
BUILD, TESTS, SANITIZER, FLASHRNN = 160, 130, 90, 60
TAIL = 30  # lines kept of what a failed part said
POLL = 1.0


@dataclass
class Script:
    """One run.

    Attributes:
        path: of the JSON.
        end: when all has to be over, as time.monotonic() counts.
        dry_run: no build, tests collected and not run, tiny cells on the CPU.
        folder: where parts run, and their logs are.
        report: what is written.
    """

    path: Path
    end: float
    dry_run: bool
    folder: Path
    report: dict[str, Any]
    environ: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    def save(self) -> None:
        """As JSON, whole or not at all."""
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        beside.write_text(json.dumps(self.report, indent=1) + "\n", encoding="utf-8")
        beside.replace(self.path)

    def part(self, name: str, command: Sequence[str | Path], most: float, cwd: Path | None = None) -> bool:
        """Runs a part; whether it succeeded."""
        begin, log = time.monotonic(), self.folder / f"{name}.log"
        print(f"== {name}: {shlex.join(map(str, command))}", flush=True)
        with log.open("w", encoding="utf-8") as out:
            process = self._start(command, out, cwd)
            try:
                code = process.wait(max(min(most, self.left), 0))
                status = "ok" if code == 0 else f"ended with {code}"
            except subprocess.TimeoutExpired:
                _kill(process)
                status = "took too long"
        self._note(name, status, begin, log)
        return status == "ok"

    def measure(self, name: str, most: float) -> None:
        """Runs `measure.py` over a list of cells, again from behind the cell that made it fail."""
        begin, log, lines = time.monotonic(), self.folder / f"{name}.log", self.folder / f"{name}.jsonl"
        end, skip, status = begin + max(min(most, self.left), 0), 0, "no time was left"
        print(f"== {name}: measuring for {end - begin:.0f} s", flush=True)
        lines.touch()
        rows, unmeasured = self.report["rows"], dict(self.report["unmeasured"])
        while end - time.monotonic() > POLL:
            # Appended, not put first: an installed package is measured where there is one.
            code = f"import sys; sys.path.append({str(ROOT)!r}); from benchmarks.gpu.measure import main; main()"
            seconds = max(end - time.monotonic() - 10, 1)
            command = [sys.executable, "-c", code, name, "--out", str(lines)]
            command += ["--skip", str(skip), "--seconds", str(seconds), *(["--dry-run"] if self.dry_run else [])]
            with log.open("a", encoding="utf-8") as out:
                process = self._start(command, out)
                while process.poll() is None and time.monotonic() < end:
                    time.sleep(POLL)
                    self._take(lines, rows, unmeasured)
                late = process.poll() is None
                if late:
                    _kill(process)
            cells = self._take(lines, rows, unmeasured)
            if process.returncode == 0:
                status = "ok" if skip == 0 else "went on behind cells that ended their process"
                break
            status = "took too long" if late else "a process failed"
            if late or cells <= skip:
                break
            skip = cells
        self._note(name, status, begin, log)

    def _take(self, lines: Path, rows: list[dict[str, Any]], unmeasured: dict[str, str]) -> int:
        """Puts what there is by now into the report, behind what was there before; how many cells were begun."""
        own_rows, own_unmeasured, begun, cell = [], {}, 0, None
        for text in lines.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:  # the process ended while it wrote
                continue
            if "machine" in line:
                self.report.setdefault("machine", line["machine"])
                self.report["machine_after"] = line["machine"]
            if "begun" in line:
                begun, cell = line["begun"] + 1, line["cell"]
                own_unmeasured[cell] = "its process failed or was ended"  # unless it says something else
            if "row" in line:
                own_rows.append(line["row"])
                own_unmeasured.pop(cell)
            if "unmeasured" in line:
                own_unmeasured[cell] = line["unmeasured"]
            own_unmeasured |= dict.fromkeys(line.get("out_of_time", []), "the time was over")
        self.report["rows"] = rows + own_rows
        self.report["unmeasured"] = unmeasured | own_unmeasured
        self.save()
        return begun

    def _start(self, command: Sequence[str | Path], out: Any, cwd: Path | None = None) -> subprocess.Popen[str]:
        # In a folder of its own: Python looks there first, and must not find the sources.
        return subprocess.Popen(
            list(map(str, command)),
            cwd=cwd or self.folder,
            env=self.environ,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def _note(self, name: str, status: str, begin: float, log: Path) -> None:
        said = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        tail, seconds = said[-1:] if status == "ok" else said[-TAIL:], round(time.monotonic() - begin, 1)
        self.report["parts"].append({"name": name, "status": status, "seconds": seconds, "tail": tail})
        self.report["seconds"] = round(self.report["seconds"] + seconds, 1)
        print("\n".join([*tail, f"== {name}: {status}, {seconds} s"]), flush=True)
        self.save()


def _kill(process: subprocess.Popen[str]) -> None:
    """With all that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _ask(*command: str) -> str:
    """The first line that a command prints; nothing where it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=ROOT)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout.strip().splitlines() or [""])[0] if done.returncode == 0 else ""


def _pytest(script: Script, chosen: str) -> list[str]:
    """The tests marked for a GPU of which ``chosen`` is true; only collected in a dry run, and fewer of them."""
    tests = [str(ROOT / "tests" / part) for part in (("cuda",) if script.dry_run else ("cuda", "nn"))]
    where = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "-p", "no:cacheprovider"]
    only = ["--collect-only"] if script.dry_run else []
    if not script.dry_run and importlib.util.find_spec("xdist"):  # each program of kernels is compiled first
        only = ["-n", "auto", "--dist", "loadfile"]
    return [sys.executable, "-m", "pytest", *tests, *where, "-q", "-m", "gpu", "-k", chosen, *only]


def build(script: Script) -> bool:
    """The package with machine code for this GPU, into a folder of its own."""
    shutil.rmtree(BUILT, ignore_errors=True)
    capability = _ask("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
    script.environ["TEXTCLF_FAST_CUDA"] = "1"
    if capability:
        script.environ["TORCH_CUDA_ARCH_LIST"] = capability
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-build-isolation", "--no-deps"]
    return script.part("build", [*pip, "--target", BUILT, "."], BUILD, cwd=ROOT)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Builds, tests and measures on a machine with a GPU.")
    parser.add_argument("--name", help="of the result, gpu-NAME.json; default: the GPU's")
    parser.add_argument("--out", type=Path, help="folder of the result; default: $OUT, else benchmarks/results")
    parser.add_argument("--seconds", type=float, default=570, help="in which all has to be over; default: 570")
    parser.add_argument("--no-build", action="store_true", help="the package is installed, or its libraries are here")
    parser.add_argument("--dry-run", action="store_true", help="try the script itself where there is no GPU")
    options = parser.parse_args(arguments)
    gpu = _ask("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    if not gpu and not options.dry_run:
        print("no GPU: nvidia-smi names none; --dry-run tries the script without one", file=sys.stderr)
        return 2
    name = options.name or ("dry-run" if options.dry_run else re.sub(r"\W+", "-", gpu).strip("-").lower())
    folder = options.out or Path(os.environ.get("OUT") or RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="textclf-fast-gpu-") as elsewhere:
        report = {
            "name": name,
            "dry_run": options.dry_run,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "commit": _ask("git", "describe", "--always", "--dirty") or "unknown",
            "command": shlex.join(["benchmarks/gpu/run.sh", *(sys.argv[1:] if arguments is None else arguments)]),
            "seconds": 0,
            "parts": [],
            "rows": [],
            "unmeasured": {},
        }
        end = time.monotonic() + options.seconds
        script = Script(folder.resolve() / f"gpu-{name}.json", end, options.dry_run, Path(elsewhere), report)
        run_parts(script, builds=not (options.no_build or options.dry_run))
    failed = [part["name"] for part in report["parts"] if part["status"] != "ok"]
    print(f"written: {script.path}; {len(report['rows'])} cells measured, {len(report['unmeasured'])} not")
    if failed:
        print(f"not ok: {', '.join(failed)}")
    return 1 if failed else 0


def run_parts(script: Script, builds: bool) -> None:
    """All parts, in the order of importance."""
    script.environ["TEXTCLF_FAST_CUDA_KERNELS"] = "1"  # built here or before: without it modules leave a GPU to cuDNN
    built = builds and build(script)
    carried = (ROOT / "textclf_fast" / "_C.so").exists()
    if built or carried:  # else it is installed
        paths = [str(BUILT if built else ROOT), *filter(None, [script.environ.get("PYTHONPATH")])]
        script.environ["PYTHONPATH"] = os.pathsep.join(paths)
    script.part("tests", _pytest(script, f"not ({SANITIZERS})"), TESTS)
    script.measure("cells", script.left - SANITIZER - FLASHRNN)
    script.part("sanitizers", _pytest(script, SANITIZERS), SANITIZER)
    script.measure("flashrnn", script.left)


if __name__ == "__main__":
    sys.exit(main())
