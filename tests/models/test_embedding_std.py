"""The scale of the initial word vectors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from textclf_fast.models import make_classifier

SIZES = {"vocab_size": 400, "embedding_dim": 16, "hidden_dim": 8, "output_dim": 2}


@pytest.mark.parametrize("kind", ["lstm", "mlp"])
def test_scales_the_embedding_alone(kind: str) -> None:
    states: list[dict[str, Any]] = []
    for std in (1.0, 0.1):
        torch.manual_seed(0)
        model = make_classifier({"kind": kind, **SIZES, "embedding_std": std})
        assert model.config["embedding_std"] == std
        states.append(model.state_dict())
    (name,) = (name for name in states[0] if "embedding" in name)
    torch.testing.assert_close(states[1].pop(name), 0.1 * states[0].pop(name))
    for other, value in states[0].items():
        assert torch.equal(states[1][other], value)


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_what_is_no_scale(std: float) -> None:
    with pytest.raises(ValueError, match=f"embedding_std: expected a finite number above 0, got {std}"):
        make_classifier({"kind": "lstm", **SIZES, "embedding_std": std})
