"""Makes docs/compatibility.md out of the tests that carry ``@pytest.mark.compat``: ``python tests/compatibility.py``.

The rows, and the differences at the end, are what the marks in the tests' text say; the columns are what running the
tests says: a test that takes the fixture ``lstm_class`` runs on nn.LSTM as well, and where its mark has ``nn_lstm``
nn.LSTM is expected to fail, with that for a reason.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "compatibility.md"

INTRODUCTION = """# nn.LSTM beside FusedLSTM

Made by `make compatibility` from the tests marked `compat` (torch {torch}, on the CPU): each row is a test that passes.

- *yes*: the test ran on this class and passed; *no*: it ran, and failed as expected.
- *the same*: the test compares the two classes.
- *not run*: skipped on the machine that made the page.
- Anything else under nn.LSTM is what is known of it, not run here.
"""


class Mark(NamedTuple):
    """One ``compat`` mark, and the file that it is in, relative to the tests."""

    area: str
    behaviour: str
    nn_lstm: str | None
    difference: str | None
    file: str


def read_marks(tests: Path) -> list[Mark]:
    """The marks in the text of the tests: whatever is installed, and whatever is skipped.

    Raises:
        ValueError: a mark that is not made of literals.
    """
    marks = []
    for file in sorted(tests.rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.compat":
                try:
                    area, behaviour = (ast.literal_eval(argument) for argument in node.args)
                    options = {str(word.arg): ast.literal_eval(word.value) for word in node.keywords}
                except ValueError as error:
                    raise ValueError(
                        f"{file}:{node.lineno}: compat: expected two literals, area and behaviour"
                    ) from error
                place = file.relative_to(tests).as_posix()
                marks.append(Mark(area, behaviour, options.get("nn_lstm"), options.get("difference"), place))
    return sorted(marks, key=lambda mark: (mark.area.lower(), mark.behaviour.lower()))


class Outcomes:
    """A pytest plugin: how the tests of each row went, by class."""

    def __init__(self) -> None:
        self.of: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        report = yield
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        tested = parameters["lstm_class"].__name__ if "lstm_class" in parameters else "FusedLSTM"
        if report.when == "call" or report.outcome != "passed":
            outcome = "no" if hasattr(report, "wasxfail") else report.outcome
            if outcome == "skipped":
                outcome = report.longrepr[2].replace("Skipped", "not run", 1)
            for mark in item.iter_markers("compat"):
                self.of[mark.args[0], mark.args[1]][tested].add(outcome)
        return report


def _cell(outcomes: set[str], why_not: str | None) -> str:
    if "no" in outcomes:
        return f"no: {why_not}"
    return "yes" if "passed" in outcomes else min(outcomes, default="not run")


def page(marks: list[Mark], outcomes: Outcomes) -> str:
    """The text of the page."""
    lines = [INTRODUCTION.format(torch=version("torch").partition("+")[0])]
    areas = defaultdict(list)
    for mark in marks:
        areas[mark.area].append(mark)
    for area, rows in areas.items():
        lines += [
            f"## {area[:1].upper()}{area[1:]}",
            "",
            "| behaviour | nn.LSTM | FusedLSTM | test |",
            "|---|---|---|---|",
        ]
        for mark in rows:
            found = outcomes.of[mark.area, mark.behaviour]
            theirs = _cell(found["LSTM"], mark.nn_lstm) if "LSTM" in found else mark.nn_lstm or "the same"
            test = f"[{Path(mark.file).stem}](../tests/{mark.file})"
            cells = [mark.behaviour, theirs, _cell(found["FusedLSTM"], None), test]
            lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
        lines.append("")
    lines += ["## Known differences, with reasons", ""]
    lines += [f"- {mark.area}, {mark.behaviour}: {mark.difference}" for mark in marks if mark.difference]
    return "\n".join(lines) + "\n"


def names(text: str) -> list[str]:
    """What of a page its marks decide: areas, behaviours and differences."""
    behaviours = re.findall(r"^\| ((?:[^|\\]|\\.)+) \|", text, re.MULTILINE)
    return re.findall(r"^## .*$|^- .*$", text, re.MULTILINE) + behaviours


def main(tests: Path, to: Path) -> int:
    """Runs the marked tests and writes the page; leaves it alone where a test fails."""
    marks, outcomes = read_marks(tests), Outcomes()
    code = pytest.main(["-m", "compat", "-q", str(tests)], plugins=[outcomes])
    if code == 0:
        to.write_text(page(marks, outcomes))
    return int(code)


if __name__ == "__main__":
    sys.exit(main(TESTS, PAGE))
