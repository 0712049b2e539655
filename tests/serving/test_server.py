"""A server in a process of its own."""

from __future__ import annotations

import http.client
import json
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from textclf_fast.cli.app import main
from textclf_fast.serving.server import listen

BODY = b'{"text": "a good film"}'


def head(header: str) -> bytes:
    return f"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n{header}\r\n\r\n".encode()


WHOLE_HEAD = head(f"content-length: {len(BODY)}")


def connect(server: Any) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=60)


def answered(connection: socket.socket) -> tuple[int, Any]:
    """The status and content of the answer."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, json.loads(response.read())


def test_many_at_once(start: Callable[..., Any], predictor: Any) -> None:
    """Each gets its own answer, and some share a batch."""
    server = start("--window-ms", "50")
    texts = [" ".join(["good"] * (number % 7) + ["bad"] * (number % 5)) for number in range(64)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda text: server.predict({"text": text}), texts))
    expected = predictor.predict_proba(texts)
    for (status, answer), row in zip(answers, expected.tolist(), strict=True):
        assert status == 200
        assert list(answer["probabilities"].values()) == pytest.approx(row, abs=1e-6)
    batches = [line for line in server.get("/metrics").splitlines() if line.startswith("textclf_batch_texts_count ")]
    assert int(batches[0].split()[1]) < len(texts)


def test_bad_requests_leave_it_up(start: Callable[..., Any]) -> None:
    server = start("--max-body", "1000", "--max-texts", "2", "--max-characters", "10")
    for content, status in (
        ({"text": "x" * 2000}, 413),
        ({"texts": ["a", "b", "c"]}, 422),
        ({"text": "x" * 11}, 422),
        (["good"], 422),
    ):
        assert server.predict(content)[0] == status
    for garbage in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # a browser that expects encryption
        b"GET / HTTP/9.9\r\n\r\n",
        head("content-length: 100") + BODY,  # and gone before the rest
        head("transfer-encoding: chunked") + b"zz\r\n",
        b"\x00" * 70_000,
    ):
        with connect(server) as connection:
            connection.sendall(garbage)
    assert server.predict({"text": "good"})[1]["label"] == "positive"
    assert server.process.poll() is None
    assert json.loads(server.get("/health"))["status"] == "ok"


def test_sigterm_answers_what_it_has(start: Callable[..., Any]) -> None:
    server = start("--window-ms", "1000")  # so that what is asked still waits when the signal comes
    with connect(server) as waiting, connect(server) as unfinished:
        waiting.sendall(WHOLE_HEAD + BODY)
        unfinished.sendall(WHOLE_HEAD + BODY[:5])
        while '"queued_texts": 1' not in server.get("/health"):
            pass
        server.process.send_signal(signal.SIGTERM)
        unfinished.sendall(BODY[5:])
        assert answered(waiting)[1]["label"] == "positive"
        assert answered(unfinished)[1]["label"] == "positive"
    out, err = server.process.communicate(timeout=120)
    assert (server.process.returncode, out, err) == (0, "", "")
    with pytest.raises(OSError, match="refused"):
        connect(server)


def test_ctrl_c(start: Callable[..., Any]) -> None:
    server = start()
    assert server.predict({"text": "good"})[0] == 200
    server.process.send_signal(signal.SIGINT)
    _, err = server.process.communicate(timeout=120)
    assert (server.process.returncode, err) == (130, "error: interrupted\n")


def test_a_full_queue(start: Callable[..., Any]) -> None:
    server = start("--window-ms", "2000", "--max-texts", "2", "--max-queue", "2")
    with connect(server) as waiting:
        waiting.sendall(WHOLE_HEAD + BODY)
        while '"queued_texts": 1' not in server.get("/health"):
            pass
        status, answer = server.predict({"texts": ["good", "bad"]})
        assert status == 503
        assert "too many texts wait" in answer["error"]
        assert answered(waiting)[0] == 200
    assert server.predict({"texts": ["good", "bad"]})[0] == 200


def test_a_body_that_does_not_come(start: Callable[..., Any]) -> None:
    """Or comes byte by byte."""
    server = start("--max-seconds", "1")
    with connect(server) as silent, connect(server) as slow:
        silent.sendall(WHOLE_HEAD + BODY[:5])
        slow.sendall(head("content-length: 1000000"))
        while not select.select([slow], [], [], 0.01)[0]:
            slow.sendall(b" ")
        for connection in (silent, slow):
            assert answered(connection) == (408, {"error": "body: expected all of it within 1 seconds"})
            connection.settimeout(1)
            assert connection.recv(1) == b"", "it is closed"
    assert 'textclf_requests_total{status="408"} 2\n' in server.get("/metrics")


def test_a_head_that_is_too_large(start: Callable[..., Any]) -> None:
    server = start("--max-head", "1000")
    with connect(server) as connection:
        connection.sendall(head(f"content-length: {len(BODY)}\r\nx: " + "a" * 2**20) + BODY)
        assert answered(connection) == (431, {"error": "head: expected at most 1000 bytes"})
    assert server.predict({"text": "good"})[0] == 200


def test_too_many_connections(start: Callable[..., Any]) -> None:
    server = start("--max-connections", "1")
    with connect(server) as first:
        first.sendall(WHOLE_HEAD + BODY)
        assert answered(first)[0] == 200
        with connect(server) as second:
            assert answered(second) == (503, {"error": "too many connections: try again in a second"})
        first.sendall(WHOLE_HEAD + BODY)
        assert answered(first)[0] == 200


def _truncated(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def _foreign(directory: Path) -> None:
    (directory / "config.json").write_text('{"format": "another"}')


def _pickled(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00cos\nsystem\n")


def _gone(directory: Path) -> None:
    shutil.rmtree(directory)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (_truncated, "model.safetensors: cannot be read"),
        (_pickled, "model.safetensors: cannot be read"),
        (_foreign, "config.json: not the configuration of a"),
        (_gone, "there is no such directory"),
    ],
)
def test_what_is_no_model(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], break_it: Callable[[Path], None], message: str
) -> None:
    directory = tmp_path / "model"
    shutil.copytree(model, directory)
    break_it(directory)
    assert main(["serve", str(directory), "--port", "0"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert "--int8" not in err, "which nobody gave"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "70000"], "--port"),
        (["--host", "256.1.1.1"], "256.1.1.1:8000: "),
        (["--max-queue", "5"], "queued_texts: expected at least 256"),
        (["--window-ms", "inf"], "--window-ms"),
        (["--max-seconds", "inf"], "--max-seconds"),
    ],
)
def test_wrong_options(model: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
    assert main(["serve", str(model), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_port_in_use(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(model), "--port", str(port)]) == 2
    assert capsys.readouterr().err == f"error: 127.0.0.1:{port}: Address already in use\n"


def test_answers_are_sent_at_once() -> None:
    """The second of two short writes would else wait for the client to acknowledge the first."""
    with (
        listen("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_without_the_extra(model: Path) -> None:
    code = "import sys; sys.modules['uvicorn'] = None; from textclf_fast.cli.app import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "serve", str(model)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=model.parent)
    assert done.returncode == 2
    assert "needs uvicorn: pip install 'textclf_fast[serve]'" in done.stderr
