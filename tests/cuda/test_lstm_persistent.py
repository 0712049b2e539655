"""The persistent forward kernels on the emulator against float64: every family, precision and order of threads."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from emulated import ON_BOTH, SANITIZERS
from emulated_lstm import NAMES, Problem
from emulated_problem import FAMILIES, PRECISIONS
from torch import nn

TEAMS = {"block": 1, "cluster": 2, "grid": 3}

# (lengths, H, D, V): a table, both directions, H no multiple of a tile; weights in shared memory too; rows in two
# slices, a depth split between warps; odd H, one row.
SHAPES = [
    ([4, 4, 3, 1], 20, 2, 7),
    ([3] * 5, 128, 1, None),
    ([5, 4, 4, 3, 3, 3, 2, 2, 1, 1], 40, 1, 9),
    ([3], 13, 2, None),
]


@pytest.mark.parametrize("shape", SHAPES, ids=["table", "large", "slices", "odd"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", PRECISIONS[1:])
@pytest.mark.parametrize("flavour", ON_BOTH)
def test_equals_float64(
    flavour: str, precision: str, family: str, shape: tuple[list[int], int, int, int | None]
) -> None:
    problem = Problem(precision, *shape)
    said, results = problem.run(flavour, family, TEAMS[family])
    assert results, said
    assert problem.is_right(results), (said, problem.errors(results))


@pytest.mark.parametrize("vocabulary", [5, None])
@pytest.mark.parametrize("family", FAMILIES)
def test_there_may_be_more_positions_and_steps_than_rows_have(family: str, vocabulary: int | None) -> None:
    problem = Problem("float32", [4, 4, 2, 1], 20, 2, vocabulary, spare=3)
    said, results = problem.run(family=family, team=TEAMS[family])
    assert results, said
    assert problem.is_right(results), (said, problem.errors(results))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "half"])
@pytest.mark.parametrize("flavour", ON_BOTH)
def test_two_row_tiles_equal_float64(flavour: str, precision: str, family: str) -> None:
    problem = Problem(precision, [4, 4, *[3] * 9, *[2] * 10], 72, 2)
    said, results = problem.run(flavour, family, TEAMS[family], row_tiles=2)
    assert results, said
    assert problem.is_right(results), (said, problem.errors(results))


def test_the_plan_of_an_h100_is_right_too() -> None:
    problem = Problem("bfloat16", [3, 2, 2], 200, 2)
    said, results = problem.run(schedules=(0, 2))
    assert "family 1" in said
    assert problem.is_right(results), problem.errors(results)


@pytest.mark.parametrize("family", FAMILIES)
def test_inference_without_output_or_states(family: str) -> None:
    problem = Problem("float32", [4, 4, 2], 24, 2, 5, states=False, output=False, saved=False)
    _, results = problem.run(family=family, team=TEAMS[family])
    assert set(results[0]) == {"h_n", "c_n"}
    assert problem.is_right(results), problem.errors(results)


def test_strict_float32_is_as_near_as_nn_lstm() -> None:
    features, hidden = 24, 64
    torch.manual_seed(0)
    lstm = nn.LSTM(features, hidden)
    x = torch.randn(6, 5, features)
    problem = Problem("float32", [6] * 5, hidden, states=False, saved=False)
    with torch.no_grad():
        theirs = lstm(x)[0]
        gates = x @ lstm.weight_ih_l0.T + lstm.bias_ih_l0 + lstm.bias_hh_l0
        expected = lstm.double()(x.double())[0]
        problem.arrays |= {"gates": gates.view(1, 30, -1), "w_hh": lstm.weight_hh_l0.float()[None]}
    _, results = problem.run(family="block", schedules=(0,))
    ours = results[0]["output"].view_as(theirs)
    assert (ours - expected).abs().max() <= 1.5 * (theirs - expected).abs().max()


@pytest.mark.parametrize("wrong", [-1, 9, 2**62, -(2**63)])
def test_an_index_out_of_range_reads_nothing_and_shows(wrong: int) -> None:
    problem = Problem("bfloat16", [3, 3], 8, 1, 9, states=False)
    expected = problem.expected()["output"]
    problem.arrays["index"][2] = wrong  # row 0 at step 1
    _, results = problem.run("asan", family="block", schedules=(0,))
    output = results[0]["output"]
    assert output.isnan().all(dim=1).tolist() == [False, False, True, False, True, False]
    right = [0, 1, 3, 5]
    torch.testing.assert_close(output[right].double(), expected[right], rtol=0, atol=2e-2)


# TSan knows some thousands of fibers only, and takes its time: few steps, small H.
@pytest.mark.parametrize("flavour", SANITIZERS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_sanitizers_have_nothing_to_say(precision: str, family: str, flavour: str) -> None:
    problem = Problem(precision, [4, 3, 3, 2, 2, 2, 1, 1, 1], 52 if precision == "float32" else 116, 1, 7)
    if flavour == "tsan":
        problem = dataclasses.replace(problem, lengths=[3, 3, 2], hidden=52 if precision == "float32" else 100)
    row_tiles = 2 if precision == "bfloat16" else 1
    said, results = problem.run(flavour, family, TEAMS[family], row_tiles, schedules=(0, 2))
    assert results, said
    assert problem.is_right(results), (said, problem.errors(results))
    assert set(results[0]) == set(NAMES)
