"""Writes docs/performance-ISA.md from the recorded benchmark, which holds the machine's peaks.

python -m benchmarks.roofline [REPORT.json] [PAGE.md]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.counts import INSTRUCTIONS, Work, count_work
from benchmarks.machine_peaks import Peaks, measure_peaks, read_peaks
from benchmarks.report import RESULTS, Row, cell_notes, describe, document, read_rows, show, table_lines
from benchmarks.targets import Verdict, judge
from textclf_fast._libraries import cpu_isa

TITLES = {
    "text": "Embedding + LSTM on token ids, float32",
    "bf16": "The same in bfloat16",
    "int8": "The same in float32 with W_hh in int8",
    "float": "FusedLSTM on float input, without lengths",
    "packed": "FusedLSTM on a PackedSequence",
    "epoch": "An epoch of training",
    "imdb": "The job of pytorch#94457",
    "memory": "Peak memory of a training step",
}

PEAKS = "the machine's peaks"  # among what was not measured

_FORMULAS = """\
Letters: L layers, D directions, H hidden, E width of the input, V vocabulary, T steps, N positions (sum of lengths), U
distinct tokens of the batch, b bytes of a number. An addition or a multiplication is one operation. Padding is no work.

| operations | inference | training step |
|---|---|---|
| recurrent product, a position, layer and direction | 2 * 4H * H | 3 times: forward, gradients of h and of W_hh |
| projection of layer 1, tokens | 0: the table is kept | 3 * 2 * 4H * E for each of the U distinct tokens |
| projection of layer 1, float input | 2 * 4H * E a position | 3 times that |
| projection of a layer above | 2 * 4H * DH a position | 3 times that |
| functions of the gates, a position and unit | 2 * {forward} | 2 * ({forward} + {saving} + {backward}) |

The functions are counted in vector instructions of the kernels ({kernels}), each as the fused multiply-add whose place
it takes; loads, stores and moves are left out. {forward} lead from the two halves of the gates to h and c: five
exponentials of 15 each, three reciprocals (of i g, of f and of o tanh(c); a division counts as one instruction), and
what joins them. A training step takes {saving} more to save i, f, g and o, and {backward} from the gradients of h and c
to those of the gates, half of them for tanh(c) anew. A test compares these numbers with what the compiler makes of the
kernels.

With W_hh in int8 a number of it is one byte, and four products of its numbers and their sum take {int8} instructions
where float32 takes 4.

Products in bfloat16, where the machine has them, count at their own peak; the forward projection and the functions are
float32's. Where it has none all is converted and counts as float32, with b = 4.

| bytes, for each layer; of gates and units for each direction | inference | training step |
|---|---|---|
| W_hh, 4H * H * b, from the cache that holds it | T times a layer and direction | 2T times; its gradient once |
| gates' input halves, read a position | 4H * 4 | the same |
| output, written a position | H * b | the same, and read for the gradient of W_hh |
| activations and cells, a position | | 5H * b written, read again |
| rows projected (float input: N; tokens: U in training) | read width * b, written 4H * 4 | the same |
| gradients of their gates | | 4H * 4 written, read for both products |
| the rows, read again, and their gradient | | 2 * width * b |
| the embedding's gradient | | V * E * b |
| ids | 8 a position | the same |

The kernels move more than that where it costs no time beside the arithmetic: a chunk's gradients of the gates, max(128,
H) positions, are written, read for W_hh and, of tokens, added to their rows while they are in the cache; and the
gradient of W_hh is read and written once for 64 positions, whose 128 operations a number outweigh the 8 bytes.
"""

_BOUND = """\
The time that follows is the longest of three: operations at the peak of PyTorch's products, W_hh's bytes at the rate of
the cache that holds 4H * H * b, all other bytes at that of a cache of their size, or of the memory where they are more
than 16 MiB. It leaves out that a step cannot begin before the one before it has ended: with one row (B=1) it is that,
more than any of the three, which is waited for.

The last column is that time divided by the time measured: 100 % is what the machine can do. A little more says that the
arithmetic units were kept busier than those keep them."""


@dataclass(frozen=True)
class Bound:
    """The least time that a row could have taken, in seconds, and by which of the three."""

    seconds: float
    by: str


def bound(work: Work, peaks: Peaks) -> Bound:
    """The longest of the times that arithmetic, W_hh and all other bytes need."""
    in_cache = work.streamed_bytes <= max(peaks.cache)
    rate = peaks.cache_rate(work.streamed_bytes) if in_cache else peaks.memory
    times = {
        "operations": sum(count / peaks.operations[dtype] for dtype, count in work.operations.items()),
        "W_hh": work.weight_bytes / peaks.cache_rate(work.weight_size),
        "other bytes": work.streamed_bytes / rate,
    }
    by = max(times, key=lambda name: times[name])
    return Bound(times[by], by)


def find_peaks(report: dict[str, Any]) -> Peaks | None:
    """The report's own; of an older one, which has none, those of now, if this can be its machine.

    That is where the kernels are the same, and nothing is said in the report of why there are none.
    """
    if "peaks" in report:
        return read_peaks(report["peaks"])
    if cpu_isa() != report["machine"]["kernels"] or PEAKS in report["unmeasured"]:
        return None
    torch.set_num_threads(int(report["machine"]["threads"]))
    return measure_peaks()


def render(report: dict[str, Any], peaks: Peaks | None, picture: str) -> str:
    """The page, in Markdown.

    Args:
        report: as `report.make_report` makes it.
        peaks: of the machine that the report is from. Without them the page has no times that follow from them.
        picture: the name of the file with it, beside the page.
    """
    rows, machine = read_rows(report), report["machine"]
    kernels = machine["kernels"]
    parts = [
        "# Performance",
        "Written by `python -m benchmarks.roofline` from the recorded benchmark; do not edit by hand.",
        f"Measured at commit {report['commit']}, {report['date']}, by `{report['command']}`, "
        f"on {report['cores']} cores: "
        + ", ".join(f"{name} {value}" for name, value in machine.items())
        + ". Times are medians of rounds in turns; a ratio is the peer's amount divided by ours, above 1 where ours is "
        "faster or smaller. Nothing here is a GPU figure.",
        f"![Ratios beside their targets]({picture})",
        "## Targets",
        _targets(judge(rows), rows),
    ]
    parts += [f"- {cell}: not measured: {why}" for cell, why in report["unmeasured"].items()]
    parts += [
        "## What the machine can do",
        _peaks(peaks) if peaks else "The machine's peaks were not measured with this record, so no least times follow.",
        "## How the work is counted",
        _formulas(kernels),
        *(("## Measured against what is possible", _BOUND) if peaks else ("## The work that was measured",)),
    ]
    for section, title in TITLES.items():
        found = [row for row in rows if row.section == section]
        shaped = [row for row in found if row.shape is not None]
        if shaped:
            parts += [f"### {title}", _roofline(shaped, peaks, kernels)]
    parts.append("## Every measurement")
    for section, title in TITLES.items():
        found = [row for row in rows if row.section == section]
        if found:
            parts += [f"### {title}", _measurements(found)]
            parts += [f"{name}: {note}" for name, note in cell_notes(rows, section).items()]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines))


def _targets(verdicts: Sequence[Verdict], rows: Sequence[Row]) -> str:
    units = {row.cell: row.unit for row in rows}
    lines = []
    for v in verdicts:
        target = v.target
        what = target.cell or describe(v)
        amount = f"{v.measured:.2f}x" if target.peer else show(v.measured, units[str(target.cell)])
        wanted = str(target) if target.peer else f"{target} {units[str(target.cell)]}"
        lines.append([what, target.mode, target.peer or "", amount, wanted, "yes" if v.met else "no"])
    reached = sum(v.met for v in verdicts)
    table = _table(("cell", "mode", "peer", "measured", "target", "reached"), lines)
    return f"{reached} of the {len(verdicts)} targets that were measured are reached.\n\n{table}"


def _peaks(peaks: Peaks) -> str:
    lines = [
        [f"{dtype}, product of 1024 x 1024 matrices", f"{rate / 1e9:.0f} G operations/s"]
        for dtype, rate in peaks.operations.items()
    ]
    lines += [
        [f"{size // 2**10} KiB read again and again by each thread", f"{rate / 1e9:.0f} GB/s"]
        for size, rate in peaks.cache.items()
    ]
    lines.append(["256 MiB copied, bytes read and written", f"{peaks.memory / 1e9:.0f} GB/s"])
    threads = f"{peaks.threads} threads together" if peaks.threads > 1 else "one thread"
    return f"On {threads}, measured {peaks.date}, each the best of many tries.\n\n" + _table(("", "rate"), lines)


def _formulas(kernels: str) -> str:
    count = INSTRUCTIONS[kernels]
    return _FORMULAS.format(
        kernels=kernels,
        forward=count.forward,
        saving=count.saving,
        backward=count.backward,
        int8=f"{count.int8_product:g}",
    ).rstrip()


def _roofline(rows: Sequence[Row], peaks: Peaks | None, kernels: str) -> str:
    head = ["cell", "mode", "M operations", "MB of W_hh", "MB otherwise", "measured"]
    if peaks:
        head += ["time that follows", "quotient"]
    lines = []
    for row in rows:
        assert row.shape is not None
        work = count_work(row.shape, row.mode == "training", row.positions, row.distinct, kernels)
        amounts = (sum(work.operations.values()), work.weight_bytes, work.streamed_bytes)
        line = [row.cell, row.mode, *(f"{amount / 1e6:.1f}" for amount in amounts), show(row.ours, row.unit)]
        if peaks:
            limit = bound(work, peaks)
            line += [f"{limit.seconds * 1e3:.3f} ms, {limit.by}", f"{limit.seconds / row.ours:.0%}"]
        lines.append(line)
    return _table(head, lines)


def _measurements(rows: Sequence[Row]) -> str:
    head = ("cell", "mode", "peer", "ours", "peer's", "ratio", "target", "reached")
    return _table(head, [line for row in rows for line in table_lines(row)])


def main(arguments: Sequence[str]) -> None:
    """Reads the report, writes the page."""
    source = Path(arguments[0]) if arguments else RESULTS
    page = Path(arguments[1]) if len(arguments) > 1 else document(source, ".md")
    report = json.loads(source.read_text(encoding="utf-8"))
    page.write_text(render(report, find_peaks(report), page.with_suffix(".png").name), encoding="utf-8")
    print(f"written: {page}")


if __name__ == "__main__":
    main(sys.argv[1:])
