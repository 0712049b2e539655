"""Arguments of the ops that train an embedding and a layer, on a packed batch or a padded one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

V, H, I = 7, 5, 3  # noqa: E741 (the letter of the equations)
FLOATS = ("table", "w_ih", "w_hh", "b_ih", "b_hh")


def make_weights(bias: bool = True, dtype: torch.dtype = torch.float64, hidden: int = H) -> dict[str, Tensor | None]:
    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64).mul(0.5).to(dtype)

    return {
        "table": numbers(V, I),
        "w_ih": numbers(4 * hidden, I),
        "w_hh": numbers(4 * hidden, hidden),
        "b_ih": numbers(4 * hidden) if bias else None,
        "b_hh": numbers(4 * hidden) if bias else None,
    }


def leaves_of(a: dict[str, Any]) -> dict[str, Tensor]:
    return {name: a[name].detach().clone().requires_grad_() for name in FLOATS if a[name] is not None}


def backward_arguments(
    a: dict[str, Any], results: tuple[Tensor, ...], needs: tuple[bool, ...] = (True,) * 4, **others: Any
) -> dict[str, Any]:
    """Those of embedding_lstm_backward, from a forward's arguments and its first eight results."""
    output, h_n, c_n, activations, cells, x, tokens, index = results
    return {
        "grad_output": torch.randn_like(output),
        "grad_h_n": torch.randn_like(h_n),
        "grad_c_n": torch.randn_like(c_n),
        "activations": activations,
        "cells": cells,
        "output": output,
        "x": x,
        "tokens": tokens,
        "index": index,
        "batch_sizes": a.get("batch_sizes"),
        "positions": None,
        "order": None,
        "w_ih": a["w_ih"],
        "w_hh": a["w_hh"],
        "vocab_size": V,
        "padding_idx": 2,
        **dict(zip(("need_table", "need_w_ih", "need_w_hh", "need_bias"), needs, strict=True)),
    } | others
