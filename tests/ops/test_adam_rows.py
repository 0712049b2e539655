"""stale_rows and adam_rows_ by themselves: opcheck, Adam written out, and every argument that does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from textclf_fast.optim import adam_rows

OPS = torch.ops.textclf_fast
V, E, S = 9, 5, 4


def _arguments(dtype: torch.dtype = torch.float64, width: int = E, with_grad: bool = True) -> dict[str, Any]:
    step = [1e-2, 1.5, 0.9, 0.99, 0.99**0.5, 0.999, 0.0, 1e-8]
    return {
        "param": torch.randn(V, width, dtype=dtype),
        "exp_avg": torch.randn(V, width, dtype=dtype),
        "exp_avg_sq": torch.rand(V, width, dtype=dtype),
        "done": torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0]),
        "rows": torch.tensor([7, 0, 5]),
        "grad": torch.randn(3, width, dtype=dtype) if with_grad else None,
        "history": torch.tensor([step, *[[x * 0.99 for x in step]] * (S - 1)], dtype=torch.float64),
        "steps": S,
    }


def _by_hand(a: dict[str, Any]) -> dict[str, Tensor]:
    result = {name: a[name].clone() for name in ("param", "exp_avg", "exp_avg_sq", "done")}
    for place, row in enumerate(a["rows"].tolist()):
        p, m, v = (result[name][row] for name in ("param", "exp_avg", "exp_avg_sq"))
        for step in range(int(a["done"][row]), a["steps"]):
            size, root, beta1, beta2, _, keep, l2, eps = a["history"][step].tolist()
            last = step == a["steps"] - 1 and a["grad"] is not None
            grad = (a["grad"][place] if last else 0) + l2 * p
            m[:] = beta1 * m + (1 - beta1) * grad
            v[:] = beta2 * v + (1 - beta2) * grad**2
            p[:] = keep * p - size * m / (v.sqrt() * root + eps)
        result["done"][row] = a["steps"]
    return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("with_grad", [False, True])
@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_adam_written_out(isa: str, dtype: torch.dtype, with_grad: bool, l2: float) -> None:
    """At every width from less than a vector to several groups of vectors; the other rows are left alone."""
    for width in range(1, 75):
        arguments = _arguments(dtype, width, with_grad)
        arguments["history"][:, 4] = arguments["history"][:, 3].sqrt()
        arguments["history"][1:, 6] = l2
        want = _by_hand(arguments)
        adam_rows.adam_rows_(**arguments)
        for name, tensor in want.items():
            torch.testing.assert_close(arguments[name], tensor, msg=lambda m, n=name, w=width: f"{n} at {w}: {m}")
            others = torch.tensor([1, 2, 3, 4, 6, 8])
            assert torch.equal(arguments[name][others], tensor[others])


def test_rows_that_have_had_all_steps_are_left_alone() -> None:
    arguments = _arguments(with_grad=False) | {"steps": 3, "rows": torch.tensor([3, 7])}
    before = {name: arguments[name].clone() for name in ("param", "exp_avg", "exp_avg_sq", "done")}
    adam_rows.adam_rows_(**arguments)
    assert all(torch.equal(arguments[name], tensor) for name, tensor in before.items())


def test_changes_are_counted() -> None:
    arguments = _arguments()
    names = ("param", "exp_avg", "exp_avg_sq", "done")
    before = [arguments[name]._version for name in names]
    adam_rows.adam_rows_(**arguments)
    assert all(arguments[name]._version > version for name, version in zip(names, before, strict=True))


@pytest.mark.parametrize("with_grad", [False, True])
def test_opcheck(with_grad: bool) -> None:
    torch.library.opcheck(OPS.adam_rows_.default, tuple(_arguments(with_grad=with_grad).values()))
    torch.library.opcheck(OPS.stale_rows.default, (torch.tensor([[3, 1], [3, 0]]), torch.tensor([0, 2, 0, 1]), 2))


def test_stale_rows() -> None:
    done = torch.tensor([0, 2, 0, 1])
    assert adam_rows.stale_rows(torch.tensor([[3, 1, 0], [3, 0, 3]]).T, done, 2).tolist() == [3, 0]
    assert adam_rows.stale_rows(torch.tensor([1, 3]), done, 1).tolist() == []
    assert adam_rows.stale_rows(torch.empty(0, 4, dtype=torch.int64), done, 2).tolist() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"param": torch.zeros(V)}, r"param: expected shape \(V, E\), got \(9\)"),
        ({"param": torch.zeros(V, E).half()}, "param: expected dtype float32 or float64"),
        ({"param": torch.zeros(E, V).double().T}, "param: expected a contiguous tensor"),
        ({"exp_avg": torch.zeros(V, E + 1).double()}, r"exp_avg: expected shape \(9, 5\), got \(9, 6\)"),
        ({"exp_avg_sq": torch.zeros(V, E)}, "exp_avg_sq: its dtype differs"),
        ({"exp_avg_sq": torch.zeros(V, 2 * E).double()[:, ::2]}, "exp_avg_sq: expected a contiguous tensor"),
        ({"done": torch.zeros(V - 1).long()}, r"done: expected shape \(9\), got \(8\)"),
        ({"done": torch.zeros(V)}, "done: expected dtype int64"),
        ({"done": torch.zeros(2 * V).long()[::2]}, "done: expected a contiguous tensor"),
        ({"done": torch.full((V,), S)}, "done: row 7 has had 4 steps, expected 0 to 3 before"),
        ({"done": torch.full((V,), -1)}, "done: row 7 has had -1 steps"),
        ({"rows": torch.tensor([1, V, 2])}, r"rows: rows\[1\] = 9, expected 0 <= row < 9"),
        ({"rows": torch.tensor([1, -1, 2])}, r"rows: rows\[1\] = -1"),
        ({"rows": torch.tensor([1, 2, 1])}, r"rows: rows\[2\] = 1 is there twice"),
        ({"rows": torch.tensor([1.0, 2, 3])}, "rows: expected dtype int64"),
        ({"rows": torch.tensor([[1, 2, 3]])}, "rows: expected one dimension"),
        ({"rows": torch.tensor([1, 2, 3, 4, 5, 6])[::2]}, "rows: expected a contiguous tensor"),
        ({"grad": torch.zeros(2, E).double()}, r"grad: expected shape \(3, 5\), got \(2, 5\)"),
        ({"grad": torch.zeros(3, E)}, "grad: its dtype differs"),
        ({"history": torch.zeros(S, 7).double()}, r"history: expected shape \(4, 8\), got \(4, 7\)"),
        ({"history": torch.zeros(S, 8)}, "history: expected dtype float64"),
        ({"history": torch.zeros(8, S).double().T}, "history: expected a contiguous tensor"),
        ({"steps": S + 1}, "steps: got 5, expected 1 to the 4 rows of history"),
        ({"steps": 0}, "steps: got 0, expected 1 to"),
        ({"steps": -1, "grad": None}, "steps: got -1, expected 0 to"),
    ],
)
def test_bad_arguments(change: dict[str, Any], message: str) -> None:
    arguments = _arguments()
    before = {name: value.clone() for name, value in arguments.items() if isinstance(value, Tensor)}
    with pytest.raises(RuntimeError, match=message):
        adam_rows.adam_rows_(**arguments | change)
    assert all(torch.equal(arguments[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.tensor([1, 5]), torch.zeros(5).long(), 1), "ids: id 5 at position 1, expected 0 <= id < 5"),
        ((torch.tensor([-1]), torch.zeros(5).long(), 1), "ids: id -1 at position 0"),
        ((torch.tensor([1.0]), torch.zeros(5).long(), 1), "ids: expected dtype int64"),
        ((torch.tensor([1]), torch.zeros(5), 1), "done: expected dtype int64"),
        ((torch.tensor([1]), torch.zeros(5).long(), -1), "steps: expected at least 0, got -1"),
    ],
)
def test_bad_arguments_of_stale_rows(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        adam_rows.stale_rows(*arguments)
