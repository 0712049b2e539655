"""Fast LSTM over text: drop-ins for nn.LSTM and for nn.Embedding + nn.LSTM, and a text classifier on them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textclf_fast._libraries import library_path
    from textclf_fast.estimator import TextLSTMClassifier
    from textclf_fast.launch_plan import explain
    from textclf_fast.models import TextClassifier
    from textclf_fast.nn import FusedEmbeddingLSTM, FusedLSTM
    from textclf_fast.nn.fuse import fuse, unfuse
    from textclf_fast.onnx_export import export_onnx
    from textclf_fast.predictor import load

__version__ = "0.1.0"
__all__ = [
    "FusedEmbeddingLSTM",
    "FusedLSTM",
    "TextClassifier",
    "TextLSTMClassifier",
    "explain",
    "export_onnx",
    "fuse",
    "library_path",
    "load",
    "unfuse",
]

# Imported when first asked for: FusedLSTM alone costs nothing else, and `textclf-fast --help` does not wait for torch.
_HOMES = {
    "FusedEmbeddingLSTM": "textclf_fast.nn",
    "FusedLSTM": "textclf_fast.nn",
    "TextClassifier": "textclf_fast.models",
    "TextLSTMClassifier": "textclf_fast.estimator",
    "explain": "textclf_fast.launch_plan",
    "export_onnx": "textclf_fast.onnx_export",
    "fuse": "textclf_fast.nn",
    "library_path": "textclf_fast._libraries",
    "load": "textclf_fast.predictor",
    "unfuse": "textclf_fast.nn",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
