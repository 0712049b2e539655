"""How much work a cell is, counted: what the roofline page sets its measurements against.

Letters: L layers, D directions, H hidden, E embedding, V vocabulary, T steps, N positions = sum of lengths, U distinct
tokens of the batch, b bytes of a number (1 of W_hh's with int8). An operation is one addition or multiplication.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.cells import Cell

# The gates' functions, in vector instructions a unit; each is counted as the fused multiply-add, 2 operations, whose
# place it takes. A sigmoid or tanh: a clamp 2, the exponential 13 (1 to scale, 3 to reduce, 7 of the polynomial, 2 to
# make 2^n), the rest with its division 6: 21. Five of them and the cell's update, 3, make 108.
FORWARD_INSTRUCTIONS = 5 * 21 + 3
# tanh(c) anew, 21, and some 24 for the gradients of four gates and of the cell.
BACKWARD_INSTRUCTIONS = 21 + 24

BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Work:
    """What a cell takes at least.

    Attributes:
        operations: additions and multiplications, real positions alone.
        weight_bytes: bytes of W_hh read, from the cache level that it lives in: once a step, layer and direction.
        weight_size: bytes of one direction's W_hh, which decide that level.
        streamed_bytes: bytes of gates, activations, outputs, gradients and ids written and read, each once.
    """

    operations: float
    weight_bytes: float
    weight_size: float
    streamed_bytes: float


def count_work(cell: Cell, training: bool, positions: int, distinct: int) -> Work:
    """The work of one call.

    Args:
        cell: its shape.
        training: forward and backward; otherwise inference, on tokens with the table of the whole vocabulary kept.
        positions: N.
        distinct: U; 0 where the input is not tokens.
    """
    hidden, directions, b = cell.hidden, 2 if cell.bidirectional else 1, BYTES[cell.dtype]
    gates = 4 * hidden
    runs = cell.layers * directions  # of the recurrence
    passes = 3 if training else 1  # each product: forward, gradient of its input, gradient of its weight

    # vpdpbusd multiplies four pairs of bytes in a lane where a fused multiply-add of float32 multiplies one pair.
    product = 2 * gates * hidden * passes / (4 if cell.int8 else 1)
    pointwise = 2 * (FORWARD_INSTRUCTIONS + (BACKWARD_INSTRUCTIONS if training else 0))
    operations = runs * positions * (product + pointwise * hidden)
    streamed = 0.0
    for layer in range(cell.layers):
        on_tokens = layer == 0 and cell.form == "tokens"
        width = cell.embedding if layer == 0 else directions * hidden
        # Rows that are projected: every position; of tokens the distinct ones; none where the table is kept.
        rows = positions if not on_tokens else distinct if training else 0
        operations += directions * rows * 2 * gates * width * passes
        streamed += b * (_forward_numbers(rows, positions, width, directions, hidden, training))
        if training:
            streamed += b * _backward_numbers(rows, positions, width, directions, hidden)
        if on_tokens:
            streamed += 8 * positions
            if training:
                streamed += b * cell.vocabulary * cell.embedding  # the dense gradient of the table, set to zero
    weight_size = gates * hidden * (1 if cell.int8 else b)
    # The backward reads W_hh as often as the forward; its gradient is written once.
    reads = cell.steps * (2 if training else 1) + (1 if training else 0)
    return Work(operations, runs * reads * weight_size, weight_size, streamed)


def _forward_numbers(rows: int, positions: int, width: int, directions: int, hidden: int, training: bool) -> int:
    """Numbers written and read by a layer's forward."""
    projection = rows * (width + directions * 4 * hidden)  # read, written
    recurrence = positions * directions * (4 * hidden + hidden)  # gates read, output written
    kept = positions * directions * 5 * hidden if training else 0  # four activations and the cell
    return projection + recurrence + kept


def _backward_numbers(rows: int, positions: int, width: int, directions: int, hidden: int) -> int:
    """Numbers written and read by a layer's backward."""
    recurrence = positions * directions * (5 * hidden + 4 * hidden)  # what was kept read, gates' gradients written
    w_hh = positions * directions * (4 * hidden + hidden)  # gates' gradients and outputs read
    # By token: the gates' gradients are read once more and summed. Without, they are the rows' own.
    summed = positions * directions * 4 * hidden + rows * directions * 4 * hidden if rows != positions else 0
    projection = rows * (2 * directions * 4 * hidden + 2 * width)  # both products read them; input read, its gradient
    return recurrence + w_hh + summed + projection
