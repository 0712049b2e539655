"""The plan of the backward's CUDA kernels, compiled by itself: it fits the GPU and covers the layer."""

from __future__ import annotations

import ctypes
import itertools
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from os import environ
from pathlib import Path

import pytest

from textclf_fast.launch_plan import FAMILIES, GPUS, Gpu

SOURCE = Path(__file__).parents[2] / "csrc" / "cuda" / "explain_plan.cpp"
COMPILER = shlex.split(environ.get("CXX", "")) or ["g++"]
PRECISIONS = {"float32": 1, "tf32": 2, "bfloat16": 3}
SIZES = [1, 2, 7, 8, 31, 64, 100, 128, 129, 192, 256, 300, 511, 512, 768, 1000, 1024, 1536, 2048, 4096, 20000]


@dataclass(frozen=True)
class Plan:
    family: str
    team: int
    slices: int
    units: int
    warp_tiles: int
    columns: int
    splits: int
    chunks: int
    total_chunks: int
    kept: int
    row_tiles: int
    shared_bytes: int


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if shutil.which(COMPILER[0]) is None:
        pytest.skip(f"{COMPILER[0]} is not installed")
    target = tmp_path_factory.mktemp("plan") / "plan.so"
    subprocess.run([*COMPILER, "-std=c++20", "-O1", "-shared", "-fPIC", str(SOURCE), "-o", str(target)], check=True)
    return ctypes.CDLL(str(target))


def _plan(library: ctypes.CDLL, rows: int, hidden: int, directions: int, precision: str, gpu: Gpu) -> Plan:
    layer = (ctypes.c_int64 * 6)(rows, hidden, directions, 100, rows * 100, rows * 100)
    device = (ctypes.c_int64 * 4)(gpu.capability, gpu.multiprocessors, gpu.shared_bytes, gpu.largest_cluster)
    numbers = (ctypes.c_int64 * 12)()
    library.textclf_fast_cuda_backward_plan(layer, PRECISIONS[precision], device, numbers)
    family, *rest = list(numbers)
    return Plan(FAMILIES[family], *rest)


def _check(plan: Plan, rows: int, hidden: int, directions: int, precision: str, gpu: Gpu) -> None:
    if plan.family == "stepwise":
        return
    assert gpu.capability >= 80
    # Within the GPU's limits.
    warps = plan.columns * plan.splits
    assert plan.shared_bytes <= gpu.shared_bytes
    assert 1 <= warps <= 16
    assert plan.row_tiles == 1 or precision != "float32"
    if plan.family == "block":
        assert plan.team == 1
    if plan.family == "cluster":
        assert 2 <= plan.team <= gpu.largest_cluster
    if plan.family == "grid":  # blocks that wait for each other are on the GPU together
        assert plan.team * plan.slices * directions <= gpu.multiprocessors
    # Every unit, row, column and chunk is somebody's, and no warp is without work.
    number_bytes = 2 if precision == "bfloat16" else 4
    assert plan.team * plan.units >= hidden
    assert plan.units % 8 == 0
    assert (plan.slices - 1) * plan.row_tiles * 8 < rows <= plan.slices * plan.row_tiles * 8
    assert (plan.columns - 1) * plan.warp_tiles * 32 < hidden <= plan.columns * plan.warp_tiles * 32
    assert plan.total_chunks * 64 == plan.units * 4 * number_bytes
    assert (plan.splits - 1) * plan.chunks < plan.total_chunks <= plan.splits * plan.chunks
    # A thread has one pair of units a row tile.
    assert warps * 32 * 2 >= plan.units * 8
    # Shared memory: weights that are not in registers, gates' gradients, sums of every split.
    weights = warps * (plan.warp_tiles * plan.chunks - min(plan.chunks, plan.kept)) * 2048
    image = plan.row_tiles * 8 * (plan.total_chunks | 1) * 64
    sums = plan.team * plan.splits * plan.row_tiles * 8 * (plan.units + 4) * 4
    assert plan.shared_bytes == weights + image + (2 if plan.family == "cluster" else 1) * sums


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_fits_the_gpu_and_covers_the_layer(library: ctypes.CDLL, gpu: str, precision: str) -> None:
    for hidden, rows, directions in itertools.product(SIZES, [1, 8, 9, 32, 100, 256, 5000], [1, 2]):
        plan = _plan(library, rows, hidden, directions, precision, GPUS[gpu])
        _check(plan, rows, hidden, directions, precision, GPUS[gpu])


# (GPU, B, H, D, precision): family and team. What a person would expect, and a change of the rules has to think about.
CHOICES = {
    ("H100", 32, 128, 1, "float32"): ("block", 1),
    ("H100", 32, 128, 2, "bfloat16"): ("block", 1),
    ("RTX 4090", 32, 128, 1, "bfloat16"): ("block", 1),
    ("H100", 32, 256, 1, "bfloat16"): ("cluster", 8),
    ("H100", 32, 512, 1, "bfloat16"): ("cluster", 8),
    ("H100", 16, 1024, 1, "bfloat16"): ("grid", 64),
    ("H100", 512, 1024, 1, "bfloat16"): ("stepwise", 0),
}


@pytest.mark.parametrize("case", CHOICES)
def test_choices(library: ctypes.CDLL, case: tuple[str, int, int, int, str]) -> None:
    gpu, rows, hidden, directions, precision = case
    plan = _plan(library, rows, hidden, directions, precision, GPUS[gpu])
    assert (plan.family, plan.team) == CHOICES[case]


def test_every_size_that_fits_one_block_takes_one(library: ctypes.CDLL) -> None:
    """No H up to 128 is left without threads enough for its cells."""
    for hidden in range(1, 129):
        assert _plan(library, 32, hidden, 1, "bfloat16", GPUS["H100"]).family == "block"
