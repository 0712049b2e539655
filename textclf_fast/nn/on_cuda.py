"""Whether our CUDA kernels compute a call, or PyTorch's path, which is cuDNN: who can, and who is faster.

And which tokens they project. All of it is decided from sizes, none was measured.
"""

from __future__ import annotations

import functools
import math
import os
from typing import NamedTuple

import torch
from torch import Tensor, nn

from textclf_fast import ops
from textclf_fast._libraries import cuda_has, tf32_is_allowed
from textclf_fast.launch_plan import gpu_of, plan_forward
from textclf_fast.nn import beside_cudnn
from textclf_fast.nn.projection import project

# None of these kernels has run on a GPU yet, only on an emulator: they are taken where they are asked for.
ASKED_FOR = os.environ.get("TEXTCLF_FAST_CUDA_KERNELS") == "1"
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # those of the persistent kernels


class Measured(NamedTuple):
    """How many times as fast as cuDNN ours was on a dense batch of float input, one layer."""

    capability: int  # of the GPU: 90 for 9.0
    dtype: torch.dtype
    tf32: bool
    directions: int
    rows: int  # B
    hidden: int  # H
    speed: float


# Where nothing has been measured, dense batches of float input stay with cuDNN.
FORWARD = tuple(map(Measured._make, beside_cudnn.FORWARD))  # inference
TRAINING = tuple(map(Measured._make, beside_cudnn.TRAINING))  # forward and backward
# Ours take at most 0.97 of cuDNN's time then: what was as fast once may be slower on another day, or at half the size.
_WINS = 1 / 0.97


def faster_than_cudnn(measured: tuple[Measured, ...], layer: Measured) -> bool:
    """Whether the nearest cell says so that was measured on such a GPU, with a margin; False where none is near.

    Args:
        measured: cells, in any order.
        layer: the layer that is asked for; its speed does not matter.

    Near is at most twice or half as much in B and in H: beyond, another family of kernels may be at work.
    """

    def distance(cell: Measured) -> float:
        if cell[:4] != layer[:4]:
            return math.inf
        return max(abs(math.log2(cell.rows / layer.rows)), abs(math.log2(cell.hidden / layer.hidden)))

    nearest = min(measured, key=distance, default=None)
    return nearest is not None and distance(nearest) <= 1 and nearest.speed >= _WINS


def cuda_kernels_can(lstm: nn.LSTM, *tensors: Tensor) -> bool:
    """Whether they are asked for, and compute this module, on a GPU, and these inputs and states.

    They do not: proj_size, float64, training where the library has no op of it, and what is under autocast,
    torch.compile or a transform. PyTorch's path takes these. (Autocast has nn.LSTM compute in float16 on a GPU,
    whatever its dtype.)
    """
    weights = lstm._flat_weights
    like: Tensor = weights[0]  # type: ignore[assignment]
    return (
        ASKED_FOR
        and like.dtype in _DTYPES
        and lstm.proj_size == 0
        and not torch.compiler.is_compiling()
        and cuda_has("lstm_backward" if torch.is_grad_enabled() else "lstm_inference")
        and not torch.is_autocast_enabled("cuda")
        and all(t is not None and t.device == like.device and t.dtype == like.dtype for t in (*weights, *tensors))
        and ops.transforms_are_off()
    )


def cuda_kernels_pay(lstm: nn.LSTM, rows: int, steps: int, dense_floats: bool = False) -> bool:
    """Whether they are the better way to compute a batch that they can.

    Token ids are projected once each, padding costs nothing, and nn.LSTM takes cuDNN's slowest algorithm for packed
    batches: there ours are taken wherever one launch does all steps. (Unmeasured.)

    Args:
        rows, steps: B and T of the batch.
        dense_floats: whether it is dense and of floats; see :func:`faster_than_cudnn`.
    """
    like: Tensor = lstm._flat_weights[0]  # type: ignore[assignment]
    directions, hidden = 2 if lstm.bidirectional else 1, lstm.hidden_size
    tf32 = like.dtype == torch.float32 and tf32_is_allowed()
    gpu = _gpu(like.device)
    if _plan(rows, hidden, directions, steps, like.dtype, tf32, gpu).family == "stepwise":
        return False
    if not dense_floats:
        return True
    measured = TRAINING if torch.is_grad_enabled() else FORWARD
    return faster_than_cudnn(measured, Measured(gpu.capability, like.dtype, tf32, directions, rows, hidden, 0.0))


_plan = functools.lru_cache(maxsize=4096)(plan_forward)
_gpu = functools.cache(gpu_of)


def vocabulary_is_cheaper(positions: int, vocabulary: int) -> bool:
    """Whether projecting all V tokens costs less than projecting N positions, where no table is kept.

    The third way, the U distinct tokens of the batch, as on the CPU, is not taken. How many there are is known to the
    GPU: finding them takes a sort of N numbers, some 10 launches, and waiting for U, which also ends the capture of a
    graph: 0.1 ms or more. It would save min(N, V) - U of the rows; at V = 10,000, I = 100, H = 128 a row is 0.1 million
    operations, so 10,000 of them are a billion: 0.02 to 0.05 ms at the 20 to 60 TFLOP/s that GPUs reach in float32.
    (Arithmetic, not measured.)
    """
    return vocabulary <= positions


def project_tokens(embedding: nn.Embedding, lstm: nn.LSTM, ids: Tensor) -> tuple[Tensor, Tensor | None]:
    """Gates (D, R, 4H) of tokens (N,) where no table is kept, and the row of each position, or None where R is N.

    In inference an id that is none has no row, -1 or beyond R: PyTorch's look-up, which training takes, would end the
    process' use of the GPU. (In training there is no index: its backward would sort the positions by their rows.)
    """
    if torch.is_grad_enabled():
        return project(embedding(ids), lstm, 0), None
    if embedding.max_norm is None and vocabulary_is_cheaper(ids.numel(), embedding.num_embeddings):
        return project(embedding.weight, lstm, 0), ids
    known = (ids >= 0) & (ids < embedding.num_embeddings)
    gates = project(embedding(torch.where(known, ids, 0)), lstm, 0)
    return gates, torch.where(known, torch.arange(ids.numel(), device=ids.device), -1)
