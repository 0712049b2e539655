"""The arithmetic of the stepwise CUDA kernel (csrc/cuda/lstm_step.h), compiled for the CPU and driven step by step."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

CSRC = Path(__file__).parents[2] / "csrc"
COMPILER = shlex.split(os.environ.get("CXX", "")) or ["g++"]

PROGRAM = """
#include "cuda/lstm_step.h"
using textclf_fast::cuda::LstmStep;
template <class T> void run(const LstmStep<T>& step) {
  for (int64_t e = 0; e < step.rows * step.hidden; ++e) textclf_fast::cuda::lstm_step_element(step, e);
}
extern "C" void step_float(const LstmStep<float>* step) { run(*step); }
extern "C" void step_double(const LstmStep<double>* step) { run(*step); }
"""


class Step(ctypes.Structure):
    """LstmStep, field by field."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("gates", "index", "recurrent", "h", "c", "output")),
        *((name, ctypes.c_int64) for name in ("position", "rows", "hidden", "gate_rows", "directions", "direction")),
    ]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if shutil.which(COMPILER[0]) is None:
        pytest.skip(f"{COMPILER[0]} is not installed")
    folder = tmp_path_factory.mktemp("lstm_step")
    (folder / "step.cpp").write_text(PROGRAM)
    flags = ["-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{CSRC}"]
    subprocess.run([*COMPILER, *flags, str(folder / "step.cpp"), "-o", str(folder / "step.so")], check=True)
    return ctypes.CDLL(str(folder / "step.so"))


def _forward(
    library: ctypes.CDLL, gates: Tensor, index: Tensor | None, batch_sizes: Tensor, w_hh: Tensor, h0: Tensor, c0: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """lstm_inference as csrc/cuda/lstm.cu walks it, the GEMM by torch: shapes as in csrc/ops.cpp."""
    directions, _, hidden = w_hh.shape
    sizes = batch_sizes.tolist()
    output = torch.full((sum(sizes), directions * hidden), float("nan"), dtype=gates.dtype)
    h, c = h0.clone(), c0.clone()
    run = library.step_double if gates.dtype == torch.float64 else library.step_float
    for d in range(directions):
        for t in range(len(sizes)) if d == 0 else reversed(range(len(sizes))):
            recurrent = h[d, : sizes[t]] @ w_hh[d].T
            step = Step(
                gates.data_ptr(),
                None if index is None else index.data_ptr(),
                recurrent.data_ptr(),
                h[d].data_ptr(),
                c[d].data_ptr(),
                output.data_ptr(),
                sum(sizes[:t]),
                sizes[t],
                hidden,
                gates.shape[1],
                directions,
                d,
            )
            run(ctypes.byref(step))
    return output, h, c


def _packed_batch(features: int, dtype: torch.dtype) -> PackedSequence:
    lengths = torch.tensor([5, 5, 3, 1])
    return pack_padded_sequence(torch.randn(5, 4, features, dtype=dtype), lengths)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("indexed", [False, True])
def test_walk_gives_what_nn_lstm_gives(
    library: ctypes.CDLL, dtype: torch.dtype, bidirectional: bool, indexed: bool
) -> None:
    hidden, features, directions = 7, 3, 1 + bidirectional
    lstm = nn.LSTM(features, hidden, bidirectional=bidirectional).to(dtype)
    packed = _packed_batch(features, dtype)
    index = torch.randperm(packed.data.shape[0]) if indexed else None
    h0, c0 = torch.randn(2, directions, 4, hidden, dtype=dtype)
    with torch.no_grad():
        expected, (h_n, c_n) = lstm(packed, (h0, c0))
        suffixes = ["_l0", "_l0_reverse"][:directions]
        gates = torch.stack(
            [
                packed.data @ getattr(lstm, f"weight_ih{s}").T
                + getattr(lstm, f"bias_ih{s}")
                + getattr(lstm, f"bias_hh{s}")
                for s in suffixes
            ],
            dim=0,
        )
        if index is not None:  # a table in another order, read through the index
            gates = torch.empty_like(gates).index_copy_(1, index, gates)
        w_hh = torch.stack([getattr(lstm, f"weight_hh{s}") for s in suffixes])
        results = _forward(library, gates, index, packed.batch_sizes, w_hh, h0, c0)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    for ours, theirs in zip(results, (expected.data, h_n, c_n), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("wrong", [-1, 9, 2**62, -(2**63)])
def test_an_index_out_of_range_reads_nothing_and_shows(library: ctypes.CDLL, wrong: int) -> None:
    gates, w_hh = torch.randn(1, 9, 8), torch.randn(1, 8, 2)
    index = torch.arange(6)
    index[2] = wrong  # row 0 at step 1
    state = torch.zeros(1, 2, 2)
    output, h_n, _ = _forward(library, gates, index, torch.tensor([2, 2, 2]), w_hh, state, state)
    assert output.isnan().all(dim=1).tolist() == [False, False, True, False, True, False]
    assert h_n[0].isnan().all(dim=1).tolist() == [True, False]
