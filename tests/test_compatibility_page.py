"""docs/compatibility.md, and the script that makes it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import compatibility
import pytest

EXAMPLE = """
import pytest


class LSTM: ...
class FusedLSTM: ...


@pytest.fixture(params=[LSTM, FusedLSTM])
def lstm_class(request):
    for mark in request.node.iter_markers("compat"):
        if request.param is LSTM and mark.kwargs.get("nn_lstm"):
            request.applymarker(pytest.mark.xfail(strict=True, reason=mark.kwargs["nn_lstm"]))
    return request.param


@pytest.mark.compat("one", "both do", difference="none to speak of")
def test_both(lstm_class): ...


@pytest.mark.compat("one", "ours | alone", nn_lstm="crashes")
@pytest.mark.parametrize("x", [1, 2])
def test_ours(lstm_class, x):
    assert lstm_class is FusedLSTM


@pytest.mark.compat("two", "told", nn_lstm="is told of")
def test_told(): ...


@pytest.mark.compat("two", "compared")
def test_compared(): ...


@pytest.mark.compat("two", "skipped")
def test_skipped():
    pytest.skip("not today")
"""
ROWS = r"""
## One

| behaviour | nn.LSTM | FusedLSTM | test |
|---|---|---|---|
| both do | yes | yes | [test_example](../tests/test_example.py) |
| ours \| alone | no: crashes | yes | [test_example](../tests/test_example.py) |

## Two

| behaviour | nn.LSTM | FusedLSTM | test |
|---|---|---|---|
| compared | the same | yes | [test_example](../tests/test_example.py) |
| skipped | the same | not run: not today | [test_example](../tests/test_example.py) |
| told | is told of | yes | [test_example](../tests/test_example.py) |

## Known differences, with reasons

- one, both do: none to speak of
"""
RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import compatibility
tests = Path(sys.argv[2])
sys.exit(compatibility.main(tests, tests / "page.md"))
"""


def _make(tests: Path) -> subprocess.CompletedProcess[str]:
    (tests / "pytest.ini").write_text("[pytest]\nmarkers = compat: of a page\n")
    command = [sys.executable, "-c", RUN, str(compatibility.TESTS), str(tests)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_page_is_made_of_marks_and_outcomes(tmp_path: Path) -> None:
    (tmp_path / "test_example.py").write_text(EXAMPLE)
    made = _make(tmp_path)
    assert made.returncode == 0, made.stdout
    assert (tmp_path / "page.md").read_text().endswith(ROWS)


def test_no_page_is_made_where_a_test_fails(tmp_path: Path) -> None:
    (tmp_path / "test_example.py").write_text(EXAMPLE.replace('pytest.skip("not today")', "assert False"))
    assert _make(tmp_path).returncode == 1
    assert not (tmp_path / "page.md").exists()


def test_marks_are_literals(tmp_path: Path) -> None:
    (tmp_path / "test_example.py").write_text('import pytest\nfor x in "ab":\n    pytest.mark.compat("one", x)\n')
    with pytest.raises(ValueError, match=re.escape("test_example.py:3: compat: expected two literals")):
        compatibility.read_marks(tmp_path)


def test_the_page_has_the_rows_of_the_tests() -> None:
    """Where this fails: make compatibility."""
    marks = compatibility.read_marks(compatibility.TESTS)
    wanted = compatibility.names(compatibility.page(marks, compatibility.Outcomes()))
    assert compatibility.names(compatibility.PAGE.read_text()) == wanted
    rows = [(mark.area, mark.behaviour) for mark in marks]
    assert len(set(rows)) == len(rows), "two marks of one name"
