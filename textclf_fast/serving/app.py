"""The web application: /predict, /health, /metrics, and the page at /."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from textclf_fast.predictor import Predictor
from textclf_fast.serving.batching import Batcher, QueueFull
from textclf_fast.serving.limits import Limits
from textclf_fast.serving.metrics import CONTENT_TYPE, Metrics
from textclf_fast.serving.requests import RequestError, check_content_type, read_request

_log = logging.getLogger(__name__)
_PAGE = Path(__file__).with_name("page.html")
_PAGE_HEADERS = {
    # The page holds all that it needs, and texts come from anywhere.
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}

_QUIET_SECONDS = 60.0  # after a failure of the model has been written to the log, with its traceback
_now = time.monotonic

_to_json = json.JSONEncoder(allow_nan=False).encode
_Item = tuple[str, bool]  # a text, and whether to say which words mattered


def make_app(predictor: Predictor, limits: Limits | None = None) -> Starlette:
    """An ASGI application that answers with a predictor.

    Args:
        predictor: is called in one thread at a time.
        limits: what is taken at most.
    """
    return _App(_Service(predictor, limits or Limits()))


class _App(Starlette):
    """The endpoints at their addresses.

    A request for a prediction goes straight to its endpoint, which answers for its own errors: past Starlette's routes
    and guards, 12 of the 48 us that it takes the event loop.
    """

    def __init__(self, service: _Service) -> None:
        super().__init__(
            routes=[
                Route("/", service.page),
                Route("/predict", service.predict, methods=["POST"]),
                Route("/health", service.health),
                Route("/metrics", service.metrics),
            ],
            lifespan=service.lifespan,
            exception_handlers={HTTPException: _http_error},
        )
        self._predict = service.predict

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/predict" and scope["method"] == "POST":
            response = await self._predict(Request(scope, receive, send))
            await response(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


class _Service:
    """The endpoints, and what they share."""

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self._predictor = predictor
        self._limits = limits
        self._metrics = Metrics()
        self._failures, self._quiet_until = 0, 0.0
        self._batcher: Batcher[_Item, dict[str, Any]] = Batcher(
            self._answers,
            weigh=self._weight,
            batch_items=limits.batch_texts,
            queued_items=limits.queued_texts,
            window_seconds=limits.window_seconds,
            count=self._metrics.batches.add,
        )

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Until the server has stopped: what waits then is answered."""
        yield
        await self._batcher.close()

    async def page(self, request: Request) -> Response:
        """A page to try it on."""
        return Response(_PAGE.read_bytes(), media_type="text/html", headers=_PAGE_HEADERS)

    async def health(self, request: Request) -> Response:
        """That the server answers, and for what."""
        labels = self._predictor.labels
        return _json({"status": "ok", "labels": labels, "queued_texts": self._batcher.queued_items})

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        page = self._metrics.page(self._batcher.queued_items)
        return Response(page, headers={"content-type": CONTENT_TYPE})

    async def predict(self, request: Request) -> Response:
        """Labels and probabilities, and the words that mattered where they are asked for."""
        begin = time.perf_counter()
        response = await self._predict(request)
        self._metrics.requests[response.status_code] += 1
        self._metrics.seconds.add(time.perf_counter() - begin)
        return response

    async def _predict(self, request: Request) -> Response:
        try:
            check_content_type(request.headers.get("content-type"))
            asked = read_request(await self._body(request), self._limits)
            answers = await self._batcher.answer([(text, asked.explain) for text in asked.texts])
            return _json(answers[0] if asked.single else {"predictions": answers})
        except RequestError as error:
            # What still comes of a body that is not waited for is no request.
            return _error(error.status, str(error), {"connection": "close"} if error.status == 408 else None)
        except QueueFull:
            return _error(503, "too many texts wait for the model: try again in a second", {"retry-after": "1"})
        except ClientDisconnect:
            return _error(400, "body: ends too early")  # nobody reads it, but it is counted
        except Exception as error:
            self._log_failure()
            return _error(500, f"the model failed: {type(error).__name__}")

    def _log_failure(self) -> None:
        """Writes the exception that is being handled: a model that always fails does not fill a disk."""
        self._failures += 1
        if (now := _now()) >= self._quiet_until:
            _log.exception("the model failed, for %d requests since the last of these lines", self._failures)
            self._failures, self._quiet_until = 0, now + _QUIET_SECONDS

    async def _body(self, request: Request) -> bytes:
        """The body, read no further than the limit and waited for no longer."""
        most, seconds = self._limits.body_bytes, self._limits.arrival_seconds
        too_large = RequestError(413, f"body: expected at most {most} bytes")
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > most:
            raise too_large
        chunks, size = [], 0
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        # asyncio.wait_for would be a task more: 6 us instead of 2, where all of a request takes the loop some 75.
        late = False

        def give_up() -> None:
            nonlocal late
            late = task.cancel()

        timer = loop.call_later(seconds, give_up)
        try:
            async for chunk in request.stream():
                size += len(chunk)
                if size > most:
                    raise too_large
                chunks.append(chunk)
        except asyncio.CancelledError:
            if not late:
                raise
            raise RequestError(408, f"body: expected all of it within {seconds:g} seconds") from None
        finally:
            timer.cancel()
        return b"".join(chunks)

    def _weight(self, item: _Item) -> int:
        """So that no more words that mattered are looked for in one call than one request may ask for."""
        _, explain = item
        return max(1, self._limits.batch_texts // self._limits.explained_texts) if explain else 1

    def _answers(self, items: Sequence[_Item]) -> list[dict[str, Any]]:
        """In the model's thread."""
        labels = self._predictor.labels
        rows = iter(self._predictor.predict_proba([text for text, explain in items if not explain]).tolist())
        answers = []
        for text, explain in items:
            if explain:
                answers.append(_explained(self._predictor, text))
            else:
                row = next(rows)
                probabilities = dict(zip(labels, row, strict=True))
                answers.append({"label": max(labels, key=probabilities.__getitem__), "probabilities": probabilities})
        return answers


def _explained(predictor: Predictor, text: str) -> dict[str, Any]:
    found = asdict(predictor.explain(text))
    words = zip(found.pop("tokens"), found.pop("scores"), found.pop("known"), strict=True)
    return {**found, "words": [{"word": word, "score": score, "known": known} for word, score, known in words]}


async def _http_error(request: Request, error: Exception) -> Response:
    """An address or a method that there is not."""
    assert isinstance(error, HTTPException)
    return _error(error.status_code, f"{request.method} {request.url.path}: {error.detail}", dict(error.headers or {}))


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return _json({"error": message}, status, headers)


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(_to_json(content).encode(), status, headers, "application/json")
