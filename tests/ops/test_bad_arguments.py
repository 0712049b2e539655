"""Every argument of the ops that does not fit is refused, by name, before any memory is touched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ops_cases import BATCH_SIZES, OPS, H, N, P, backward_arguments, layer_arguments
from torch import Tensor

from textclf_fast import ops

BAD_LAYERS: list[tuple[dict[str, Any], str]] = [
    (
        {"gates": torch.zeros(1, N, 4 * H + 1, dtype=torch.float64)},
        r"gates: expected shape \(1, 11, 20\), got \(1, 11, 21\)",
    ),
    ({"gates": torch.zeros(N, 4 * H, dtype=torch.float64)}, "gates: expected shape"),
    (
        {"gates": torch.zeros(1, N + 1, 4 * H, dtype=torch.float64)},
        "gates: expected one row for each of the 11 positions",
    ),
    ({"gates": torch.zeros(1, N, 4 * H)}, "w_hh: its dtype differs from that of gates"),
    ({"w_hh": torch.zeros(1, 4 * H, H + 1, dtype=torch.float64)}, "w_hh: expected shape"),
    ({"w_hh": torch.zeros(3, 4 * H, H, dtype=torch.float64)}, "w_hh: expected 1 or 2 directions, got 3"),
    ({"w_hh": torch.zeros(4 * H, H, dtype=torch.float64)}, r"w_hh: expected shape \(D, 4H, H\)"),
    ({"h0": torch.zeros(1, 4, H + 1, dtype=torch.float64)}, "h0: expected shape"),
    ({"h0": torch.zeros(1, 3, H, dtype=torch.float64), "c0": torch.zeros(1, 3, H, dtype=torch.float64)}, "batch_sizes"),
    ({"c0": torch.zeros(1, 4, H)}, "c0: its dtype differs"),
    ({"c0": torch.zeros(2, 4, H, dtype=torch.float64)}, "c0: expected shape"),
    ({"batch_sizes": torch.tensor(BATCH_SIZES).int()}, "batch_sizes: expected dtype int64"),
    ({"batch_sizes": torch.tensor([BATCH_SIZES])}, "batch_sizes: expected one dimension"),
    ({"batch_sizes": torch.tensor([], dtype=torch.int64)}, "batch_sizes: expected at least one step"),
    ({"batch_sizes": torch.tensor([4, 2, 3, 2])}, r"batch_sizes\[2\] = 3 after 2"),
    ({"batch_sizes": torch.tensor([4, 4, 3, 0])}, r"batch_sizes\[3\] = 0, expected at least 1"),
    ({"batch_sizes": torch.tensor([4, 4, 4, -1])}, r"batch_sizes\[3\] = -1"),
    ({"index": torch.zeros(N - 1, dtype=torch.int64)}, "index: expected one entry for each of the 11 positions"),
    ({"index": torch.full((N,), N)}, r"index: index\[0\] = 11, expected 0 <= index < 11"),
    ({"index": torch.tensor([0] * (N - 1) + [-1])}, r"index: index\[10\] = -1"),
    ({"index": torch.tensor([0] * (N - 1) + [-(2**63)])}, r"index: index\[10\]"),
    ({"index": torch.zeros(N, dtype=torch.int32)}, "index: expected dtype int64"),
]


@pytest.mark.parametrize(("change", "message"), BAD_LAYERS)
@pytest.mark.parametrize("name", ["lstm_inference", "lstm_training"])
def test_bad_layer_arguments(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        getattr(OPS, name)(**layer_arguments(1, False) | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w_hr": torch.zeros(P, H).double()}, r"w_hr: expected shape \(1, 3, 0\), got \(3, 5\)"),
        ({"w_hr": torch.zeros(2, P, H).double()}, r"w_hr: expected shape \(1, 3, 5\), got \(2, 3, 5\)"),
        ({"w_hr": torch.zeros(1, P + 1, H).double()}, r"w_hr: expected shape \(1, 3, 5\), got \(1, 4, 5\)"),
        ({"w_hr": torch.zeros(1, P, 0).double()}, "w_hr: expected H > 0, got 0"),
        ({"w_hr": torch.zeros(1, P, H)}, "w_hr: its dtype differs from that of w_hh"),
        ({"w_hr": torch.zeros(1, P, H + 1).double()}, r"w_hh: expected shape \(1, 24, 3\), got \(1, 20, 3\)"),
        ({"w_hr": None}, r"w_hh: expected shape \(1, 12, 3\), got \(1, 20, 3\)"),
        ({"w_hh": torch.zeros(1, 4 * H, 0).double()}, "w_hh: expected P > 0, got 0"),
        ({"h0": torch.zeros(1, 4, H).double()}, r"h0: expected shape \(1, 4, 3\), got \(1, 4, 5\)"),
        ({"h0": torch.zeros(4, P).double()}, r"h0: expected shape \(D, B, P\)"),
        ({"c0": torch.zeros(1, 4, P).double()}, r"c0: expected shape \(1, 4, 5\), got \(1, 4, 3\)"),
    ],
)
def test_bad_projections(change: dict[str, Any], message: str) -> None:
    for name in ("lstm_inference", "lstm_training"):
        with pytest.raises(RuntimeError, match=message):
            getattr(OPS, name)(**layer_arguments(1, False, projected=True) | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grad_output": torch.zeros(N, H).double()}, r"grad_output: expected shape \(11, 3\), got \(11, 5\)"),
        ({"grad_h_n": torch.zeros(1, 4, H).double()}, r"grad_h_n: expected shape \(1, 4, 3\)"),
        ({"output": torch.zeros(N, H).double()}, r"output: expected shape \(11, 3\)"),
        ({"cells": torch.zeros(1, N, P).double()}, r"cells: expected shape \(1, 11, 5\)"),
        ({"w_hr": torch.zeros(1, P, H)}, "w_hr: its dtype differs"),
    ],
)
def test_bad_backward_of_projections(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        OPS.lstm_backward(**backward_arguments(1, False, projected=True) | change)
    with pytest.raises(RuntimeError, match="need_w_hr: expected False without w_hr, got True"):
        OPS.lstm_backward(**backward_arguments(1, False) | {"need_w_hr": True})


def test_float16_has_no_kernel_yet() -> None:
    with pytest.raises(RuntimeError, match="w_hh: expected dtype float32, float64 or bfloat16"):
        OPS.lstm_inference(**layer_arguments(1, False, torch.float16))


@pytest.mark.parametrize("size", [4, 5])
def test_bfloat16_gates_are_refused(size: int) -> None:
    """They would be read as float32, twice as long."""
    state = torch.zeros(1, 1, size, dtype=torch.bfloat16)
    w_hh = torch.zeros(1, 4 * size, size, dtype=torch.bfloat16)
    gates = torch.zeros(1, 2, 4 * size, dtype=torch.bfloat16)
    with pytest.raises(RuntimeError, match="gates: expected dtype float32 beside a bfloat16 w_hh"):
        OPS.lstm_inference(gates, None, torch.tensor([1, 1]), w_hh, state, state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grad_output": torch.zeros(N, H + 1).double()}, "grad_output: expected shape"),
        ({"grad_h_n": torch.zeros(1, 3, H).double()}, "grad_h_n: expected shape"),
        ({"grad_c_n": torch.zeros(1, 4, H)}, "grad_c_n: its dtype"),
        ({"activations": torch.zeros(1, N - 1, 4 * H).double()}, "activations: expected shape"),
        ({"cells": torch.zeros(1, N, H - 1).double()}, "cells: expected shape"),
        ({"output": torch.zeros(N, H + 1).double()}, "output: expected shape"),
        ({"gate_rows": -1}, "gate_rows: expected at least 0, got -1"),
        ({"gate_rows": N + 1}, "gates: expected one row"),
    ],
)
def test_bad_backward_arguments(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        OPS.lstm_backward(**backward_arguments(1, False) | change)


@pytest.mark.parametrize(
    ("ids", "vocab_size", "message"),
    [
        (torch.tensor([0, 5]), 5, "ids: token id 5 at position 1, expected 0 <= id < vocab_size = 5"),
        (torch.tensor([-1]), 5, "ids: token id -1 at position 0"),
        (torch.tensor([[1]]), 5, "ids: expected one dimension"),
        (torch.tensor([1.0]), 5, "ids: expected dtype int64"),
        (torch.tensor([1]), 0, "vocab_size: expected at least 1"),
    ],
)
def test_bad_distinct_tokens(ids: Tensor, vocab_size: int, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        ops.distinct_tokens(ids, vocab_size)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([2, 0], r"lengths: lengths\[1\] = 0, expected 1 <= length <= 4"),
        ([5, 1], r"lengths: lengths\[0\] = 5"),
        ([-3], r"lengths: lengths\[0\] = -3"),
        ([], "lengths: expected one length a row"),
    ],
)
def test_bad_packed_layout(lengths: list[int], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        ops.packed_layout(torch.tensor(lengths, dtype=torch.int64), 4, len(lengths), 1)
