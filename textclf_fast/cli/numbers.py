"""Checks of numbers that several sub-commands take."""

from __future__ import annotations

import math

import typer


def share(number: float) -> float:
    """Between 0 and 1."""
    if not 0 < number < 1:
        raise typer.BadParameter(f"expected a number between 0 and 1, got {number}")
    return number


def positive(number: float | None) -> float | None:
    """Above 0, or not given."""
    if number is not None and not (math.isfinite(number) and number > 0):
        raise typer.BadParameter(f"expected a positive number, got {number}")
    return number
