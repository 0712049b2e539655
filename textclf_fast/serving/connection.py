"""How many connections there are, how long each one's client is waited for, and how much of a head it may send.

uvicorn has no such limits, but for the last one where it reads HTTP with h11.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from textclf_fast.serving.limits import Limits

_FULL = "too many connections: try again in a second"


def connection_options(limits: Limits) -> dict[str, Any]:
    """What `uvicorn.Config` is told: a class, of which it makes one for each connection, and a limit of h11's."""

    class Connection(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # one of two classes
        """Ends without an answer where the head of a request, or the taking of an answer, lasts too long.

        (The app waits for the body. Between requests it is uvicorn that waits.)
        """

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._timer: asyncio.TimerHandle | None = None
            # How much of the head that is being read has come; None: a body is, or it is h11 that counts.
            self._head_bytes: int | None = 0 if hasattr(AutoHTTPProtocol, "on_headers_complete") else None
            self._refused = False
            if len(self.connections) > limits.connections:
                transport.write(_refusal("503 Service Unavailable", _FULL, "retry-after: 1\r\n"))
                transport.close()
            else:
                self._watch()

        def data_received(self, data: bytes) -> None:
            if self._refused:
                return
            if self._head_bytes is not None:
                data = self._read_head(data, limits.head_bytes - self._head_bytes)
            if data:
                super().data_received(data)
            self._watch()

        def _read_head(self, data: bytes, room: int) -> bytes:
            """Reads no more than a head may have; what is behind it, and may be anything."""
            self._head_bytes = limits.head_bytes - room + min(room, len(data))
            if room:
                super().data_received(data[:room])
            if self.transport.is_closing():
                return b""
            if len(data) > room and self._head_bytes == limits.head_bytes:  # neither over, nor another one
                self._refuse_head()
                return b""
            return data[room:]

        def _refuse_head(self) -> None:
            self._refused = True
            if not (self.cycle is None or self.cycle.response_complete):
                self.transport.abort()  # another request's answer would come first
                return
            message = f"head: expected at most {limits.head_bytes} bytes"
            self.transport.write(_refusal("431 Request Header Fields Too Large", message))
            # Closed now, the connection would be reset, and the client not see the answer, by what it still sends. It
            # is not read for longer than any head is.
            self.transport.write_eof()

        def on_headers_complete(self) -> None:
            """httptools' word that a head is over."""
            self._head_bytes = None
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            """httptools' word that a body is over, or that there is none."""
            self._head_bytes = 0
            super().on_message_complete()

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

    return {"http": Connection, "h11_max_incomplete_event_size": limits.head_bytes}


def _refusal(status: str, message: str, headers: str = "") -> bytes:
    body = json.dumps({"error": message})
    return (
        f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{headers}"
        f"connection: close\r\n\r\n{body}"
    ).encode()
