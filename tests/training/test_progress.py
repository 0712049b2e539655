from __future__ import annotations

import io
import re

from rich.console import Console

from textclf_fast.training import Step
from textclf_fast.training.progress import TrainingProgress


def shown(terminal: bool) -> str:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=100)
    with TrainingProgress(2, 10, console) as progress:
        for step in range(15):
            progress.on_step(Step(step // 10, step % 10, loss=0.5, tokens=100, seconds=0.01))
            progress._progress.refresh()
        console.print("a line")
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())


def test_says_where_the_training_is() -> None:
    text = shown(terminal=True)
    last = [line for line in re.split(r"[\r\n]", text) if "epoch" in line][-1]
    assert "epoch 2/2" in last
    assert "75%" in last
    assert "loss 0.5000" in last  # the averages do not start at 0
    assert "10,000 tokens/s" in last
    assert re.search(r"\d:\d\d", last)
    assert "a line" in text


def test_silent_where_there_is_no_terminal() -> None:
    assert shown(terminal=False).strip() == "a line"
