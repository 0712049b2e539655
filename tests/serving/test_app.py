"""The application's answers, one request at a time."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from textclf_fast.predictor import Predictor
from textclf_fast.serving import Limits, QueueFull, make_app

JSON = {"content-type": "application/json"}


@pytest.fixture
def client(predictor: Predictor) -> Iterator[Any]:
    limits = Limits(body_bytes=400, texts=3, explained_texts=2, text_characters=20)
    with TestClient(make_app(predictor, limits)) as client:
        yield client


def test_one_text(client: Any, predictor: Predictor) -> None:
    answer = client.post("/predict", json={"text": "A good film."})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    expected = predictor.predict_proba(["A good film."])[0].tolist()
    assert answer.json()["label"] == "positive"
    assert answer.json()["probabilities"] == pytest.approx({"negative": expected[0], "positive": expected[1]})


def test_a_list_of_texts(client: Any) -> None:
    answer = client.post("/predict", json={"texts": ["good", "", "bad bad"]})
    assert [found["label"] for found in answer.json()["predictions"]] == ["positive", "negative", "negative"]
    assert len(client.post("/predict", json={"texts": ["good"]}).json()["predictions"]) == 1


def test_the_words_that_mattered(client: Any, predictor: Predictor) -> None:
    found = client.post("/predict", json={"text": "a good film", "explain": True}).json()
    expected = predictor.explain("a good film")
    assert found["label"] == "positive"
    assert [word["word"] for word in found["words"]] == ["a", "good", "film"]
    assert [word["score"] for word in found["words"]] == pytest.approx(expected.scores)
    assert [word["known"] for word in found["words"]] == [False, True, True]
    assert found["words"][1]["score"] > 0
    several = client.post("/predict", json={"texts": ["good", "bad"], "explain": True}).json()["predictions"]
    assert [found["label"] for found in several] == ["positive", "negative"]
    assert "words" not in client.post("/predict", json={"text": "good", "explain": False}).json()


def test_words_that_mattered_are_looked_for_in_small_batches(predictor: Predictor) -> None:
    """Each takes as long as a training step, and nobody else is answered meanwhile."""
    limits = Limits(explained_texts=2, window_seconds=0.5)
    with TestClient(make_app(predictor, limits)) as client, ThreadPoolExecutor(5) as pool:
        asked = [{"text": "good", "explain": True}] * 5
        assert [answer.status_code for answer in pool.map(lambda each: client.post("/predict", json=each), asked)] == (
            [200] * 5
        )
        lines = client.get("/metrics").text.splitlines()
    assert 'textclf_batch_texts_bucket{le="1"} 1' in lines
    assert 'textclf_batch_texts_bucket{le="2"} 3' in lines
    assert "textclf_batch_texts_count 3" in lines


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "body: not JSON"),
        (b'{"text": "a', 400, "body: not JSON"),
        (b'{"text": "caf\xe9"}', 400, "body: not JSON"),
        (b"[" * 390, 400, "body: not JSON"),
        (b'["a text"]', 422, "got a list"),
        (b'"a text"', 422, "got a text"),
        (b"null", 422, "got null"),
        (b"{}", 422, "one of text and texts"),
        (b'{"text": "a", "texts": ["b"]}', 422, "one of text and texts"),
        (b'{"text": "a", "colour": 1}', 422, "unknown entry 'colour'"),
        (b'{"text": null}', 422, "text: expected a text, got null"),
        (b'{"text": 3.5}', 422, "text: expected a text, got a number"),
        (b'{"texts": "a"}', 422, "texts: expected a list of texts, got a text"),
        (b'{"texts": []}', 422, "texts: expected 1 to 3 texts, got 0"),
        (b'{"texts": ["a", "b", "c", "d"]}', 422, "texts: expected 1 to 3 texts, got 4"),
        (b'{"texts": ["a", "b", "c"], "explain": true}', 422, "texts: expected 1 to 2 texts of which"),
        (b'{"texts": ["a", true]}', 422, "texts[1]: expected a text, got true or false"),
        (b'{"texts": ["a", "b", "%s"]}' % (b"c" * 21), 422, "texts[2]: expected at most 20 characters, got 21"),
        (b'{"text": "a", "explain": "yes"}', 422, "explain: expected true or false, got a text"),
        (b'{"text": "a\\ud800"}', 422, "text: \\ud800 at place 1 is half a character"),
        (b'{"text": "%s"}' % (b" " * 400), 413, "body: expected at most 400 bytes"),
    ],
)
def test_bad_requests(client: Any, body: bytes, status: int, message: str) -> None:
    answer = client.post("/predict", content=body, headers=JSON)
    assert answer.status_code == status
    assert message in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert client.post("/predict", json={"text": "good"}).status_code == 200


def test_a_large_body_without_its_length(client: Any) -> None:
    answer = client.post("/predict", content=iter([b" " * 300, b" " * 300]), headers=JSON)
    assert (answer.status_code, answer.json()["error"]) == (413, "body: expected at most 400 bytes")


def test_texts_of_all_scripts(client: Any) -> None:
    for text in ("naïve \U0001f600", "文字", "\x00", "a\u2028b"):
        body = json.dumps({"text": text, "explain": True}, ensure_ascii=False).encode()
        answer = client.post("/predict", content=body, headers=JSON)
        assert answer.status_code == 200
        assert all(word["word"] in text for word in answer.json()["words"])


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/json2", None])
def test_other_content_types(client: Any, kind: str | None) -> None:
    answer = client.post("/predict", content=b"{}", headers={"content-type": kind} if kind else {})
    assert answer.status_code == 415
    assert "expected application/json" in answer.json()["error"]


def test_a_charset_is_no_other_content_type(client: Any) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert client.post("/predict", content=b'{"text": "good"}', headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/predict", 405), ("POST", "/", 405), ("GET", "/nothing", 404)]
)
def test_other_addresses(client: Any, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"].startswith(f"{method} {path}: ")
    assert ("allow" in answer.headers) == (status == 405)


def test_health(client: Any) -> None:
    assert client.get("/health").json() == {"status": "ok", "labels": ["negative", "positive"], "queued_texts": 0}


def test_metrics(client: Any) -> None:
    for content in ({"text": "good"}, {"texts": ["good", "bad"]}, {"text": 3}):
        client.post("/predict", json=content)
    answer = client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    assert answer.text.endswith("\n")
    for line in lines:
        assert re.fullmatch(r'# (HELP|TYPE) textclf_\w+ .+|textclf_\w+(\{\w+="[^"]+"\})? [\d.e+-]+', line)
    for line in (
        'textclf_requests_total{status="200"} 2',
        'textclf_requests_total{status="422"} 1',
        'textclf_request_seconds_bucket{le="+Inf"} 3',
        "textclf_request_seconds_count 3",
        'textclf_batch_texts_bucket{le="1"} 1',
        'textclf_batch_texts_bucket{le="2"} 2',
        'textclf_batch_texts_bucket{le="+Inf"} 2',
        "textclf_batch_texts_sum 3",
        "textclf_queued_texts 0",
    ):
        assert line in lines


def test_a_full_queue(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*unused: Any) -> None:
        raise QueueFull

    monkeypatch.setattr("textclf_fast.serving.app.Batcher.answer", full)
    answer = client.post("/predict", json={"text": "good"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "too many texts wait" in answer.json()["error"]


def test_a_model_that_fails(client: Any, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*unused: Any) -> None:
        raise MemoryError("no more")

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "predict_proba", fail)
        answer = client.post("/predict", json={"text": "good"})
    assert (answer.status_code, answer.json()["error"]) == (500, "the model failed: MemoryError")
    assert client.post("/predict", json={"text": "good"}).status_code == 200


def test_a_model_that_always_fails_does_not_fill_the_log(
    client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*unused: Any) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr(Predictor, "predict_proba", fail)
    for _ in range(5):
        assert client.post("/predict", json={"text": "good"}).status_code == 500
    (record,) = caplog.records
    assert record.exc_info
    assert record.message == "the model failed, for 1 requests since the last of these lines"
    minute_later = time.monotonic() + 61
    monkeypatch.setattr("textclf_fast.serving.app._now", lambda: minute_later)
    client.post("/predict", json={"text": "good"})
    assert caplog.records[-1].message == "the model failed, for 5 requests since the last of these lines"


def test_the_page_asks_nobody_else(client: Any) -> None:
    answer = client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.search(r"https?:|src=|@import|url\(", answer.text)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"texts": 0}, "texts: expected a finite number of at least 1, got 0"),
        ({"window_seconds": -1}, "window_seconds: expected a finite number of at least 0, got -1"),
        ({"window_seconds": float("inf")}, "window_seconds: expected a finite number of at least 0, got inf"),
        ({"window_seconds": float("nan")}, "window_seconds: expected a finite number of at least 0, got nan"),
        ({"texts": 9, "queued_texts": 8}, "queued_texts: expected at least 9, the texts of one request, got 8"),
    ],
)
def test_limits_that_are_none(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Limits(**limits)
