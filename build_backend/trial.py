"""Runs a tool of the toolchain and reports what came of it in one line."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence


def run_tool(command: Sequence[str]) -> tuple[bool, str]:
    """Whether the command succeeded, and its output (stdout and stderr together)."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    except OSError as error:
        return False, f"{command[0]}: {error.strerror}"
    return done.returncode == 0, done.stdout


def first_complaint(output: str) -> str:
    """The line of a compiler's output that says what is wrong: the first with "error" or "fatal", else the first."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    complaints = [line for line in lines if re.search(r"error|fatal", line, re.IGNORECASE)]
    return (complaints or lines or ["no output"])[0]
