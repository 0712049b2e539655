"""Arguments of the ops of a layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from textclf_fast import ops

OPS = torch.ops.textclf_fast
T, H, P, V = 4, 5, 3, 9
BATCH_SIZES = [4, 4, 2, 1]
N = sum(BATCH_SIZES)


def layer_arguments(
    directions: int, with_index: bool, dtype: torch.dtype = torch.float64, projected: bool = False
) -> dict[str, Any]:
    rows, width = V if with_index else N, P if projected else H
    arguments = {
        "gates": torch.randn(directions, rows, 4 * H, dtype=dtype),
        "index": torch.randint(0, V, (N,)) if with_index else None,
        "batch_sizes": torch.tensor(BATCH_SIZES),
        "w_hh": torch.randn(directions, 4 * H, width, dtype=dtype),
        "h0": torch.randn(directions, BATCH_SIZES[0], width, dtype=dtype),
        "c0": torch.randn(directions, BATCH_SIZES[0], H, dtype=dtype),
    }
    return arguments | {"w_hr": torch.randn(directions, P, H, dtype=dtype)} if projected else arguments


def differentiable(arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.requires_grad_() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in arguments.items()
    }


def backward_arguments(
    directions: int,
    with_index: bool,
    need_weights: bool = True,
    projected: bool = False,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Any]:
    a = layer_arguments(directions, with_index, dtype, projected)
    a["gates"] = a["gates"].to(ops.gates_dtype(dtype))
    output, h_n, c_n, activations, cells = OPS.lstm_training(**a)
    return {
        "grad_output": torch.randn_like(output),
        "grad_h_n": torch.randn_like(h_n),
        "grad_c_n": torch.randn_like(c_n),
        "activations": activations,
        "cells": cells,
        "output": output,
        "index": a["index"],
        "gate_rows": a["gates"].size(1),
        "batch_sizes": a["batch_sizes"],
        "w_hh": a["w_hh"],
        "h0": a["h0"],
        "c0": a["c0"],
        "need_w_hh": need_weights,
        "grad_cells": None,
        "w_hr": a.get("w_hr"),
        "need_w_hr": need_weights and projected,
    }


both_directions = pytest.mark.parametrize("directions", [1, 2])
with_and_without_index = pytest.mark.parametrize("with_index", [False, True])
with_and_without_projection = pytest.mark.parametrize("projected", [False, True])
