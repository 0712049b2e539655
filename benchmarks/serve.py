"""How fast `textclf-fast serve` answers: `python -m benchmarks.serve`.

64 connections on the loopback, each asking for one sentence of rt at a time, from a process of their own. First a
closed loop: whoever is answered asks again; that gives the peak rate. Then an open loop at a share of it: requests
come at random moments (a Poisson process) whether or not the ones before them are answered, and each is timed from the
moment when it was due, so that a server that falls behind is not spared.

Rounds of both: a shared machine changes its speed by half within minutes, and the rate that was 70 % of its peak in one
second is more than all of it in another. The latencies given are the median round's; the record has all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

from benchmarks.record import Goal, percentiles, write_record
from benchmarks.trained import write_model

_WARM_UP_SECONDS = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak-seconds", type=float, default=5, help="of a round's closed loop")
    parser.add_argument("--seconds", type=float, default=30, help="of a round's open loop")
    parser.add_argument("--share", type=float, default=0.7, help="of the peak rate, in the open loop")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="of `textclf-fast serve`")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/serve.json"))
    parser.add_argument("--load", help=argparse.SUPPRESS)  # in the process that asks: what to do, as JSON
    arguments = parser.parse_args()
    if arguments.load is not None:
        gc.disable()  # a collection takes a tenth of a second here, for torch is imported: that is not the server's
        print(json.dumps(asyncio.run(_Load(**json.loads(arguments.load)).run())))
        return
    with tempfile.TemporaryDirectory() as folder:
        texts = write_model(Path(folder) / "model").texts
        (Path(folder) / "texts.json").write_text(json.dumps(texts[:1000]))
        common = {"texts": str(Path(folder) / "texts.json"), "connections": arguments.connections}
        command = [sys.executable, "-m", "textclf_fast", "serve", str(Path(folder) / "model"), "--port", "0"]
        server = subprocess.Popen([*command, *arguments.options], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            common["port"] = int(server.stdout.readline().rpartition(":")[2])
            _ask({**common, "seconds": _WARM_UP_SECONDS})
            rounds = []
            for _ in range(arguments.rounds):
                closed = _ask({**common, "seconds": arguments.peak_seconds})
                opened = _ask({**common, "seconds": arguments.seconds, "rate": arguments.share * closed["rate"]})
                rounds.append({"closed": closed, "open": opened})
        finally:
            server.terminate()
            server.wait()
    goals = [
        Goal("errors", sum(loop["errors"] for each in rounds for loop in each.values()), 0),
        Goal(f"p99 at {arguments.share:.0%} of the peak rate, ms", _median(rounds, "open", "p99_ms"), 20),
    ]
    versions = {name: _version(name) for name in ("uvicorn", "starlette", "h11", "httptools", "uvloop")}
    measured = {"rounds": rounds, "exit_status": server.returncode, "server": versions}
    write_record(arguments.out, "benchmarks.serve", goals, measured)
    peak, p50 = _median(rounds, "closed", "rate"), _median(rounds, "open", "p50_ms")
    each = ", ".join(f"{one['open']['p99_ms']:.1f}" for one in rounds)
    print(f"peak {peak:.0f} requests a second; open loop p50 {p50:.2f} ms, p99 of the rounds {each} ms")


def _median(rounds: list[dict[str, dict[str, Any]]], loop: str, what: str) -> float:
    return statistics.median(one[loop][what] for one in rounds)


def _ask(load: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.serve", "--load", json.dumps(load)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


class _Load:
    """Asks for some seconds.

    Args:
        texts: a file of JSON, the texts to ask about.
        port: of the server.
        connections, seconds: how many, how long.
        rate: requests a second of an open loop; None: a closed one.
    """

    def __init__(self, texts: str, port: int, connections: int, seconds: float, rate: float | None = None) -> None:
        bodies = [json.dumps({"text": text}).encode() for text in json.loads(Path(texts).read_text())]
        head = (
            "POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        )
        self._requests = [(head % len(body)).encode() + body for body in bodies]
        self._port = port
        self._connections = connections
        self._seconds = seconds
        self._rate = rate
        self._random = random.Random(0)
        self._idle: deque[_Connection] = deque()
        self._due: deque[float] = deque()  # when the requests that no connection has yet should have been sent
        self._found: list[float] = []
        self._statuses: Counter[str] = Counter()
        self._sent = 0
        self._end = 0.0

    async def run(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        for _ in range(self._connections):
            await loop.create_connection(lambda: _Connection(self._answered, self._lost), "127.0.0.1", self._port)
        # (Each has reported itself as idle by now.)
        begin, cpu = time.perf_counter(), time.process_time()
        self._end = begin + self._seconds
        if self._rate is None:
            for connection in list(self._idle):
                self._send(connection, time.perf_counter())
            await asyncio.sleep(self._seconds)
        else:
            await self._open_loop(begin)
        await self._drain()
        seconds = self._end - begin
        good = self._statuses["200"]
        return {
            "connections": self._connections,
            "seconds": seconds,
            "asked_rate": self._rate,
            "rate": good / seconds,
            "requests": self._sent,
            "errors": self._sent - good,
            "cores_of_the_asking": (time.process_time() - cpu) / seconds,
            "statuses": dict(self._statuses),
            **percentiles(self._found),
        }

    async def _open_loop(self, begin: float) -> None:
        due = begin
        while True:
            due += self._random.expovariate(self._rate or 1)
            if due >= self._end:
                return
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            if self._idle:
                self._send(self._idle.popleft(), due)
            else:
                self._due.append(due)

    async def _drain(self) -> None:
        """Waits for what has been asked, but not for ever."""
        limit = time.perf_counter() + 10
        while len(self._found) + self._statuses["lost"] < self._sent and time.perf_counter() < limit:
            await asyncio.sleep(0.01)

    def _send(self, connection: _Connection, due: float) -> None:
        connection.send(self._requests[self._sent % len(self._requests)], due)
        self._sent += 1

    def _answered(self, connection: _Connection, status: str | None, due: float) -> None:
        now = time.perf_counter()
        if status is not None:
            self._found.append(now - due)
            self._statuses[status] += 1
        if self._due:
            self._send(connection, self._due.popleft())
        elif status is not None and self._rate is None and now < self._end:
            self._send(connection, now)
        else:
            self._idle.append(connection)

    def _lost(self) -> None:
        self._statuses["lost"] += 1


class _Connection(asyncio.Protocol):
    """One HTTP connection that is kept; it has one request at a time.

    Args:
        answered: is told the status and when the request was due; and once, of no status, that it is connected.
        lost: is told that it was closed before an answer.
    """

    def __init__(self, answered: Any, lost: Any) -> None:
        self._answered = answered
        self._lost = lost
        self._received = b""
        self._due: float | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._answered(self, None, 0.0)

    def send(self, request: bytes, due: float) -> None:
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) >= length and self._due is not None:
            due, self._due, self._received = self._due, None, b""
            self._answered(self, head[9:12].decode(), due)

    def connection_lost(self, error: Exception | None) -> None:
        if self._due is not None:
            self._due = None
            self._lost()


if __name__ == "__main__":
    main()
