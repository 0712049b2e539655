"""Ctrl-C and the like, between two steps instead of in the middle of one."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopSignals:
    """While it is entered, SIGINT and SIGTERM only leave a note, for :meth:`stop`; a second SIGINT acts at once.

    In other threads than the main one, which have no signals, it does nothing.

    Attributes:
        asked: the signal that has come, 0 where none has.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = number

    def stop(self) -> None:
        """Ends as the signal would have.

        Raises:
            KeyboardInterrupt: after SIGINT, or where another process has had a signal.
            SystemExit: after SIGTERM, with the status 143, as shells have it.
        """
        if self.asked == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt
