"""The int8 ops by themselves: the same integers on every instruction set, quantisation, arguments that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from textclf_fast import int8
from textclf_fast.reference import lstm_int8_reference, lstm_reference

OPS = torch.ops.textclf_fast
SIZES = (1, 3, 4, 8, 15, 16, 17, 50, 100, 128, 129)
both_directions = pytest.mark.parametrize("directions", [1, 2])


def _numbers(w: int8.Int8Recurrent, hidden: int) -> Tensor:
    """(D, 4H, H), out of the kernels' layout; what is left over has to be zero."""
    directions, blocks, fours = w.numbers.shape[:3]
    whole = w.numbers.permute(0, 3, 1, 4, 2, 5).reshape(directions, 4, blocks * 16, fours * 4).clone()
    kept = whole[:, :, :hidden, :hidden].clone()
    whole[:, :, :hidden, :hidden] = 0
    assert not whole.any()
    return kept.reshape(directions, 4 * hidden, hidden)


def _by_row(t: Tensor, hidden: int) -> Tensor:
    """(D, blocks, 4, 16) -> (D, 4H)."""
    return t.transpose(1, 2).reshape(t.size(0), 4, -1)[:, :, :hidden].reshape(t.size(0), -1)


@both_directions
@pytest.mark.parametrize("hidden", SIZES)
def test_quantisation(hidden: int, directions: int) -> None:
    w_hh = torch.randn(directions, 4 * hidden, hidden)
    w = int8.quantize_recurrent(w_hh)
    numbers, scales = _numbers(w, hidden), _by_row(w.scales, hidden)
    largest = w_hh.double().abs().amax(2)
    assert torch.equal(numbers.double(), (w_hh.double() * (127 / largest.unsqueeze(2))).round())
    torch.testing.assert_close(scales, (largest / 127**2).float(), rtol=1e-7, atol=0)
    assert torch.equal(_by_row(w.offsets, hidden), 128 * numbers.sum(2, dtype=torch.int32))
    error = (numbers.double() * scales.double().unsqueeze(2) * 127 - w_hh).abs()
    assert (error <= largest.unsqueeze(2) / 254 * 1.0001).all()  # half of a step


def test_quantisation_of_edge_rows(int8_isa: str) -> None:
    hidden = 20
    w_hh = torch.randn(1, 4 * hidden, hidden)
    w_hh[0, 0] = 0
    w_hh[0, 1] = 1e-6
    w_hh[0, 1, 3] = 3e38
    w_hh[0, 2] = 1e-44  # not a normal number
    w_hh[0, 3] = -w_hh[0, 3].abs()
    w_hh[0, 4, 2] = float("nan")
    w_hh[0, 5, 2] = float("-inf")
    w = int8.quantize_recurrent(w_hh)
    numbers, scales = _numbers(w, hidden)[0], _by_row(w.scales, hidden)[0]
    assert not numbers[0].any()
    assert scales[0] == 0
    assert numbers[1].tolist() == [0, 0, 0, 127, *[0] * 16]
    assert (numbers[2] == 127).all()
    assert int(numbers[3].min()) == -127
    assert numbers.abs().max() == 127
    assert scales[4].isnan()
    assert scales[5].isnan()
    _, h_n, _ = int8.lstm_int8_inference(torch.zeros(1, 2, 4 * hidden), None, torch.tensor([1, 1]), w)
    assert h_n[0, 0, 4].isnan()
    assert h_n[0, 0, 5].isnan()
    others = torch.cat([h_n[0, 0, :4], h_n[0, 0, 6:]])
    assert others.isfinite().all()


def _visible_problem(directions: int, hidden: int, rows: int) -> dict[str, Any]:
    """Two steps in which a difference of one in a single sum of products is seen in the results.

    The first step's gates are such that h = tanh(tanh(g)) is a multiple of 1 / 127, to within 1e-6: it is quantised
    without a doubt. One in a sum is worth 2^-9 in the second step's gates, where the table takes the sum away but for
    -2 .. 2: all in multiples of 2^-9 and below 2^24 of them, so float32 is exact. There the gates' functions have
    slopes of 0.07 and more, so one in a sum is some 1e-5 in h and c; rounding is 1e-7.
    """
    worth = 2.0**-9
    numbers = torch.randint(-127, 128, (directions, 4 * hidden, hidden)).double()
    numbers[..., 0] = 127  # the largest of each row: W_hh is quantised to just these numbers
    h = torch.randint(-90, 91, (directions, rows, hidden)).double()
    first = torch.full((directions, rows, 4, hidden), 40.0, dtype=torch.float64)
    first[:, :, 2] = (h / 127).atanh().atanh()
    second = (torch.randint(-1000, 1001, (directions, rows, 4 * hidden)) - h @ numbers.transpose(1, 2)) * worth
    gates = torch.cat([first.flatten(2), second], 1).float()
    steps = [gates[:1], gates[1:].roll(rows, 1)]  # the reverse direction begins with the second step
    return {
        "gates": torch.cat(steps[:directions]),
        "index": None,
        "batch_sizes": torch.tensor([rows, rows]),
        "w_hh": (numbers * (worth * 127)).float(),
    }


@both_directions
@pytest.mark.parametrize("rows", [1, 2, 3, 7])
@pytest.mark.parametrize("hidden", [1, 5, 16, 50, 100, 129])
@pytest.mark.usefixtures("_poisoned")
def test_every_instruction_set_has_the_same_integers(int8_isa: str, hidden: int, rows: int, directions: int) -> None:
    problem = _visible_problem(directions, hidden, rows)
    w = int8.quantize_recurrent(problem["w_hh"])
    got = int8.lstm_int8_inference(problem["gates"], None, problem["batch_sizes"], w)
    want = lstm_int8_reference(**problem)
    for name, a, b in zip(("output", "h_n", "c_n"), got, want, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("hidden", [128, 512])
def test_error_against_float64(int8_isa: str, hidden: int) -> None:
    """On weights of the usual magnitude, over 256 steps.

    h is off by at most 1 / 254, a weight by at most 1 / 254 of its row's largest, 1 / sqrt(H): by as much, and by
    chance, in each of H products, a gate is off by some 1 / 254 / sqrt(3) / sqrt(3) = 1e-3 in h's share at |h| = 1,
    and less in W_hh's. A gate's slope is at most 1, and f forgets: errors do not grow from step to step. 1e-2 leaves
    room for ten times as much in the one worst of rows * H numbers.
    """
    rows, steps = 8, 256
    table = torch.randn(2, 50, 4 * hidden) / 2
    w_hh = (torch.rand(2, 4 * hidden, hidden) * 2 - 1) / hidden**0.5
    ids = torch.randint(0, 50, (steps, rows))
    got = int8.embedding_lstm_int8_inference(table, ids, None, False, int8.quantize_recurrent(w_hh))
    zeros = torch.zeros(2, rows, hidden, dtype=torch.float64)
    sizes = torch.full((steps,), rows)
    output, h_n, c_n = lstm_reference(table.double(), ids.flatten(), sizes, w_hh.double(), zeros, zeros)
    for a, b in ((got[0].flatten(0, 1), output), (got[1], h_n), (got[2], c_n)):
        error = (a - b).abs()
        assert error.max() < 1e-2
        assert error.max() > 1e-5  # it is int8 that was computed
    classes = torch.randn(hidden, 5, dtype=torch.float64)
    ours, exact = got[1].double() @ classes, h_n @ classes
    best = exact.topk(2, -1)[0]
    clear = best[..., 0] - best[..., 1] > 0.02 * best.std()
    assert clear.float().mean() > 0.8
    assert torch.equal(ours.argmax(-1)[clear], exact.argmax(-1)[clear])


def _padded_arguments(directions: int, batch_first: bool, hidden: int = 20) -> dict[str, Any]:
    ids = torch.randint(0, 9, (4, 6) if batch_first else (6, 4))
    w_hh = torch.randn(directions, 4 * hidden, hidden)
    return {
        "table": torch.randn(directions, 9, 4 * hidden),
        "ids": ids,
        "lengths": torch.tensor([3, 6, 1, 5]),
        "batch_first": batch_first,
        **int8.quantize_recurrent(w_hh)._asdict(),
        "need_output": True,
    }


@both_directions
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.usefixtures("_poisoned")
def test_padded_and_packed_batches_agree(int8_isa: str, directions: int, batch_first: bool) -> None:
    a = _padded_arguments(directions, batch_first)
    output, h_n, c_n = OPS.embedding_lstm_int8_inference(**a)
    steps = output.transpose(0, 1) if batch_first else output
    ids = a["ids"].T if batch_first else a["ids"]
    w = int8.Int8Recurrent(a["numbers"], a["scales"], a["offsets"])
    for row, length in enumerate(a["lengths"].tolist()):
        alone = int8.lstm_int8_inference(a["table"], ids[:length, row], torch.ones(length, dtype=torch.int64), w)
        assert torch.equal(steps[:length, row], alone[0])
        assert torch.equal(h_n[:, row], alone[1][:, 0])
        assert torch.equal(c_n[:, row], alone[2][:, 0])
        assert not steps[length:, row].any()
    nothing, h, c = OPS.embedding_lstm_int8_inference(**a | {"need_output": False})
    assert nothing.shape == (0,)
    assert torch.equal(h, h_n)
    assert torch.equal(c, c_n)


@pytest.mark.parametrize("rows", [1, 2, 3, 20])
def test_threads_give_the_same_bits(rows: int) -> None:
    hidden, threads = 100, torch.get_num_threads()
    w = int8.quantize_recurrent(torch.randn(2, 4 * hidden, hidden))
    table, ids = torch.randn(2, 9, 4 * hidden), torch.randint(0, 9, (40, rows))
    try:
        torch.set_num_threads(1)
        want = int8.embedding_lstm_int8_inference(table, ids, None, False, w)
        for count in (2, 3, 5):
            torch.set_num_threads(count)
            for got, expected in zip(int8.embedding_lstm_int8_inference(table, ids, None, False, w), want, strict=True):
                assert torch.equal(got, expected)
    finally:
        torch.set_num_threads(threads)


@both_directions
def test_opcheck(directions: int) -> None:
    a = _padded_arguments(directions, False)
    torch.library.opcheck(OPS.quantize_recurrent.default, (torch.randn(directions, 80, 20),))
    torch.library.opcheck(OPS.embedding_lstm_int8_inference.default, tuple(a.values()))
    weights = (a["numbers"], a["scales"], a["offsets"])
    sizes, index = torch.tensor([3, 3, 1]), torch.randint(0, 9, (7,))
    for need_output in (True, False):
        torch.library.opcheck(OPS.lstm_int8_inference.default, (a["table"], index, sizes, *weights, need_output))
    torch.library.opcheck(OPS.lstm_int8_inference.default, (a["table"][:, :7], None, sizes, *weights, True))


def test_strided_arguments() -> None:
    a = _padded_arguments(2, True)
    want = OPS.embedding_lstm_int8_inference(**a)
    gaps = {k: torch.stack([v, torch.ones_like(v)], -1)[..., 0] if isinstance(v, Tensor) else v for k, v in a.items()}
    for got, expected in zip(OPS.embedding_lstm_int8_inference(**gaps), want, strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize(
    ("w_hh", "message"),
    [
        (torch.zeros(8, 2), r"w_hh: expected shape \(D, 4H, H\), got \(8, 2\)"),
        (torch.zeros(3, 8, 2), "w_hh: expected 1 or 2 directions, got 3"),
        (torch.zeros(1, 9, 2), "w_hh: expected shape"),
        (torch.zeros(1, 8, 2).double(), "w_hh: expected dtype float32"),
        (torch.zeros(1, 1, 1).expand(1, 4 * 65537, 65537), "w_hh: H is 65537, expected at most 65536"),
    ],
)
def test_bad_quantisation(w_hh: Tensor, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        int8.quantize_recurrent(w_hh)


BAD_WEIGHTS: list[tuple[dict[str, Any], str]] = [
    ({"numbers": torch.zeros(1, 2, 5, 4, 16, 4, dtype=torch.int8)}, "numbers: expected shape"),
    ({"numbers": torch.zeros(1, 2, 6, 4, 16, 4)}, "numbers: expected dtype int8"),
    ({"scales": torch.zeros(1, 2, 4, 15)}, r"scales: expected shape \(1, 2, 4, 16\), got \(1, 2, 4, 15\)"),
    ({"scales": torch.zeros(1, 2, 4, 16).double()}, "scales: expected dtype float32"),
    ({"offsets": torch.zeros(1, 1, 4, 16, dtype=torch.int32)}, "offsets: expected shape"),
    ({"offsets": torch.zeros(1, 2, 4, 16)}, "offsets: expected dtype int32"),
]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *BAD_WEIGHTS,
        ({"table": torch.zeros(9, 80)}, r"table: expected shape \(D, rows, 4H\)"),
        ({"table": torch.zeros(1, 9, 81)}, "table: expected shape"),
        ({"table": torch.zeros(3, 9, 80)}, "table: expected 1 or 2 directions, got 3"),
        ({"table": torch.zeros(1, 9, 80).double()}, "table: expected dtype float32"),
        ({"ids": torch.full((6, 4), 9)}, "ids: token id 9, expected 0 <= id < 9"),
        ({"ids": torch.ones(6, 4)}, "ids: expected dtype int64"),
        ({"ids": torch.ones(6, dtype=torch.int64)}, "ids: expected shape"),
        ({"lengths": torch.tensor([1, 2, 3, 7])}, r"lengths: lengths\[3\] = 7, expected 1 <= length <= 6"),
        ({"lengths": torch.tensor([1, 2, 3])}, "lengths: expected shape"),
    ],
)
def test_bad_padded_arguments(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        OPS.embedding_lstm_int8_inference(**_padded_arguments(1, False) | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *BAD_WEIGHTS,
        ({"gates": torch.zeros(1, 7, 80).double()}, "gates: expected dtype float32"),
        ({"gates": torch.zeros(1, 6, 80)}, "gates: expected one row for each of the 7 positions"),
        ({"index": torch.full((7,), 7)}, r"index: index\[0\] = 7, expected 0 <= index < 7"),
        ({"index": torch.zeros(6, dtype=torch.int64)}, "index: expected one entry"),
        ({"batch_sizes": torch.tensor([1, 3, 3])}, r"batch_sizes\[1\] = 3 after 1"),
        ({"batch_sizes": torch.tensor([3, 3, 0])}, r"batch_sizes\[2\] = 0, expected at least 1"),
        ({"batch_sizes": torch.tensor([0])}, r"batch_sizes\[0\] = 0, expected at least 1"),
        ({"batch_sizes": torch.tensor([], dtype=torch.int64)}, "batch_sizes: expected at least one step"),
    ],
)
def test_bad_packed_arguments(change: dict[str, Any], message: str) -> None:
    a = _padded_arguments(1, False)
    arguments = {
        "gates": torch.zeros(1, 7, 80),
        "index": None,
        "batch_sizes": torch.tensor([3, 3, 1]),
        "numbers": a["numbers"],
        "scales": a["scales"],
        "offsets": a["offsets"],
        "need_output": True,
    }
    OPS.lstm_int8_inference(**arguments)
    with pytest.raises(RuntimeError, match=message):
        OPS.lstm_int8_inference(**arguments | change)
