"""The error of bad data."""

from __future__ import annotations


class DataError(ValueError):
    """Data that cannot be used. The message is one line, meant for the person who has the data."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
