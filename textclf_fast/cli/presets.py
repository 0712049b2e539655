"""Names for options that go together: `train --preset NAME`."""

from __future__ import annotations

from typing import Any

import typer

# By the names of train's arguments. How good each is on real data: benchmarks/classification.py.
_LITTLE_DATA = {
    "bidirectional": True,
    "pooling": "max",
    "dropout": 0.5,
    "embedding_dropout": 0.1,
    "embedding_std": 0.1,
    "adversarial": 0.05,
    "schedule": "one-cycle",
    "epochs": 3,
    "lr": 2e-3,
    "weight_decay": 0.01,
}
_BAG = {
    "kind": "mlp",
    "vocab_size": 50_000,
    "embedding_dim": 0,
    "embedding_std": 0.1,
    "idf": True,
    "hidden_dim": 192,
    "activation": "relu",
    "dropout": 0.5,
    "schedule": "one-cycle",
    "epochs": 4,
    "lr": 4e-3,
    "weight_decay": 0.01,
}
_TRANSFER = {"dropout": 0.4, "adversarial": 0.03, "schedule": "one-cycle", "epochs": 3, "lr": 4e-3}
PRESETS: dict[str, dict[str, Any]] = {"little-data": _LITTLE_DATA, "bag": _BAG, "transfer": _TRANSFER}


def use_preset(context: typer.Context, name: str | None) -> str | None:
    """Makes a preset's values the defaults of the options that come after it; it is to be read before all of them."""
    if name is not None:
        context.default_map = {**(context.default_map or {}), **PRESETS[name]}
    return name
