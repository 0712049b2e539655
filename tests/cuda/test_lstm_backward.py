"""The persistent backward kernels on the emulator against float64: every family, precision and order of threads."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from emulated import ON_BOTH, SANITIZERS
from emulated_backward import GRADIENTS, BackwardProblem
from emulated_problem import FAMILIES, PRECISIONS

TEAMS = {"block": 1, "cluster": 2, "grid": 3}

# (lengths, H, D): both directions, H no multiple of a tile; weights in shared memory too; rows in two slices; odd H,
# where units are not read in pairs.
SHAPES = [([4, 4, 3, 1], 20, 2), ([3] * 5, 128, 1), ([5, 4, 4, 3, 3, 3, 2, 2, 1, 1], 40, 1), ([3, 2], 13, 2)]


@pytest.mark.parametrize("shape", SHAPES, ids=["ragged", "large", "slices", "odd"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", PRECISIONS[1:])
@pytest.mark.parametrize("flavour", ON_BOTH)
def test_equals_float64(flavour: str, precision: str, family: str, shape: tuple[list[int], int, int]) -> None:
    problem = BackwardProblem(precision, *shape)
    said, results = problem.run(flavour, family, TEAMS[family])
    assert results, said
    assert problem.is_right(results), (said, problem.errors(results))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "half"])
@pytest.mark.parametrize("flavour", ON_BOTH)
def test_two_row_tiles_equal_float64(flavour: str, precision: str, family: str) -> None:
    problem = BackwardProblem(precision, [4, 4, *[3] * 9, *[2] * 10], 72, 2)
    said, results = problem.run(flavour, family, TEAMS[family], row_tiles=2)
    assert results, said
    assert problem.is_right(results), (said, problem.errors(results))


def test_a_warp_with_several_tiles_equals_float64() -> None:
    problem = BackwardProblem("bfloat16", [2, 2, 1], 520)
    said, results = problem.run(family="grid", team=13, schedules=(0, 2))
    assert "tiles of a warp 2, columns 9" in said, said  # 17 tiles: the last warp has one
    assert problem.is_right(results), problem.errors(results)


def test_the_plan_of_an_h100_is_right_too() -> None:
    problem = BackwardProblem("bfloat16", [3, 2, 2], 200, 2)
    said, results = problem.run(schedules=(0, 2))
    assert "family 1" in said
    assert problem.is_right(results), problem.errors(results)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("flavour", ["asan", *ON_BOTH])
def test_gradients_of_gates_that_nobody_asks_for_are_not_written(flavour: str, family: str) -> None:
    for hidden in (20, 13):  # in pairs, and not
        problem = BackwardProblem("bfloat16", [4, 4, 3, 1], hidden, 2, gates=False)
        said, results = problem.run(flavour, family, TEAMS[family])
        assert results, said
        assert set(results[0]) == {"grad_h0", "grad_c0"}
        assert problem.is_right(results), (said, problem.errors(results))


@pytest.mark.parametrize("given", [*((name,) for name in GRADIENTS), ()], ids=[*GRADIENTS, "none"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gradients_that_are_not_there_are_zero(precision: str, given: tuple[str, ...]) -> None:
    problem = BackwardProblem(precision, [4, 4, 2], 24, 2, given, states=False)
    _, results = problem.run(family="block", schedules=(0,))
    assert problem.is_right(results), problem.errors(results)


@pytest.mark.parametrize("shape", SHAPES, ids=["ragged", "large", "slices", "odd"])
@pytest.mark.parametrize("precision", [p for p in PRECISIONS if p != "tf32"])
@pytest.mark.parametrize("flavour", ON_BOTH)
def test_stepwise_equals_float64(flavour: str, precision: str, shape: tuple[list[int], int, int]) -> None:
    problem = BackwardProblem(precision, *shape)
    said, results = problem.run(flavour, "stepwise")
    assert results, said
    assert problem.is_right(results), problem.errors(results)


# TSan knows some thousands of fibers only, and takes its time: few steps, small H.
@pytest.mark.parametrize("flavour", SANITIZERS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_sanitizers_have_nothing_to_say(precision: str, family: str, flavour: str) -> None:
    problem = BackwardProblem(precision, [4, 3, 3, 2, 2, 2, 1, 1, 1], 53 if precision == "float32" else 116, 1)
    if flavour == "tsan":
        problem = dataclasses.replace(problem, lengths=[3, 3, 2], hidden=52 if precision == "float32" else 100)
    row_tiles = 2 if precision == "bfloat16" else 1
    said, results = problem.run(flavour, family, TEAMS[family], row_tiles, schedules=(0, 2))
    assert results, said
    assert problem.is_right(results), (said, problem.errors(results))


def test_a_gradient_of_nan_stays_in_its_row() -> None:
    problem = BackwardProblem("bfloat16", [3, 3, 3], 24)
    problem.arrays["grad_output"][4, 5] = torch.nan  # row 1 at step 1
    _, results = problem.run(family="block", schedules=(0,))
    assert results[0]["grad_h0"].isnan().any(dim=2).tolist() == [[False, True, False]]
    assert results[0]["grad_gates"].isnan().any(dim=2).tolist() == [[False, True, False] * 2 + [False] * 3]
