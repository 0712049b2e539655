"""The process: a socket, uvicorn, and how it ends."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from textclf_fast.serving.connection import connection_options
from textclf_fast.serving.limits import Limits

# A thread that wants the interpreter waits that long for one that is busy: Python's 5 ms, each time that the model's
# thread comes back from one of its kernels, would be most of the time of an answer.
_SWITCH_SECONDS = 1e-4
# After that, whoever has still not been answered is left; the same as what Docker and others wait before they kill.
_GRACE_SECONDS = 10


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; on a free port, if `port` is 0.

    Raises:
        OSError: the address is in use, none of this machine's, or not allowed; names it.
    """
    try:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048
        )
    except OSError as error:
        why = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise OSError(f"{host}:{port}: {why}") from error
    # What is accepted has it from here. uvloop sets it anyway; asyncio, which is there without uvloop, only where the
    # socket's protocol is named. uvicorn writes an answer in two parts, and the second would wait until the client
    # acknowledges the first: 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def address(listener: socket.socket) -> str:
    """As a browser takes it: http://127.0.0.1:8000."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: Starlette, listener: socket.socket, limits: Limits) -> None:
    """Answers until SIGTERM or SIGINT; what has been asked by then is answered first.

    Args:
        app: of :func:`make_app`.
        listener: of `listen`.
        limits: of the connections.

    Raises:
        SystemExit: of status 0, after SIGTERM.
        KeyboardInterrupt: after SIGINT.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.freeze()  # a collection goes through all of torch's modules: a tenth of a second, with everybody waiting
    # uvicorn raises the signal that stopped it once more when it is done. (A shell has what it starts in the background
    # ignore SIGINT; uvicorn does not, and neither does what comes after it.)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config = uvicorn.Config(
        app,
        **connection_options(limits),
        ws="none",  # which would be a connection without these limits
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody here asks who the client is
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listener])


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)
