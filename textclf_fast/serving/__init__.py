"""A predictor behind HTTP: micro-batches, limits, metrics and a page to try it on. Needs the extra `serve`."""

from __future__ import annotations

from textclf_fast.serving.app import make_app
from textclf_fast.serving.batching import Batcher, QueueFull
from textclf_fast.serving.limits import Limits

__all__ = ["Batcher", "Limits", "QueueFull", "make_app"]
