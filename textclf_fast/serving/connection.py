"""How many connections there are, and how long each one's client is waited for: uvicorn lets it take for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from textclf_fast.serving.limits import Limits

_FULL = b'{"error": "too many connections: try again in a second"}'
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: %d\r\nretry-after: 1\r\n"
    b"connection: close\r\n\r\n%s" % (len(_FULL), _FULL)
)


def connection_class(limits: Limits) -> type[asyncio.Protocol]:
    """What uvicorn makes one of for each connection."""

    class Connection(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # one of two classes
        """Ends without an answer where the head of a request, or the taking of an answer, lasts too long.

        (The app waits for the body. Between requests it is uvicorn that waits.)
        """

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._timer: asyncio.TimerHandle | None = None
            if len(self.connections) > limits.connections:
                transport.write(_REFUSAL)
                transport.close()
            else:
                self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._watch()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._watch()

        def connection_lost(self, error: Exception | None) -> None:
            super().connection_lost(error)
            self._stop()

        def _watch(self) -> None:
            """Starts the time where it is the client that is waited for, and else stops it."""
            if not (self.flow.write_paused or self.cycle is None or self.cycle.response_complete):
                self._stop()
            elif self._timer is None:
                self._timer = self.loop.call_later(limits.arrival_seconds, self.transport.abort)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Connection
