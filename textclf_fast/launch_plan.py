"""Which CUDA kernels compute a layer on which GPU, and how they cut it: for people, and without a GPU."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch

from textclf_fast import _libraries

FAMILIES = ("block", "cluster", "grid", "stepwise")
_PRECISIONS = {torch.float64: 0, torch.float32: 1, torch.bfloat16: 3, torch.float16: 4}
_TF32 = 2


@dataclass(frozen=True)
class Gpu:
    """What of a GPU the plan depends on."""

    capability: int  # 90 for 9.0
    multiprocessors: int
    shared_bytes: int  # that a block may ask for
    largest_cluster: int  # blocks; 1 for none


GPUS = {
    "H100": Gpu(90, 132, 227 << 10, 8),
    "A100": Gpu(80, 108, 163 << 10, 1),
    "RTX 4090": Gpu(89, 128, 99 << 10, 1),
    "T4": Gpu(75, 40, 64 << 10, 1),
}


@dataclass(frozen=True)
class LaunchPlan:
    """How a layer is cut (csrc/cuda/lstm_tiles.h); zeros where the family is "stepwise"."""

    family: str  # of FAMILIES
    reason: str  # why this one
    team: int  # blocks that share W_hh
    slices: int  # teams a direction
    unit_tiles: int  # of a block: 8 hidden units each
    splits: int  # warps that share a unit tile
    chunks: int  # 64 bytes of a row of W_hh: of a warp
    total_chunks: int  # of a row
    kept: int  # chunks of a warp that are in registers
    row_tiles: int  # of a team: 8 rows each
    shared_bytes: int  # of a block

    @property
    def threads(self) -> int:
        return 32 * self.unit_tiles * self.splits


def gpu_of(device: str | torch.device) -> Gpu:
    """A GPU by its name in GPUS, or one that is here.

    Raises:
        ValueError: neither.
    """
    if isinstance(device, str) and device in GPUS:
        return GPUS[device]
    try:
        properties = torch.cuda.get_device_properties(torch.device(device))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(f"gpu: got {device!r}, expected one of {', '.join(GPUS)} or a CUDA device ({error})") from None
    capability = 10 * properties.major + properties.minor
    shared = properties.shared_memory_per_block_optin  # type: ignore[attr-defined]
    return Gpu(capability, properties.multi_processor_count, shared, 8 if capability >= 90 else 1)


def plan_forward(
    batch_size: int, hidden_size: int, directions: int, steps: int, dtype: torch.dtype, tf32: bool, gpu: Gpu
) -> LaunchPlan:
    """The plan for a layer's forward; float32 in tf32 if so told.

    Raises:
        ValueError: a size below 1, or a dtype that no kernel has.
    """
    sizes = {"batch_size": batch_size, "hidden_size": hidden_size, "directions": directions, "steps": steps}
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name}: got {value}, expected at least 1")
    if dtype not in _PRECISIONS:
        raise ValueError(f"dtype: got {dtype}, expected one of {', '.join(map(str, _PRECISIONS))}")
    precision = _TF32 if tf32 and dtype == torch.float32 else _PRECISIONS[dtype]
    positions = batch_size * steps
    layer = (ctypes.c_int64 * 6)(batch_size, hidden_size, directions, steps, positions, positions)
    device = (ctypes.c_int64 * 4)(gpu.capability, gpu.multiprocessors, gpu.shared_bytes, gpu.largest_cluster)
    numbers = (ctypes.c_int64 * 10)()
    function = ctypes.CDLL(_libraries.library_path()).textclf_fast_cuda_plan
    function.restype = ctypes.c_char_p
    reason = function(layer, precision, device, numbers).decode()
    family, *tiles = list(numbers)
    return LaunchPlan(FAMILIES[family], reason, *tiles)


def explain(
    batch_size: int,
    hidden_size: int,
    *,
    bidirectional: bool = False,
    steps: int = 1,
    dtype: torch.dtype = torch.float32,
    tf32: bool = False,
    gpu: str | torch.device = "H100",
) -> str:
    """How the CUDA kernels would compute one LSTM layer's forward, in a few lines.

    Args:
        batch_size, hidden_size, bidirectional, steps, dtype: of the layer and its batch.
        tf32: whether float32 may be rounded to tf32 for products.
        gpu: a name in ``textclf_fast.launch_plan.GPUS``, or a CUDA device that is here.

    Raises:
        ValueError: a size, dtype or GPU that is none.
    """
    directions = 2 if bidirectional else 1
    plan = plan_forward(batch_size, hidden_size, directions, steps, dtype, tf32, gpu_of(gpu))
    name = "tf32" if tf32 and dtype == torch.float32 else str(dtype).removeprefix("torch.")
    layer = f"B = {batch_size}, H = {hidden_size}, {directions} direction{'s'[: directions - 1]}, {name} on {gpu}"
    if plan.family == "stepwise":
        return f"{layer}: stepwise, a GEMM and a kernel a step ({plan.reason})"
    blocks = plan.team * plan.slices * directions
    kept = min(plan.kept, plan.chunks)
    return "\n".join(
        [
            f"{layer}: {plan.family}-persistent, one launch ({plan.reason})",
            f"  {blocks} blocks of {plan.threads} threads, {plan.shared_bytes} bytes of shared memory each",
            f"  teams of {plan.team}: {plan.slices} a direction, {8 * plan.row_tiles} rows of the batch each",
            f"  a block has {8 * plan.unit_tiles} units; {plan.splits} warps share the depth of 8 of them",
            f"  a warp has {plan.chunks} of {plan.total_chunks} chunks of W_hh, {kept} of them in registers",
        ]
    )
