"""What one server takes at most."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """How much is taken at once.

    Attributes:
        head_bytes: of a request: its first line and its headers.
        body_bytes: of a request.
        texts: of a request.
        explained_texts: of a request that asks for the words that mattered: each costs as much as a training step.
        text_characters: of a text.
        batch_texts: that the model gets in one call.
        queued_texts: that wait for the model, of all requests.
        window_seconds: how long a text waits for others, to be one batch with them.
        connections: that are open at once.
        arrival_seconds: for the head of a request to arrive, for its body after that, and for the answer to be taken.

    Raises:
        ValueError: a limit below 1, a window below 0 or without an end, or a queue that is too short for one request.
    """

    head_bytes: int = 2**16
    body_bytes: int = 2**20
    texts: int = 256
    explained_texts: int = 8
    text_characters: int = 20_000
    batch_texts: int = 256
    queued_texts: int = 2_048
    window_seconds: float = 0.001
    connections: int = 512  # with what else is open fewer than the 1024 files that a process may commonly have
    arrival_seconds: float = 30.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name == "window_seconds" else 1
            if not least <= value < math.inf:
                raise ValueError(f"{field.name}: expected a finite number of at least {least}, got {value}")
        if self.queued_texts < self.texts:
            raise ValueError(
                f"queued_texts: expected at least {self.texts}, the texts of one request, got {self.queued_texts}"
            )
