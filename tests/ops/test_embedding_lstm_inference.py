"""embedding_lstm_inference by itself: opcheck, the plain-PyTorch reference, and every argument that does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lstm_cases import SIZES, ErrorComparison
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from textclf_fast import ops
from textclf_fast.reference import lstm_reference

OP = torch.ops.textclf_fast.embedding_lstm_inference
T, B, H, V = 6, 4, 5, 9
LENGTHS: dict[str, list[int] | None] = {
    "none": None,
    "unsorted": [3, 6, 1, 4],
    "sorted": [6, 5, 5, 2],
    "full": [T] * B,
    "equal": [T - 2] * B,  # shorter than the batch: all rows end with padding
    "ones": [1] * B,
}


def _arguments(
    directions: int = 1,
    lengths: str = "unsorted",
    batch_first: bool = False,
    hidden: int = H,
    dtype: torch.dtype = torch.float64,
    need_output: bool = True,
    projected: int = 0,
) -> dict[str, Any]:
    width = projected or hidden
    w_hh = torch.randn(directions, 4 * hidden, width, dtype=torch.float64).mul(width**-0.5).to(dtype)
    w_hr = None
    if projected:
        w_hr = torch.randn(directions, width, hidden, dtype=torch.float64).mul(hidden**-0.5).to(dtype)
    given = LENGTHS[lengths]
    return {
        "table": torch.randn(directions, V, 4 * hidden, dtype=torch.float64).to(dtype),
        "ids": torch.randint(0, V, (B, T) if batch_first else (T, B)),
        "lengths": None if given is None else torch.tensor(given),
        "batch_first": batch_first,
        "w_hh": w_hh,
        "panels": ops.pack_recurrent(w_hh, w_hr),
        "need_output": need_output,
        "w_hr": w_hr,
    }


def _reference(a: dict[str, Any], dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """The same by PyTorch's packing and the reference layer."""
    batch_first = a["batch_first"]
    steps = a["ids"].size(1 if batch_first else 0)
    rows = a["ids"].size(0 if batch_first else 1)
    lengths = torch.full((rows,), steps) if a["lengths"] is None else a["lengths"]
    packed = pack_padded_sequence(a["ids"], lengths, batch_first=batch_first, enforce_sorted=False)
    table, w_hh, w_hr = (None if a[name] is None else a[name].to(dtype) for name in ("table", "w_hh", "w_hr"))
    h0, c0 = (table.new_zeros(w_hh.size(0), rows, size) for size in (w_hh.size(2), w_hh.size(1) // 4))
    output, h_n, c_n = lstm_reference(table, packed.data, packed.batch_sizes, w_hh, h0, c0, w_hr)
    padded, _ = pad_packed_sequence(PackedSequence(output, *packed[1:]), batch_first, total_length=steps)
    assert packed.unsorted_indices is not None
    states = {"h_n": h_n[:, packed.unsorted_indices], "c_n": c_n[:, packed.unsorted_indices]}
    return {"output": padded, **states} if a["need_output"] else states


def _run(a: dict[str, Any]) -> dict[str, Tensor]:
    output, h_n, c_n = OP(**a)
    if a["need_output"]:
        return {"output": output, "h_n": h_n, "c_n": c_n}
    assert output.shape == (0,)
    return {"h_n": h_n, "c_n": c_n}


def _padding(a: dict[str, Any]) -> Tensor:
    """Which of the (T, B), or (B, T), places are past their row's length."""
    lengths = torch.full((B,), T) if a["lengths"] is None else a["lengths"]
    rows_first = torch.arange(T) >= lengths.unsqueeze(1)
    return rows_first if a["batch_first"] else rows_first.T


both_directions = pytest.mark.parametrize("directions", [1, 2])
both_forms = pytest.mark.parametrize("batch_first", [False, True])
every_lengths = pytest.mark.parametrize("lengths", LENGTHS)


@both_directions
@both_forms
@pytest.mark.parametrize("need_output", [False, True])
def test_opcheck(directions: int, batch_first: bool, need_output: bool) -> None:
    for lengths, projected in (("none", 3), ("unsorted", 0)):
        arguments = _arguments(directions, lengths, batch_first, need_output=need_output, projected=projected)
        torch.library.opcheck(OP.default, tuple(arguments.values()))


@both_directions
@both_forms
@every_lengths
@pytest.mark.parametrize("need_output", [False, True])
@pytest.mark.parametrize("projected", [0, 3])
@pytest.mark.usefixtures("_poisoned")
def test_against_the_reference(
    isa: str, directions: int, batch_first: bool, lengths: str, need_output: bool, projected: int
) -> None:
    a = _arguments(directions, lengths, batch_first, need_output=need_output, projected=projected)
    got = _run(a)
    for name, want in _reference(a).items():
        torch.testing.assert_close(got[name], want, rtol=1e-12, atol=1e-13, msg=lambda m, n=name: f"{n}: {m}")
    if need_output:
        past = got["output"][_padding(a)]
        assert len(past) == (0 if lengths in ("none", "full") else B * T - sum(LENGTHS[lengths] or []))
        assert (past == 0).all()


@pytest.mark.parametrize("hidden", SIZES)
@pytest.mark.usefixtures("_poisoned")
def test_sizes(isa: str, hidden: int) -> None:
    """Below, at and above the vector widths; in float32 with errors like those of PyTorch in float32."""
    comparison = ErrorComparison()
    for i, lengths in enumerate(LENGTHS):
        a = _arguments(2, lengths, i % 2 == 1, hidden)
        exact = _reference(a)
        for name, got in _run(a).items():
            torch.testing.assert_close(got, exact[name], rtol=1e-12, atol=1e-13, msg=lambda m, n=name: f"{n}: {m}")
        single = {k: v.float() if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in a.items()}
        single["panels"] = ops.pack_recurrent(single["w_hh"])
        exact, peer = _reference(single), _reference(single, torch.float32)
        comparison.add(
            {k: v.double() for k, v in _run(single).items()}, {k: v.double() for k, v in peer.items()}, exact
        )
    comparison.check(4 * torch.finfo(torch.float32).eps)


@both_directions
@both_forms
@every_lengths
@pytest.mark.parametrize("projected", [0, 100])
def test_same_bits_as_the_layer_on_packed_ids(
    isa: str, directions: int, batch_first: bool, lengths: str, projected: int
) -> None:
    """And on any number of threads: what is computed for a row does not depend on how it was come by."""
    hidden = 130  # 24 positions of 4 * 130 * 130 multiply-adds: three threads are worth waking
    a = _arguments(directions, lengths, batch_first, hidden, torch.float32, projected=projected)
    given = torch.full((B,), T) if a["lengths"] is None else a["lengths"]
    packed = pack_padded_sequence(a["ids"], given, batch_first=batch_first, enforce_sorted=False)
    h0, c0 = torch.zeros(directions, B, projected or hidden), torch.zeros(directions, B, hidden)
    output, h_n, c_n = ops.lstm(a["table"], packed.data, packed.batch_sizes, a["w_hh"], h0, c0, w_hr=a["w_hr"])
    padded, _ = pad_packed_sequence(PackedSequence(output, *packed[1:]), batch_first, total_length=T)
    assert packed.unsorted_indices is not None
    want = {"output": padded, "h_n": h_n[:, packed.unsorted_indices], "c_n": c_n[:, packed.unsorted_indices]}
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            for name, got in _run(a).items():
                assert torch.equal(got, want[name]), f"{name} on {threads} threads"
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("steps", "rows"), [(1, 1), (1, 7), (9, 1), (300, 2), (2, 300)])
@both_forms
@pytest.mark.usefixtures("_poisoned")
def test_forms_of_batches(isa: str, steps: int, rows: int, batch_first: bool) -> None:
    a = _arguments(2, "none", batch_first)
    a["ids"] = torch.randint(0, V, (rows, steps) if batch_first else (steps, rows))
    for lengths in (None, torch.randint(1, steps + 1, (rows,))):
        a["lengths"] = lengths
        got = _run(a)
        for name, want in _reference(a).items():
            torch.testing.assert_close(got[name], want, rtol=1e-11, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


@both_forms
@pytest.mark.usefixtures("_poisoned")
def test_strided_arguments(isa: str, batch_first: bool) -> None:
    """Views with gaps, and starts off any alignment; the panels alone have to be contiguous."""
    a = _arguments(2, "unsorted", batch_first, projected=3)
    want = _run(a)
    tensors = {k: v for k, v in a.items() if isinstance(v, Tensor)}
    gaps = {k: torch.stack([v, torch.full_like(v, 77)], -1)[..., 0] for k, v in tensors.items() if k != "panels"}
    shifted = {k: torch.cat([v.flatten()[:1], v.flatten()])[1:].view(v.shape) for k, v in tensors.items()}
    for changed in (gaps, shifted, {"ids": a["ids"].T.contiguous().T}):
        for name, got in _run(a | changed).items():
            assert torch.equal(got, want[name])


def test_the_panels_are_what_is_read(isa: str) -> None:
    a = _arguments(2)
    want = _run(a)
    for name, got in _run(a | {"w_hh": torch.full_like(a["w_hh"], float("nan"))}).items():
        assert torch.equal(got, want[name])


def test_panels_of_another_instruction_set_are_not_used(isa: str) -> None:
    a = _arguments(2)
    want = _run(a)
    panels = torch.full_like(a["panels"], float("nan"))
    panels[-1] = a["panels"][-1] + 1
    for name, got in _run(a | {"panels": panels}).items():
        assert torch.equal(got, want[name])


@both_forms
@pytest.mark.parametrize("bad", [V, -1, 2**62, -(2**63)])
def test_ids_in_the_padding_are_never_read(batch_first: bool, bad: int) -> None:
    a = _arguments(1, "unsorted", batch_first)
    want = _run(a)
    a["ids"][_padding(a)] = bad
    for name, got in _run(a).items():
        assert torch.equal(got, want[name])


def _double(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w_hh": _double(4 * H, H)}, r"w_hh: expected shape \(D, 4H, H\), got \(20, 5\)"),
        ({"w_hh": _double(3, 4 * H, H)}, "w_hh: expected 1 or 2 directions, got 3"),
        ({"w_hh": _double(1, 0, 0)}, "w_hh: expected H > 0, got 0"),
        ({"w_hh": _double(1, 4 * H, H + 1)}, r"w_hh: expected shape \(1, 24, 6\), got \(1, 20, 6\)"),
        ({"w_hh": _double(1, 4 * H, H).float()}, "w_hh: its dtype differs"),
        ({"table": _double(V, 4 * H)}, r"table: expected shape \(1, 0, 20\), got \(9, 20\)"),
        ({"table": _double(2, V, 4 * H)}, r"table: expected shape \(1, 9, 20\), got \(2, 9, 20\)"),
        ({"table": _double(1, V, 4 * H + 1)}, r"table: expected shape \(1, 9, 20\), got \(1, 9, 21\)"),
        ({"table": _double(1, V, 4 * H).float()}, "w_hh: its dtype differs"),
        (
            {"table": _double(1, V, 4 * H).bfloat16(), "w_hh": _double(1, 4 * H, H).bfloat16()},
            "table: expected dtype float32 beside a bfloat16 w_hh",
        ),
        ({"ids": torch.zeros(T, dtype=torch.int64)}, r"ids: expected shape \(T, B\), got \(6\)"),
        ({"ids": torch.zeros(T, B, dtype=torch.int32)}, "ids: expected dtype int64"),
        ({"ids": torch.zeros(T, B)}, "ids: expected dtype int64"),
        ({"ids": torch.zeros(0, B, dtype=torch.int64)}, r"ids: expected at least one token, got shape \(0, 4\)"),
        ({"ids": torch.zeros(T, 0, dtype=torch.int64)}, r"ids: expected at least one token, got shape \(6, 0\)"),
        ({"ids": torch.full((T, B), V)}, r"ids: token id 9, expected 0 <= id < 9 \(the rows of table\)"),
        ({"ids": torch.full((T, B), -1)}, "ids: token id -1, expected 0 <= id < 9"),
        ({"ids": torch.full((T, B), -(2**63))}, "ids: token id -9223372036854775808"),
        ({"ids": torch.full((T, B), V), "lengths": None}, "ids: token id 9"),
        ({"table": _double(1, 0, 4 * H)}, r"ids: token id \d, expected 0 <= id < 0"),
        ({"lengths": torch.tensor([[1, 2, 3, 4]])}, r"lengths: expected one dimension, got shape \(1, 4\)"),
        ({"lengths": torch.tensor([1, 2, 3, 4], dtype=torch.int32)}, "lengths: expected dtype int64"),
        ({"lengths": torch.tensor([1, 2, 3])}, r"lengths: expected shape \(4\), got \(3\)"),
        ({"lengths": torch.tensor([1, 0, 3, 4])}, r"lengths: lengths\[1\] = 0, expected 1 <= length <= 6"),
        ({"lengths": torch.tensor([1, 2, 3, 7])}, r"lengths: lengths\[3\] = 7, expected 1 <= length <= 6"),
        ({"lengths": torch.tensor([-(2**63), 2, 3, 4])}, r"lengths: lengths\[0\] = -9223372036854775808"),
        ({"panels": _double(3)}, r"panels: expected shape \(\d+\), got \(3\)"),
        ({"panels": _double(3).float()}, "panels: its dtype differs"),
    ],
)
def test_bad_arguments(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        OP(**_arguments() | change)


def test_panels_with_gaps() -> None:
    a = _arguments()
    with pytest.raises(RuntimeError, match="panels: expected a contiguous tensor"):
        OP(**a | {"panels": torch.stack([a["panels"]] * 2, 1)[:, 0]})


@both_forms
def test_the_bound_of_a_length_is_the_batchs_steps(batch_first: bool) -> None:
    a = _arguments(batch_first=batch_first)
    a["lengths"] = torch.tensor([1, 2, T + 1, 3])
    with pytest.raises(RuntimeError, match=rf"lengths\[2\] = {T + 1}, expected 1 <= length <= {T}"):
        OP(**a)
