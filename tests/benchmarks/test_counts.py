"""The work of a cell small enough to be counted by hand, and the cells themselves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from benchmarks.cells import FLOAT_CELLS, INT8_CELLS, PACKED_CELLS, TEXT_CELLS, Cell, draw_ids, draw_lengths
from benchmarks.counts import Work, count_work
from benchmarks.machine_peaks import Peaks
from benchmarks.roofline import bound

# B=2, T=3, E=5, H=2, so 4H = 8; N=4 positions, U=3 distinct tokens of V=7.
TINY = Cell(2, 3, 5, 2, fill=0.67, vocabulary=7)


def test_inference_of_a_tiny_cell() -> None:
    work = count_work(TINY, False, 4, 3, "avx2")
    assert work.operations == {"float32": 4 * 2 * 8 * 2 + 4 * 2 * (2 * 89)}  # recurrent product; functions of 2 units
    assert work.weight_size == 8 * 2 * 4
    assert work.weight_bytes == 3 * 64  # once a step
    assert work.streamed_bytes == 4 * (4 * 8 + 4 * 2) + 8 * 4  # gates read, output written; ids


def test_training_of_a_tiny_cell() -> None:
    work = count_work(TINY, True, 4, 3, "avx2")
    products = 3 * (4 * 2 * 8 * 2 + 3 * 2 * 8 * 5)  # recurrent at 4 positions, projection of 3 tokens
    assert work.operations == {"float32": products + 4 * 2 * 2 * (89 + 4 + 38)}
    assert work.weight_bytes == (2 * 3 + 1) * 64
    forward = 3 * (5 + 8) + 4 * (8 + 2) + 4 * 10
    backward = 4 * (10 + 2) + 3 * (3 * 8 + 2 * 5)
    assert work.streamed_bytes == 4 * (forward + backward + 7 * 5) + 8 * 4


def test_layers_directions_and_input_of_floats() -> None:
    cell = Cell(2, 3, 5, 2, layers=2, bidirectional=True, form="float")
    work = count_work(cell, False, 6, 0, "avx512")
    recurrence = 4 * 6 * (2 * 8 * 2 + 2 * 190)  # two layers, two directions
    assert work.operations == {"float32": recurrence + 2 * 6 * 2 * 8 * 5 + 2 * 6 * 2 * 8 * 4}
    assert work.weight_bytes == 4 * 3 * 64


@pytest.mark.parametrize("kernels", ["avx512_bf16", "amx"])
def test_bfloat16_products_and_bytes(kernels: str) -> None:
    """Half the bytes of all but the gates; functions and the forward projection in float32."""
    cell = Cell(2, 3, 5, 2, form="float")
    wide = count_work(cell, True, 6, 0, kernels)
    narrow = count_work(dataclasses.replace(cell, dtype="bfloat16"), True, 6, 0, kernels)
    products = 3 * 6 * 2 * 8 * 2 + 2 * 6 * 2 * 8 * 5
    assert narrow.operations == {"float32": wide.operations["float32"] - products, "bfloat16": products}
    assert wide.weight_bytes == (2 * 3 + 1) * 64
    assert narrow.weight_bytes == 2 * 3 * 32 + 64  # the gradient is summed in float32
    gates = 4 * 6 * (2 * 8 + 3 * 8)  # written and read; their gradient written, read twice
    assert wide.streamed_bytes - gates == 2 * (narrow.streamed_bytes - gates)


def test_bfloat16_without_its_products_is_float32() -> None:
    cell = Cell(2, 3, 5, 2, form="float")
    narrow = count_work(dataclasses.replace(cell, dtype="bfloat16"), True, 6, 0, "avx2")
    assert narrow == count_work(cell, True, 6, 0, "avx2")


@pytest.mark.parametrize(("kernels", "share"), [("avx512_bf16", 1 / 4), ("avx2", 4.25 / 4)])
def test_int8_makes_w_hh_a_quarter_and_leaves_the_rest(kernels: str, share: float) -> None:
    wide = count_work(TINY, False, 4, 3, kernels)
    narrow = count_work(dataclasses.replace(TINY, int8=True), False, 4, 3, kernels)
    assert narrow.weight_size * 4 == wide.weight_size
    assert narrow.weight_bytes * 4 == wide.weight_bytes
    assert narrow.streamed_bytes == wide.streamed_bytes
    assert wide.operations["float32"] - narrow.operations["float32"] == 4 * 2 * 8 * 2 * (1 - share)


@pytest.mark.parametrize(
    ("operations", "cache", "by", "seconds"), [(1000.0, 1e9, "operations", 1.552), (1e9, 192.0, "W_hh", 1.0)]
)
def test_the_longest_of_the_three_times_bounds(operations: float, cache: float, by: str, seconds: float) -> None:
    work = count_work(TINY, False, 4, 3, "avx2")  # 128 + 1,424 operations, 192 bytes of W_hh
    peaks = Peaks(1, {"float32": operations}, {64: cache, 2**20: 1e9}, 1e9, "")
    limit = bound(work, peaks)
    assert limit.by == by
    assert limit.seconds == pytest.approx(seconds)


def test_each_dtype_has_its_own_peak() -> None:
    work = Work({"float32": 100.0, "bfloat16": 300.0}, 0, 1, 0)
    assert bound(work, Peaks(1, {"float32": 100.0, "bfloat16": 200.0}, {64: 1.0}, 1.0, "")).seconds == 2.5


def test_a_cache_is_the_smallest_that_holds_it() -> None:
    peaks = Peaks(1, {}, {64: 3.0, 256: 2.0}, 1.0, "")
    assert [peaks.cache_rate(size) for size in (64, 65, 1000)] == [3.0, 2.0, 2.0]


def test_names_of_cells_are_unique() -> None:
    cells = [*TEXT_CELLS, *INT8_CELLS, *FLOAT_CELLS, *PACKED_CELLS]
    assert len({str(cell) for cell in cells}) == len({cell.id for cell in cells}) == len(cells)
    assert len(FLOAT_CELLS) == len(PACKED_CELLS) == 24
    assert TEXT_CELLS[0].id == "text-B1-T64-E100-H128-dense"
    assert INT8_CELLS[0].id == "int8-B1-T64-E100-H128-dense-int8"


def test_lengths_have_the_fill_and_ids_are_in_the_vocabulary() -> None:
    cell = Cell(64, 200, fill=0.42, vocabulary=50)
    generator = np.random.default_rng(0)
    lengths, ids = draw_lengths(cell, generator), draw_ids(cell, generator)
    assert lengths.max() == 200
    assert lengths.min() >= 1
    assert lengths.float().mean() / 200 == pytest.approx(0.42, abs=0.02)
    assert ids.shape == (200, 64)
    counts = torch.bincount(ids.flatten(), minlength=50)
    assert len(counts) == 50
    assert counts[0] > counts[-1]
