"""The stepwise forward on the emulator: its loop over steps and its kernel, with a GEMM of the test's own."""

from __future__ import annotations

import pytest
import torch
from emulated import ON_BOTH, SANITIZERS
from emulated_lstm import NAMES, Problem
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

PRECISIONS = ("float64", "float32", "bfloat16", "half")

# (lengths, H, D, V): a table, both directions; several blocks, the last one not full; odd H, one row.
SHAPES = [([4, 4, 3, 1], 20, 2, 7), ([3, 3, 3, 2, 2], 123, 1, None), ([3], 13, 2, None)]


@pytest.mark.parametrize("shape", SHAPES, ids=["table", "blocks", "odd"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("flavour", ON_BOTH)
def test_equals_float64(flavour: str, precision: str, shape: tuple[list[int], int, int, int | None]) -> None:
    problem = Problem(precision, *shape)
    said, results = problem.run(flavour, "stepwise")
    assert results, said
    assert set(results[0]) == set(NAMES)
    assert problem.is_right(results), problem.errors(results)


def test_inference_without_output_or_states() -> None:
    problem = Problem("half", [4, 4, 2], 24, 2, 5, states=False, output=False, saved=False)
    _, results = problem.run(family="stepwise")
    assert set(results[0]) == {"h_n", "c_n"}
    assert problem.is_right(results), problem.errors(results)


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_is_as_near_as_nn_lstm(precision: str) -> None:
    """Against float64 on the same numbers: at most 1.5 times the error of nn.LSTM in the same dtype."""
    features, hidden, lengths = 24, 64, [12, 12, 9, 5]
    problem = Problem(precision, lengths, hidden, 2, states=False, saved=False)
    dtype = problem.arrays["w_hh"].dtype
    torch.manual_seed(0)
    lstm = nn.LSTM(features, hidden, bidirectional=True).to(dtype)
    packed = pack_padded_sequence(torch.randn(12, 4, features).to(dtype), torch.tensor(lengths))
    with torch.no_grad():
        theirs = lstm(packed)[0].data
        lstm.double()
        packed = packed.to(torch.float64)
        expected = lstm(packed)[0].data
        suffixes = ("_l0", "_l0_reverse")
        # The input half comes from elsewhere, rounded to what gates are kept in.
        gates = torch.stack(
            [
                packed.data @ getattr(lstm, f"weight_ih{s}").T
                + getattr(lstm, f"bias_ih{s}")
                + getattr(lstm, f"bias_hh{s}")
                for s in suffixes
            ]
        )
        w_hh = torch.stack([getattr(lstm, f"weight_hh{s}") for s in suffixes])
    problem.arrays |= {"gates": gates.to(problem.arrays["gates"].dtype), "w_hh": w_hh.to(dtype)}
    _, results = problem.run(family="stepwise", schedules=(0,))
    ours = results[0]["output"]
    assert (ours.double() - expected).abs().max() <= 1.5 * (theirs.double() - expected).abs().max()


@pytest.mark.parametrize("wrong", [-1, 9, 2**62, -(2**63)])
def test_an_index_out_of_range_reads_nothing_and_shows(wrong: int) -> None:
    problem = Problem("half", [3, 3], 8, 1, 9, states=False)
    expected = problem.expected()["output"]
    problem.arrays["index"][2] = wrong  # row 0 at step 1
    _, results = problem.run("asan", family="stepwise", schedules=(0,))
    output = results[0]["output"]
    assert output.isnan().all(dim=1).tolist() == [False, False, True, False, True, False]
    assert results[0]["h_n"][0].isnan().all(dim=1).tolist() == [True, False]
    right = [0, 1, 3, 5]
    torch.testing.assert_close(output[right].double(), expected[right], rtol=0, atol=2e-3)


@pytest.mark.parametrize("flavour", SANITIZERS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_sanitizers_have_nothing_to_say(precision: str, flavour: str) -> None:
    problem = Problem(precision, [3, 3, 2], 100, 2, 7)
    said, results = problem.run(flavour, "stepwise", schedules=(0, 2))
    assert results, said
    assert problem.is_right(results), problem.errors(results)
