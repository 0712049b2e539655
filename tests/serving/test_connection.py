"""Clients that take their time, with both of uvicorn's ways of reading HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from textclf_fast.serving import Limits, connection
from textclf_fast.serving.server import listen

REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
SECONDS = 1
HEAD_BYTES = 1000


@pytest.fixture(params=["httptools", "h11"])
def options(request: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Of uvicorn."""
    base: Any = H11Protocol
    if request.param == "httptools":
        base = pytest.importorskip("uvicorn.protocols.http.httptools_impl").HttpToolsProtocol
    monkeypatch.setattr(connection, "AutoHTTPProtocol", base)
    return connection.connection_options(Limits(connections=2, arrival_seconds=SECONDS, head_bytes=HEAD_BYTES))


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers after longer than clients have; at once, or with more than can be on its way, if that is asked for."""
    body = b"late"
    if scope["path"] == "/long":
        body = b" " * 2**26
    elif scope["path"] != "/now":
        await asyncio.sleep(1.5 * SECONDS)
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def play(
    options: dict[str, Any],
    scene: Callable[[set[Any], Callable[[], Coroutine[Any, Any, Any]]], Coroutine[Any, Any, None]],
) -> None:
    """The scene is told the server's connections, and how to open one."""

    async def run() -> None:
        config = uvicorn.Config(app, lifespan="off", **options)
        config.load()
        state = ServerState()
        make: Any = config.http_protocol_class
        with listen("127.0.0.1", 0) as listener:
            await asyncio.get_running_loop().create_server(
                lambda: make(config=config, server_state=state, app_state={}), sock=listener
            )
            await scene(state.connections, lambda: asyncio.open_connection(*listener.getsockname()))

    asyncio.run(asyncio.wait_for(run(), 60))


@pytest.mark.parametrize("sent", [b"", REQUEST[:20], b"GET /long HTTP/1.1\r\nhost: a\r\n\r\n"])
def test_the_client_is_waited_for(options: dict[str, Any], sent: bytes) -> None:
    """For a request, for the rest of its head, and for it to take the answer."""

    async def scene(connections: set[Any], connect: Any) -> None:
        begin = asyncio.get_running_loop().time()
        _, writer = await connect()
        writer.transport.pause_reading()
        writer.write(sent)
        while not connections:
            await asyncio.sleep(0.01)
        while connections:
            await asyncio.sleep(0.01)
        assert asyncio.get_running_loop().time() - begin > 0.9 * SECONDS
        writer.transport.abort()

    play(options, scene)


def test_bytes_that_come_are_no_excuse(options: dict[str, Any]) -> None:
    async def scene(connections: set[Any], connect: Any) -> None:
        _, writer = await connect()
        writer.write(REQUEST[:-2])
        while not connections:
            await asyncio.sleep(0.01)
        while connections:
            writer.write(b"a: b\r\n")
            await asyncio.sleep(0.01)
        writer.transport.abort()

    play(options, scene)


def test_the_server_may_take_its_time(options: dict[str, Any]) -> None:
    async def scene(connections: set[Any], connect: Any) -> None:
        reader, writer = await connect()
        for _ in range(2):
            writer.write(REQUEST[:20])
            await asyncio.sleep(0.01)
            writer.write(REQUEST[20:])
            assert (await reader.readuntil(b"late")).startswith(b"HTTP/1.1 200")
        writer.close()

    play(options, scene)


def test_more_than_may_are_refused(options: dict[str, Any]) -> None:
    async def scene(connections: set[Any], connect: Any) -> None:
        first, second = await connect(), await connect()
        reader, writer = await connect()
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"\r\ncontent-length: %d\r\n" % len(body) in head
        assert body == b'{"error": "too many connections: try again in a second"}'
        first[1].close()
        while len(connections) > 1:
            await asyncio.sleep(0.01)
        reader, writer = await connect()
        writer.write(REQUEST)
        assert (await reader.readuntil(b"late")).startswith(b"HTTP/1.1 200")
        for _, each in (second, (reader, writer)):
            each.close()

    play(options, scene)


# ---- Heads that are too large ----


def padded(line: bytes, size: int) -> bytes:
    """A head of so many bytes."""
    end = b"\r\nhost: a\r\nx: %s\r\n\r\n"
    return line + end % (b"a" * (size - len(line) - len(end) + 2))


async def status_of(reader: asyncio.StreamReader) -> int:
    """Of the next answer, which is read."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.split(b": ") for line in head.split(b"\r\n")[1:-2])
    await reader.readexactly(int(fields.get(b"content-length", 0)))
    return int(head.split()[1])


@pytest.mark.parametrize("pieces", [1, 7])
def test_a_large_head_is_refused(options: dict[str, Any], pieces: int) -> None:
    """From the first byte on that is too much, however it comes; and what is not too much is answered."""
    if options["http"].__base__ is H11Protocol:
        pytest.skip("h11 looks at how much waits for the rest of its head")

    async def scene(connections: set[Any], connect: Any) -> None:
        reader, writer = await connect()
        for size, status in ((HEAD_BYTES, 200), (HEAD_BYTES, 200), (HEAD_BYTES + 1, 431)):
            head = padded(b"GET /now HTTP/1.1", size)
            for piece in range(pieces):
                writer.write(head[size * piece // pieces : size * (piece + 1) // pieces])
                await asyncio.sleep(0.01)
            assert await status_of(reader) == status
        assert await reader.read() == b"", "it is closed"
        writer.close()

    play(options, scene)


@pytest.mark.parametrize("start", [b"GET /now HTTP/1.1\r\nx: ", b"GET /now?"])
def test_a_head_without_end_is_refused(options: dict[str, Any], start: bytes) -> None:
    async def scene(connections: set[Any], connect: Any) -> None:
        reader, writer = await connect()
        writer.write(start)
        answer = asyncio.ensure_future(status_of(reader))
        while not answer.done():
            writer.write(b"a" * 100)
            await asyncio.sleep(0.001)
        assert await answer == (400 if options["http"].__base__ is H11Protocol else 431)
        writer.transport.abort()

    play(options, scene)


def test_the_refusal_is_seen_by_who_still_sends(options: dict[str, Any]) -> None:
    """A connection that is closed with bytes unread is reset, and what was sent to the client before is lost."""
    if options["http"].__base__ is H11Protocol:
        pytest.skip("h11's refusal is uvicorn's")

    async def scene(connections: set[Any], connect: Any) -> None:
        reader, writer = await connect()
        writer.write(padded(b"GET /now HTTP/1.1", 2**23))
        await writer.drain()
        assert await status_of(reader) == 431
        while connections:  # who goes on sending is not listened to for ever
            writer.write(b"a")
            await asyncio.sleep(0.01)
        writer.transport.abort()

    play(options, scene)


def test_bodies_and_further_requests_are_no_heads(options: dict[str, Any]) -> None:
    """A body, of which the answer does not wait for the end, and many requests that come at once."""

    async def scene(connections: set[Any], connect: Any) -> None:
        reader, writer = await connect()
        writer.write(b"POST /now HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (10 * HEAD_BYTES))
        for _ in range(10):
            writer.write(b"a" * HEAD_BYTES)
            await asyncio.sleep(0.01)
        count = HEAD_BYTES // 10
        writer.write(REQUEST.replace(b"/", b"/now", 1) * count)
        for _ in range(1 + count):
            assert await status_of(reader) == 200
        writer.close()

    play(options, scene)


def test_a_large_head_behind_a_request_that_is_not_answered_yet(options: dict[str, Any]) -> None:
    async def scene(connections: set[Any], connect: Any) -> None:
        reader, writer = await connect()
        writer.write(REQUEST)
        await asyncio.sleep(0.01)
        with contextlib.suppress(ConnectionError):
            writer.write(padded(b"GET /now HTTP/1.1", 2 * HEAD_BYTES)[:-2])
            answer = await reader.read()
            assert b" 431 " not in answer, "which the client would take for the first one's"
        while connections:
            await asyncio.sleep(0.01)
        writer.transport.abort()

    play(options, scene)
