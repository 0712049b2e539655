"""The classifiers by the names that files have for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textclf_fast.models.classifier import Classifier
from textclf_fast.models.mlp import MLPClassifier
from textclf_fast.models.multi_input import MultiInputClassifier
from textclf_fast.models.text_classifier import TextClassifier

_KINDS: dict[str, type[Classifier]] = {
    kind.kind: kind for kind in (TextClassifier, MLPClassifier, MultiInputClassifier)
}


def make_classifier(config: Mapping[str, Any]) -> Classifier:
    """A classifier from its ``config`` and, beside that, its ``kind``.

    Raises:
        ValueError: there is no such kind, or an argument is out of range.
        TypeError: arguments that it does not take.
    """
    arguments = dict(config)
    kind = arguments.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(f"kind: expected one of {', '.join(_KINDS)}, got {kind!r}")
    return _KINDS[kind](**arguments)
