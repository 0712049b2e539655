"""Counters and histograms in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Histogram:
    """Counts values by their size.

    Args:
        bounds: the largest value of each bucket, rising; one more takes the rest.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Counts one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str) -> list[str]:
        """As Prometheus reads it: each bucket holds the smaller ones, too."""
        lines, total = [], 0
        for bound, count in zip([*map(str, self._bounds), "+Inf"], self._counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*lines, f"{name}_sum {self._sum:g}", f"{name}_count {total}"]


class Metrics:
    """What one server counts; for the event loop's thread alone."""

    def __init__(self) -> None:
        self.requests: Counter[int] = Counter()  # by HTTP status
        self.seconds = Histogram(_SECONDS)
        self.batches = Histogram(_TEXTS)

    def page(self, queued_texts: int) -> str:
        """All of it.

        Args:
            queued_texts: that wait now.
        """
        parts: list[tuple[str, str, str, list[str]]] = [
            (
                "textclf_requests_total",
                "counter",
                "Requests to /predict by HTTP status.",
                [f'textclf_requests_total{{status="{status}"}} {n}' for status, n in sorted(self.requests.items())],
            ),
            (
                "textclf_request_seconds",
                "histogram",
                "Seconds from a request to /predict to its answer.",
                self.seconds.lines("textclf_request_seconds"),
            ),
            (
                "textclf_batch_texts",
                "histogram",
                "Texts of each call of the model.",
                self.batches.lines("textclf_batch_texts"),
            ),
            (
                "textclf_queued_texts",
                "gauge",
                "Texts that wait for the model.",
                [f"textclf_queued_texts {queued_texts}"],
            ),
        ]
        lines = []
        for name, kind, what, values in parts:
            lines += [f"# HELP {name} {what}", f"# TYPE {name} {kind}", *values]
        return "\n".join(lines) + "\n"
