"""What a request to /predict has to be, and what is wrong with one that is not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from textclf_fast.serving.limits import Limits

_SHAPE = '{"text": "..."} or {"texts": ["...", ...]}, and "explain": true for the words that mattered'


class RequestError(Exception):
    """A request that cannot be answered: the HTTP status, and one line that says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class PredictRequest:
    """The content of a request to /predict.

    Attributes:
        texts: at least one.
        explain: whether to say which words mattered.
        single: whether the one text came alone, not in a list.
    """

    texts: list[str]
    explain: bool
    single: bool


def check_content_type(content_type: str | None) -> None:
    """Refuses (415) what does not say that it is JSON.

    (A page of another site cannot send this type without being allowed to: so none can use a visitor's server.)
    """
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError(415, f"content-type: expected application/json, got {content_type!r}")


def read_request(body: bytes, limits: Limits) -> PredictRequest:
    """The request in a body.

    Raises:
        RequestError: 400 where it is not JSON, 422 where it is not what it should be.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"body: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise RequestError(422, f"body: expected {_SHAPE}; got {_kind(content)}")
    for name in content:
        if name not in ("text", "texts", "explain"):
            raise RequestError(422, f"body: unknown entry {name!r:.50}; expected {_SHAPE}")
    if ("text" in content) == ("texts" in content):
        raise RequestError(422, f"body: expected one of text and texts: {_SHAPE}")
    explain = content.get("explain", False)
    if not isinstance(explain, bool):
        raise RequestError(422, f"explain: expected true or false, got {_kind(explain)}")
    single = "text" in content
    texts = [content["text"]] if single else content["texts"]
    if not isinstance(texts, list):
        raise RequestError(422, f"texts: expected a list of texts, got {_kind(texts)}")
    _check_number(texts, explain, limits)
    for place, text in enumerate(texts):
        _check_text("text" if single else f"texts[{place}]", text, limits.text_characters)
    return PredictRequest(texts, explain, single)


def _check_number(texts: list[Any], explain: bool, limits: Limits) -> None:
    most = min(limits.texts, limits.explained_texts) if explain else limits.texts
    if not 1 <= len(texts) <= most:
        asked = " of which the words that mattered are asked for" if explain else ""
        raise RequestError(422, f"texts: expected 1 to {most} texts{asked}, got {len(texts)}")


def _check_text(name: str, text: Any, most_characters: int) -> None:
    if not isinstance(text, str):
        raise RequestError(422, f"{name}: expected a text, got {_kind(text)}")
    if len(text) > most_characters:
        raise RequestError(422, f"{name}: expected at most {most_characters} characters, got {len(text)}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            character = ord(text[error.start])
            raise RequestError(422, f"{name}: \\u{character:04x} at place {error.start} is half a character") from error


def _kind(value: Any) -> str:
    """What JSON calls it."""
    if value is None:
        return "null"
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    return names[type(value)]
