"""How much work a cell is, counted: what the roofline page sets its measurements against.

Letters: L layers, D directions, H hidden, E embedding, V vocabulary, T steps, N positions = sum of lengths, U distinct
tokens of the batch, b bytes of a number. An operation is one addition or multiplication.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.cells import Cell
from textclf_fast._libraries import BFLOAT16_ISAS


@dataclass(frozen=True)
class Instructions:
    """Vector instructions that the kernels of csrc/cpu take for a vector of numbers; loads, stores and moves apart.

    tests/benchmarks/test_instructions.py counts them in what the compiler makes of the kernels.

    Attributes:
        forward: a cell, from both halves of its gates to h and c.
        saving: what the activations take that a training step saves, and that inference has no need of by themselves.
        backward: a cell, from the gradients of h and c to those of its gates and of the c before.
        int8_product: four products of bytes in each lane and their sum; of what is done to h for four gates, a quarter.
    """

    forward: int
    saving: int
    backward: int
    int8_product: float


# e^kx - 1 or e^kx + 1 takes 15: to clamp 2, to reduce 3, the polynomial 6, 2^n 2, the last sum 2.  A cell forward: the
# gates' halves 4, five exponentials 75, m + 2 twice, 5 products and fused sums of them, three reciprocals; saving i, g
# and o: 4 products.  Its backward: the sum dh 1, tanh(c) 18 with a reciprocal, the gradients 19.  A reciprocal is one
# instruction, a division; with AVX-512 it is three.
_AVX2 = Instructions(89, 4, 38, 4.25)
_VNNI = Instructions(95, 4, 40, 1)  # which most machines with AVX-512 have
INSTRUCTIONS = {
    "generic": Instructions(89, 4, 38, 11.75),  # as if it had AVX2's fused multiply-add, minimum and maximum
    "avx2": _AVX2,
    "avx512": _VNNI,
    "avx512_bf16": _VNNI,
    "amx": _VNNI,
}


@dataclass(frozen=True)
class Work:
    """What a cell takes at least.

    Attributes:
        operations: additions and multiplications by dtype of the products; real positions alone.
        weight_bytes: bytes of W_hh read, from the cache level that it lives in: once a step, layer and direction.
        weight_size: bytes of one direction's W_hh, which decide that level.
        streamed_bytes: bytes of gates, activations, outputs, gradients and ids written and read, each once.
    """

    operations: dict[str, float]
    weight_bytes: float
    weight_size: float
    streamed_bytes: float


def count_work(cell: Cell, training: bool, positions: int, distinct: int, kernels: str) -> Work:
    """The work of one call.

    Args:
        cell: its shape.
        training: forward and backward; otherwise inference, on tokens with the table of the whole vocabulary kept.
        positions: N.
        distinct: U; 0 where the input is not tokens.
        kernels: the instruction set, one of ``INSTRUCTIONS``.
    """
    hidden, directions = cell.hidden, 2 if cell.bidirectional else 1
    gates = 4 * hidden
    runs = cell.layers * directions  # of the recurrence
    instructions = INSTRUCTIONS[kernels]
    # Without products of bfloat16 all is converted and computed in float32.
    product_dtype = cell.dtype if kernels in BFLOAT16_ISAS else "float32"
    b = 2 if product_dtype == "bfloat16" else 4
    operations = {"float32": 0.0, product_dtype: 0.0}

    pointwise = instructions.forward + (instructions.saving + instructions.backward if training else 0)
    operations["float32"] += runs * positions * 2 * pointwise * hidden
    product = runs * positions * 2 * gates * hidden  # forward; gradient of h; gradient of W_hh
    operations[product_dtype] += product * (3 if training else 1) * (instructions.int8_product / 4 if cell.int8 else 1)
    streamed = 0.0
    for layer in range(cell.layers):
        on_tokens = layer == 0 and cell.form == "tokens"
        width = cell.embedding if layer == 0 else directions * hidden
        # Rows that are projected: every position; of tokens the distinct ones; none where the table is kept.
        rows = positions if not on_tokens else distinct if training else 0
        projection = directions * rows * 2 * gates * width
        operations["float32"] += projection
        streamed += _forward_bytes(rows, positions, width, directions, hidden, b, training)
        if training:
            operations[product_dtype] += 2 * projection  # gradients of both factors
            streamed += _backward_bytes(rows, positions, width, directions, hidden, b)
        if on_tokens:
            streamed += 8 * positions
            if training:
                streamed += b * cell.vocabulary * cell.embedding  # the dense gradient of the table, set to zero
    weight_size = gates * hidden * (1 if cell.int8 else b)
    # The backward reads W_hh as often as the forward; its gradient, in float32, is written once.
    weight_bytes = runs * cell.steps * weight_size * (2 if training else 1)
    if training:
        weight_bytes += runs * 4 * gates * hidden
    return Work(operations, weight_bytes, weight_size, streamed)


# Gates before their functions, and their gradients, are float32 beside numbers of bfloat16, too.
_GATE_BYTES = 4


def _forward_bytes(rows: int, positions: int, width: int, directions: int, hidden: int, b: int, training: bool) -> int:
    """Bytes written and read by a layer's forward."""
    gates = directions * 4 * hidden * _GATE_BYTES
    projection = rows * (width * b + gates)  # read, written
    recurrence = positions * (gates + directions * hidden * b)  # read, output written
    kept = positions * directions * 5 * hidden * b if training else 0  # four activations and the cell
    return projection + recurrence + kept


def _backward_bytes(rows: int, positions: int, width: int, directions: int, hidden: int, b: int) -> int:
    """Bytes written and read by a layer's backward.

    The gradients of a chunk's gates are in the cache when W_hh's gradient and, of tokens, the rows' sums are made of
    them: what goes further is one gradient for each projected row.
    """
    recurrence = positions * directions * (5 * hidden + hidden) * b  # what was kept, and outputs, read
    gates = rows * directions * 4 * hidden * _GATE_BYTES
    return recurrence + 3 * gates + rows * 2 * width * b  # written, read for both products; input read, its gradient
