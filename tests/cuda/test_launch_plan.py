"""The plan of the CUDA kernels: it fits the GPU and covers the layer, whatever the sizes; and what it is for some."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from textclf_fast import explain
from textclf_fast.launch_plan import GPUS, Gpu, LaunchPlan, plan_forward

BYTES = {torch.float32: 4, torch.bfloat16: 2, torch.float16: 2}
SIZES = [1, 2, 7, 8, 31, 64, 100, 128, 129, 192, 256, 300, 511, 512, 768, 1000, 1024, 1536, 2048, 4096, 20000]


def _check(plan: LaunchPlan, rows: int, hidden: int, directions: int, dtype: torch.dtype, tf32: bool, gpu: Gpu) -> None:
    if plan.family == "stepwise":
        return
    assert gpu.capability >= 80
    # Within the GPU's limits.
    assert plan.shared_bytes <= gpu.shared_bytes
    assert 32 <= plan.threads <= 512
    assert plan.row_tiles == 1 or dtype != torch.float32 or tf32
    blocks = plan.team * plan.slices * directions
    if plan.family == "block":
        assert plan.team == 1
    if plan.family == "cluster":
        assert 2 <= plan.team <= gpu.largest_cluster
    if plan.family == "grid":  # blocks that wait for each other are on the GPU together
        assert blocks <= gpu.multiprocessors
    # Every unit, row and chunk is somebody's, and no block, slice or split is without work.
    assert plan.team * plan.unit_tiles * 8 >= hidden
    assert (plan.slices - 1) * plan.row_tiles * 8 < rows <= plan.slices * plan.row_tiles * 8
    assert plan.total_chunks * 64 >= hidden * BYTES[dtype] > (plan.total_chunks - 1) * 64
    assert (plan.splits - 1) * plan.chunks < plan.total_chunks <= plan.splits * plan.chunks
    # Shared memory: weights that are not in registers, h, and sums of the splits.
    weights = plan.unit_tiles * plan.splits * max(0, plan.chunks - plan.kept) * 2048
    images = 1 if plan.family == "grid" else 2
    h = images * plan.row_tiles * 8 * (plan.total_chunks | 1) * 64
    sums = plan.unit_tiles * plan.splits * plan.row_tiles * 1024 if plan.splits > 1 else 0
    assert plan.shared_bytes == weights + h + sums


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize(("dtype", "tf32"), [(torch.float32, False), (torch.float32, True), (torch.bfloat16, False)])
def test_fits_the_gpu_and_covers_the_layer(gpu: str, dtype: torch.dtype, tf32: bool) -> None:
    for hidden, rows, directions in itertools.product(SIZES, [1, 8, 9, 32, 100, 256, 5000], [1, 2]):
        plan = plan_forward(rows, hidden, directions, 100, dtype, tf32, GPUS[gpu])
        _check(plan, rows, hidden, directions, dtype, tf32, GPUS[gpu])


# (GPU, B, H, D, dtype): family and team. What a person would expect, and a change of the rules has to think about.
CHOICES = {
    ("H100", 32, 128, 1, torch.float32): ("block", 1),
    ("A100", 32, 128, 1, torch.float32): ("grid", 8),
    ("RTX 4090", 32, 128, 1, torch.bfloat16): ("block", 1),
    ("H100", 32, 128, 2, torch.bfloat16): ("block", 1),
    ("H100", 32, 256, 1, torch.bfloat16): ("cluster", 8),
    ("H100", 32, 512, 1, torch.float32): ("grid", 32),
    ("H100", 16, 1024, 1, torch.bfloat16): ("grid", 64),
    ("H100", 16, 1024, 2, torch.bfloat16): ("grid", 32),
    ("H100", 512, 1024, 1, torch.bfloat16): ("stepwise", 0),
    ("H100", 32, 128, 1, torch.float64): ("stepwise", 0),
    ("T4", 32, 128, 1, torch.float16): ("stepwise", 0),
}


@pytest.mark.parametrize("case", CHOICES)
def test_choices(case: tuple[str, int, int, int, torch.dtype]) -> None:
    gpu, rows, hidden, directions, dtype = case
    plan = plan_forward(rows, hidden, directions, 100, dtype, False, GPUS[gpu])
    assert (plan.family, plan.team) == CHOICES[case]


def test_more_rows_than_blocks_take_two_row_tiles() -> None:
    small, large = (
        plan_forward(rows, 128, 1, 10, torch.bfloat16, False, GPUS["H100"]) for rows in (132 * 8, 132 * 8 + 1)
    )
    assert (small.row_tiles, large.row_tiles) == (1, 2)


def test_explain_says_what_is_launched() -> None:
    text = explain(32, 128, dtype=torch.bfloat16, gpu="H100")
    assert "block-persistent" in text
    assert "4 blocks of 512 threads" in text
    assert "stepwise" in explain(32, 128, dtype=torch.float64)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="hidden_size: got 0, expected at least 1"):
        explain(1, 0)
    with pytest.raises(ValueError, match=r"dtype: got torch\.int8"):
        explain(1, 1, dtype=torch.int8)
    with pytest.raises(ValueError, match="gpu: got 'H1000', expected one of H100"):
        explain(1, 1, gpu="H1000")


def test_the_name_stays_the_functions(tmp_path: Path) -> None:
    code = "import textclf_fast, textclf_fast.launch_plan; print(textclf_fast.explain.__name__)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.stdout == "explain\n"
