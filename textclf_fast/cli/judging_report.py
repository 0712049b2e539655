"""What is said about models, for people to read."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from textclf_fast.cli.judged import JudgedTexts
from textclf_fast.judging.judgement import Judgement


def print_judgement(judgement: Judgement, record: dict[str, Any], texts: JudgedTexts) -> None:
    """The numbers, a line for each class, and the notes."""
    print(f"{record['data']} ({texts.part}): {len(judgement):,} texts")
    print(
        f"accuracy {judgement.accuracy:.2%} (so is micro-F1), macro-F1 {judgement.macro_f1:.4f}, "
        f"cross-entropy {judgement.loss:.4f}"
    )
    before = record.get("calibration_error_before")
    print(
        f"expected calibration error {judgement.calibration_error:.4f}"
        + ("" if before is None else f" ({before:.4f} without the temperature, {record['temperature']:.3g})")
    )
    if "roc_area" in record:
        print(
            f"finding {judgement.labels[1]!r}: area under the ROC curve {record['roc_area']:.4f}, "
            f"average precision {record['average_precision']:.4f}"
        )
    table = table_of("class", "precision", "recall", "F1", "texts")
    for score in judgement.classes:
        numbers = (decimals(number) for number in (score.precision, score.recall, score.f1))
        table.add_row(Text(" ".join(score.label.split())), *numbers, f"{score.support:,}")
    Console().print(table)
    for note in texts.notes:
        print(f"note: {note}")


def table_of(first: str, *others: str) -> Table:
    """An empty table: names in its first column, numbers in the others."""
    table = Table()
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def decimals(number: float | None) -> str:
    """Four of them; a dash where nothing tells."""
    return "-" if number is None else f"{number:.4f}"
