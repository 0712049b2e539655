"""Writes docs/gpu.md from what the GPU script recorded: `python -m benchmarks.gpu.page`.

What was never measured is on the page too, as that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.cells import CELLS, FLASHRNN_CELLS
from benchmarks.gpu.record import GpuRow, read_row
from benchmarks.gpu.targets import STEP_TARGETS, TARGETS, StepTarget
from benchmarks.gpu.timing import METHOD
from benchmarks.report import show
from benchmarks.targets import Target, judge

_ROOT = Path(__file__).parents[2]
RESULTS = _ROOT / "benchmarks" / "results"
PAGE = _ROOT / "docs" / "gpu.md"

TITLES = {
    "text": "Embedding + LSTM on token ids",
    "one": "Embedding + LSTM, one text",
    "persistent": "float16, where cuDNN has a persistent kernel of its own",
    "classifier": "The text classifier: a whole training step with fused Adam",
    "memory": "Peak memory of a training step",
    "grid": "bfloat16, float input, E = H, T = 256",
    "packed": "The same on a PackedSequence at fill 0.42",
    "float": "tf32, float input, E = H, T = 128",
    "flashrnn": "Beside FlashRNN",
}

_HEAD = """\
# The CUDA kernels on GPUs

What was measured on which GPU and when, and what never was. `benchmarks/gpu/run.sh` builds, tests and measures on a
machine with a GPU in ten minutes and writes `benchmarks/results/gpu-NAME.json`; this page is made of those files by
`python -m benchmarks.gpu.page`. Ratios are a peer's time (or memory) divided by ours. "padded" and "packed" are
nn.LSTM, by cuDNN; packing is part of its time where the input is tokens. "ours" is asked for by
`TEXTCLF_FAST_CUDA_KERNELS=1`, without which modules leave everything on a GPU to cuDNN. With it FusedLSTM still leaves
dense float input to cuDNN where that was measured to be faster, or nothing was: with "tf32, float input" ours is the
module as it is, elsewhere our kernels. For every one of some cells the least ratio counts.

Letters: B rows, T steps, E width of the input, H hidden units; fill: mean length / T.
"""


def write_page(reports: Sequence[dict[str, Any]]) -> str:
    """The page from reports, in their order."""
    measured = [report for report in reports if not report["dry_run"]]
    sections = [_HEAD, _summary(measured), _target_table(measured)]
    sections += [_report_section(report) for report in measured]
    return "\n".join(sections)


def read_reports(folder: Path) -> list[dict[str, Any]]:
    """What is recorded in gpu-*.json, by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("gpu-*.json"))]


def _summary(reports: Sequence[dict[str, Any]]) -> str:
    if not reports:
        return (
            "**Nothing was measured: no kernel of this package has run on a GPU yet**, and no figure in this project\n"
            "is a GPU's. The kernels are tested on an emulator ([emulator.md](emulator.md)), and what the compiler\n"
            "says of them is in [cuda-registers.md](cuda-registers.md); neither says anything about speed.\n"
        )
    lines = [
        f"- {_gpu(report)}: {report['date'][:10]}, commit {report['commit']}, {len(report['rows'])} cells measured, "
        f"{len(report['unmeasured'])} not"
        for report in reports
    ]
    return "\n".join([*lines, "", METHOD, ""])


def _gpu(report: dict[str, Any]) -> str:
    return report.get("machine", {}).get("GPU", report["name"])


def _target_table(reports: Sequence[dict[str, Any]]) -> str:
    """All targets, those that nobody has measured yet, too; a column a report."""
    columns = [_gpu(report) for report in reports] or ["measured"]
    lines = [
        "## Targets on an H100",
        "",
        f"| what | cell | peer | target | {' | '.join(columns)} |",
        f"|---|---|---|---|{'---|' * len(columns)}",
    ]
    rows = [_rows(report) for report in reports]
    targets: list[Target | StepTarget] = [*TARGETS, *STEP_TARGETS]
    for target in targets:
        verdicts = [_verdict(target, own) for own in rows] or ["not measured"]
        what = f"{TITLES[target.section]}, {target.mode}"
        lines.append(f"| {what} | {_cell(target)} | {_peer(target)} | {target} | {' | '.join(verdicts)} |")
    return "\n".join([*lines, ""])


def _rows(report: dict[str, Any]) -> list[GpuRow]:
    return [read_row(entry) for entry in report["rows"]]


def _cell(target: Target | StepTarget) -> str:
    if target.cell is not None:
        return target.cell
    assert isinstance(target, Target)
    count = sum((c.section, c.mode) == (target.section, target.mode) for c in [*CELLS, *FLASHRNN_CELLS])
    return f"{'geometric mean of' if target.over == 'mean' else 'every one of'} {count} cells"


def _peer(target: Target | StepTarget) -> str:
    return target.peer or "" if isinstance(target, Target) else "ours, on the GPU"


def _verdict(target: Target | StepTarget, rows: Sequence[GpuRow]) -> str:
    if isinstance(target, StepTarget):
        key = (target.section, target.mode, target.cell)
        steps = [row.step for row in rows if (row.section, row.mode, row.cell) == key]
        if not steps or steps[0] is None:
            return "not measured"
        return _marked(f"{steps[0] * 1e6:.2f} us", steps[0] * 1e6 <= target.bound)
    for verdict in judge(rows, [target]):
        of = "" if target.cell else f" ({verdict.cells} cells)"
        return _marked(f"{verdict.measured:.2f}x{of}", verdict.met)
    return "not measured"


def _marked(text: str, met: bool) -> str:
    return f"{text}, reached" if met else f"**{text}, not reached**"


def _report_section(report: dict[str, Any]) -> str:
    lines = [f"## {_gpu(report)}, {report['date'][:10]}", ""]
    lines += [f"`{report['command']}`, {report['seconds']:.0f} s, commit {report['commit']}.", ""]
    lines += _table(["of the machine", "before", "after"], _machine(report))
    lines += _table(
        ["part", "how it ended", "seconds"], ((p["name"], p["status"], p["seconds"]) for p in report["parts"])
    )
    rows = _rows(report)
    for section, mode in dict.fromkeys((row.section, row.mode) for row in rows):
        lines += [f"### {TITLES[section]}, {mode}", ""]
        own = [row for row in rows if (row.section, row.mode) == (section, mode)]
        lines += _table(
            ["cell", "ours", "us a step on the GPU", "peers", "peers on the GPU", "kernels"], map(_line, own)
        )
    if report["unmeasured"]:
        lines += ["### Not measured", ""]
        lines += _table(["cell", "why"], report["unmeasured"].items())
    return "\n".join(lines)


def _machine(report: dict[str, Any]) -> Iterable[tuple[str, str, str]]:
    after = report.get("machine_after", {})
    for name, value in report.get("machine", {}).items():
        later = after.get(name, "")
        yield name, value, "" if later == value else later


def _line(row: GpuRow) -> tuple[str, ...]:
    peers = [f"{name} {show(amount, row.unit)} ({row.ratios[name]:.2f}x)" for name, amount in row.peers.items()]
    busy = [
        f"{name} {show(t, 's')} ({t / row.on_the_gpu['ours']:.2f}x)"
        for name, t in row.on_the_gpu.items()
        if name != "ours"
    ]
    step = "" if row.step is None else f"{row.step * 1e6:.2f}"
    return row.cell, show(row.ours, row.unit), step, "; ".join(peers), "; ".join(busy), row.notes.get("kernels", "")


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in rows), ""]


def main() -> None:
    PAGE.write_text(write_page(read_reports(RESULTS)), encoding="utf-8")
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
