"""Rows of a table by their numbers, and rows put into one: each is the other's gradient."""

from __future__ import annotations

import pytest
import torch

from textclf_fast import ops
from textclf_fast.reference import scatter_rows_reference

OPS = torch.ops.textclf_fast
V, H = 9, 5


@pytest.mark.parametrize("padding", [-1, 3])
def test_rows_are_those_of_an_embedding(padding: int) -> None:
    weight = torch.randn(V, H, dtype=torch.float64)
    rows, grad = torch.tensor([3, 0, 7]), torch.randn(3, H, dtype=torch.float64)
    tables = [weight.clone().requires_grad_() for _ in range(2)]
    embedded = torch.nn.functional.embedding(rows, tables[0], padding_idx=padding if padding >= 0 else None)
    gathered = ops.gather_rows(tables[1], rows, padding)
    assert torch.equal(gathered, embedded)
    for values in (embedded, gathered):
        values.backward(grad)
    assert torch.equal(tables[0].grad, tables[1].grad)


def test_opcheck_rows() -> None:
    table = torch.randn(V, H, dtype=torch.float64, requires_grad=True)
    values = torch.randn(3, H, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([3, 0, 7])
    torch.library.opcheck(OPS.gather_rows, (table, rows, 3))
    torch.library.opcheck(OPS.scatter_rows, (values, rows, V, 3))
    assert torch.autograd.gradcheck(lambda t: OPS.gather_rows(t, rows, -1), table)
    assert torch.autograd.gradgradcheck(lambda t: OPS.gather_rows(t, rows, 3).square(), table)
    for skip in (-1, 3):
        assert torch.autograd.gradcheck(lambda v, skip=skip: OPS.scatter_rows(v, rows, V, skip), values)


def test_large_gradients_of_rows() -> None:
    """In kept memory, which holds what was there before: all that is not a row is zero again."""
    rows, values = torch.tensor([1, 4000, 2999]), torch.randn(3, 100)
    for _ in range(3):
        table = OPS.scatter_rows(values, rows, 5000, -1)
        want = torch.zeros(5000, 100)
        want[rows] = values
        assert torch.equal(table, want)
        table.fill_(torch.nan)


@pytest.mark.parametrize("row", [-1, V])
def test_rows_out_of_range(row: int) -> None:
    with pytest.raises(RuntimeError, match=rf"rows: rows\[1\] = {row}, expected 0 <= row < {V}"):
        OPS.gather_rows(torch.zeros(V, H), torch.tensor([0, row]), -1)
    with pytest.raises(RuntimeError, match=rf"rows: rows\[1\] = {row}, expected 0 <= row < {V}"):
        OPS.scatter_rows(torch.zeros(2, H), torch.tensor([0, row]), V, -1)


def test_rows_put_into_zeros() -> None:
    rows, values = torch.tensor([3, 0, 7]), torch.randn(3, H, dtype=torch.float64, requires_grad=True)
    table = ops.scatter_rows(values, rows, V)
    assert torch.equal(table, scatter_rows_reference(values, rows, V, -1))
    assert torch.equal(table, ops.scatter_rows(values.detach(), rows, V))
    grad = torch.randn(V, H, dtype=torch.float64)
    assert torch.equal(torch.autograd.grad(table, values, grad)[0], grad[rows])
    assert torch.autograd.gradcheck(lambda v: ops.scatter_rows(v, rows, V), values)
    assert torch.autograd.gradgradcheck(lambda v: ops.scatter_rows(v, rows, V).pow(3), values)


def test_many_rows_by_threads() -> None:
    """More than a thread's share of 64 kB, of both."""
    rows = torch.randperm(6000)[:3000]
    values = torch.randn(3000, 100)
    want = torch.zeros(6000, 100)
    want[rows] = values
    table = ops.scatter_rows(values, rows, 6000)
    assert torch.equal(table, want)
    assert torch.equal(ops.gather_rows(table, rows), values)
