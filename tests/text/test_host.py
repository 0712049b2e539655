"""The packer in C++, called as it is: results against a plain Python packer, and every argument that it refuses."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import textclf_fast._host as _host  # type: ignore[import-not-found]

Ints = NDArray[np.int64]

VALUES = np.arange(10, 22)
OFFSETS = np.array([0, 3, 3, 8, 12])  # rows of 3, 0, 5 and 4 tokens


def ragged(lengths: list[int]) -> tuple[Ints, Ints]:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return np.random.default_rng(0).integers(2, 1000, offsets[-1]), offsets


def packed_by_hand(values: Ints, offsets: Ints, rows: Ints) -> tuple[list[int], list[int], list[int], list[int]]:
    batch = [values[offsets[row] : offsets[row + 1]].tolist() for row in rows]
    order = sorted(range(len(batch)), key=lambda place: -len(batch[place]))
    alive = [[batch[place] for place in order if len(batch[place]) > t] for t in range(len(batch[order[0]]))]
    data = [row[t] for t, rows_alive in enumerate(alive) for row in rows_alive]
    return data, [len(rows_alive) for rows_alive in alive], order, np.argsort(order).tolist()


LENGTHS = {
    "one token": [1],
    "one row": [7],
    "equal": [4, 4, 4],
    "ones": [1] * 9,
    "falling": [6, 5, 3, 1],
    "rising": [1, 2, 4, 9],
    "mixed": [3, 1, 8, 3, 8, 2, 1, 1, 5],
    "one long": [1, 1, 300, 1],
    # More than two threads' worth (256 Ki tokens each), cut in the middle of a step and of a row.
    "threads, many rows": np.random.default_rng(1).integers(1, 120, 9001).tolist(),
    "threads, long rows": np.random.default_rng(2).integers(1, 200_003, 7).tolist(),
}


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_pack(lengths: list[int]) -> None:
    values, offsets = ragged(lengths)
    rows = np.arange(len(lengths))
    data, *others = _host.pack(values, offsets, rows)
    expected_data, *expected_others = packed_by_hand(values, offsets, rows)
    assert np.array_equal(data, expected_data)
    assert [array.tolist() for array in others] == expected_others
    assert {array.dtype for array in (data, *others)} == {np.dtype(np.int64)}


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_pad(lengths: list[int], batch_first: bool) -> None:
    values, offsets = ragged(lengths)
    ids, got_lengths = _host.pad(values, offsets, np.arange(len(lengths)), batch_first, -7)
    expected = np.full((len(lengths), max(lengths)), -7)
    for row, length in enumerate(lengths):
        expected[row, :length] = values[offsets[row] : offsets[row + 1]]
    assert np.array_equal(ids, expected if batch_first else expected.T)
    assert ids.dtype == got_lengths.dtype == np.int64
    assert got_lengths.tolist() == lengths


def test_rows_in_any_order_and_twice() -> None:
    rows = np.array([3, 0, 3, 2])
    data, sizes, order, back = (array.tolist() for array in _host.pack(VALUES, OFFSETS, rows))
    assert (data, sizes, order, back) == packed_by_hand(VALUES, OFFSETS, rows)
    assert order == [3, 0, 2, 1]  # the two rows of 4 tokens in the order asked for


READ_ONLY = VALUES.copy()
READ_ONLY.setflags(write=False)
MISALIGNED = np.frombuffer(b"\0" * (8 * 12 + 1), dtype=np.uint8)[1:].view(np.int64)


def test_read_only_arrays_are_taken() -> None:
    assert _host.pack(READ_ONLY, OFFSETS, np.array([0]))[0].tolist() == [10, 11, 12]


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "values list": ({"values": [1, 2]}, TypeError, "values: expected a numpy array, got list"),
    "rows None": ({"rows": None}, TypeError, "rows: expected a numpy array, got NoneType"),
    "values int32": ({"values": VALUES.astype(np.int32)}, TypeError, "values: expected dtype int64, got int32"),
    "offsets uint64": ({"offsets": OFFSETS.astype(np.uint64)}, TypeError, "offsets: expected dtype int64, got uint64"),
    "rows float": ({"rows": np.array([0.0])}, TypeError, "rows: expected dtype int64, got float64"),
    "rows bool": ({"rows": np.array([True])}, TypeError, "rows: expected dtype int64, got bool"),
    "rows big endian": ({"rows": np.array([0], dtype=">i8")}, TypeError, "rows: expected dtype int64, got >i8"),
    "values object": ({"values": np.array([None])}, TypeError, "values: expected dtype int64, got object"),
    "values 2-d": ({"values": VALUES.reshape(3, 4)}, ValueError, "values: expected one dimension, got 2"),
    "rows 0-d": ({"rows": np.array(0)}, ValueError, "rows: expected one dimension, got 0"),
    "values strided": ({"values": VALUES[::2]}, ValueError, "values: expected a contiguous, aligned array"),
    "offsets backwards": ({"offsets": OFFSETS[::-1]}, ValueError, "offsets: expected a contiguous, aligned array"),
    "values misaligned": ({"values": MISALIGNED}, ValueError, "values: expected a contiguous, aligned array"),
    "no offsets": ({"offsets": OFFSETS[:0]}, ValueError, "offsets: expected at least one entry, got none"),
    "no rows": ({"rows": np.array([], dtype=np.int64)}, ValueError, "rows: a batch needs at least one row, got none"),
    "row below": ({"rows": np.array([0, -1])}, IndexError, "rows: row -1 is out of range, there are 4 rows"),
    "row above": ({"rows": np.array([0, 4])}, IndexError, "rows: row 4 is out of range, there are 4 rows"),
    "row far above": ({"rows": np.array([2**63 - 1])}, IndexError, f"rows: row {2**63 - 1} is out of range"),
    "no rows at all": ({"offsets": np.array([0])}, IndexError, "rows: row 0 is out of range, there are 0 rows"),
    "empty row": ({"rows": np.array([0, 1])}, ValueError, "rows: row 1 is empty, expected at least one token"),
    "offsets fall": ({"offsets": np.array([5, 3])}, ValueError, "offsets: row 0 runs from 5 to 3, expected"),
    "offsets negative": ({"offsets": np.array([-1, 3])}, ValueError, "offsets: row 0 runs from -1 to 3, expected"),
    "offsets beyond": ({"offsets": np.array([0, 13])}, ValueError, "from 0 to 13, expected 0 <= from <= to <= 12 "),
    "offsets huge": ({"offsets": np.array([-(2**63), 2**63 - 1])}, ValueError, "offsets: row 0 runs from -9223"),
}


@pytest.mark.parametrize(("changed", "kind", "message"), BAD.values(), ids=BAD)
def test_refused(changed: dict[str, Any], kind: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"values": VALUES, "offsets": OFFSETS, "rows": np.array([0]), **changed}
    for call in (_host.pack, lambda **given: _host.pad(batch_first=False, padding_id=0, **given)):
        with pytest.raises(kind) as caught:
            call(**arguments)
        assert message in str(caught.value)


def test_many_threads_at_once() -> None:
    values, offsets = ragged(LENGTHS["threads, many rows"])
    rows = np.arange(len(offsets) - 1)
    expected = [array.copy() for array in _host.pack(values, offsets, rows)]
    same: list[bool] = []

    def work() -> None:
        for _ in range(3):
            got = _host.pack(values, offsets, rows)
            same.append(all(map(np.array_equal, got, expected)))

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert same == [True] * 18
