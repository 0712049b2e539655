"""Fast LSTM over text: drop-ins for nn.LSTM and for nn.Embedding + nn.LSTM, and a text classifier on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textclf_fast.models import TextClassifier
from textclf_fast.nn import FusedEmbeddingLSTM, FusedLSTM

if TYPE_CHECKING:
    from textclf_fast.predictor import load

__version__ = "0.1.0"
__all__ = ["FusedEmbeddingLSTM", "FusedLSTM", "TextClassifier", "load"]


def __getattr__(name: str) -> Any:
    # Lazily: a person who wants FusedLSTM alone does not pay for reading and writing models.
    if name == "load":
        from textclf_fast.predictor import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
