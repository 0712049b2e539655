"""Clients that take their time, with both of uvicorn's ways of reading HTTP."""

from __future__ import annotations

import asyncio
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


@pytest.fixture(params=["httptools", "h11"])
def protocol(request: Any, monkeypatch: pytest.MonkeyPatch) -> type[asyncio.Protocol]:
    base: Any = H11Protocol
    if request.param == "httptools":
        base = pytest.importorskip("uvicorn.protocols.http.httptools_impl").HttpToolsProtocol
    monkeypatch.setattr(connection, "AutoHTTPProtocol", base)
    return connection.connection_class(Limits(connections=2, arrival_seconds=SECONDS))


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers after longer than clients have; at once, and with more than can be on its way, if that is asked for."""
    body = b"late"
    if scope["path"] == "/long":
        body = b" " * 2**26
    else:
        await asyncio.sleep(1.5 * SECONDS)
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def play(
    protocol: type[asyncio.Protocol],
    scene: Callable[[set[Any], Callable[[], Coroutine[Any, Any, Any]]], Coroutine[Any, Any, None]],
) -> None:
    """The scene is told the server's connections, and how to open one."""

    async def run() -> None:
        config = uvicorn.Config(app, http=protocol, lifespan="off")
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
def test_the_client_is_waited_for(protocol: type[asyncio.Protocol], sent: bytes) -> None:
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

    play(protocol, scene)


def test_bytes_that_come_are_no_excuse(protocol: type[asyncio.Protocol]) -> None:
    async def scene(connections: set[Any], connect: Any) -> None:
        _, writer = await connect()
        writer.write(REQUEST[:-2])
        while not connections:
            await asyncio.sleep(0.01)
        while connections:
            writer.write(b"a: b\r\n")
            await asyncio.sleep(0.01)
        writer.transport.abort()

    play(protocol, scene)


def test_the_server_may_take_its_time(protocol: type[asyncio.Protocol]) -> None:
    async def scene(connections: set[Any], connect: Any) -> None:
        reader, writer = await connect()
        for _ in range(2):
            writer.write(REQUEST[:20])
            await asyncio.sleep(0.01)
            writer.write(REQUEST[20:])
            assert (await reader.readuntil(b"late")).startswith(b"HTTP/1.1 200")
        writer.close()

    play(protocol, scene)


def test_more_than_may_are_refused(protocol: type[asyncio.Protocol]) -> None:
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

    play(protocol, scene)
