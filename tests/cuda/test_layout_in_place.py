"""The layout that is made where the lengths are, by csrc/cuda/layout_in_place.cu, against the reference in PyTorch."""

from __future__ import annotations

from pathlib import Path

import emulated
import planted as bugs
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from textclf_fast import ops
from textclf_fast._libraries import cuda_has
from textclf_fast.reference import layout_in_place_reference

SOURCES = ("tests/emulator/run_layout.cpp", "csrc/cuda/layout_in_place.cu")
NAMES = ("positions", "places", "batch_sizes", "sorted_indices", "unsorted_indices")
Layout = tuple[Tensor, ...]


def _strides(rows: int, steps: int, batch_first: bool) -> tuple[int, int, int]:
    return (steps, 1, steps) if batch_first else (steps, rows, 1)


def _random(rows: int, steps: int, low: int = 1) -> tuple[list[int], int]:
    generator = torch.Generator().manual_seed(rows * steps)
    return torch.randint(low, steps + 2 - low, (rows,), generator=generator).tolist(), steps


# Lengths and T. 32 rows are one look of a warp, 8 rows and steps or 256 positions one block.
CASES = {
    "one": ([1], 1),
    "one row": ([3], 5),
    "one step": ([1] * 40, 1),
    "all of T": ([6] * 7, 6),
    "all equal and short": ([2] * 33, 4),
    "every length": (list(range(1, 10)), 9),
    "ties": ([3, 7, 1, 7, 5, 3, 3], 7),
    "out of range": ([3, 0, 8, -5, 2, 2**40, -(2**40), 7], 7),
    "all out of range": ([0, 9, -1], 4),
    "no row is of T": ([2, 1, 2], 300),
    "no rows": ([], 5),
    "no steps": ([1, 0, 2], 0),
    "a warp": _random(32, 31),
    "a warp and one": _random(33, 8),
    "blocks": _random(70, 45),
    "blocks, out of range": _random(70, 45, low=-3),
    "many rows": _random(1000, 3),
}
UNDER_SANITIZERS = ("out of range", "no rows", "no steps", "a warp and one")  # two blocks: TSan takes a second for each


def _run(
    folder: Path,
    flavour: str,
    lengths: list[int],
    steps: int,
    batch_first: bool,
    csrc: Path = emulated.ROOT / "csrc",
    bug: int = 0,
    schedules: tuple[int, ...] = emulated.SCHEDULES,
) -> tuple[str, list[Layout]]:
    """What the program says, and every schedule's layout; none where it fails."""
    rows = len(lengths)
    problem, result = folder / "problem", folder / "result"
    problem.write_bytes(torch.tensor([rows, steps, batch_first, *lengths], dtype=torch.int64).numpy().tobytes())
    options = () if csrc == emulated.ROOT / "csrc" else bugs.OPTIONS
    program = emulated.program(SOURCES, flavour, options, csrc)
    done = emulated.run(program, [problem, result, *schedules], flavour, PLANTED=str(bug))
    if done.returncode != 0:
        return done.stdout + done.stderr, []
    numbers = torch.frombuffer(bytearray(result.read_bytes() or bytes(8)), dtype=torch.int64)
    sizes = [steps * rows, steps * rows, steps, rows, rows]
    pieces = numbers[: sum(sizes) * len(schedules)].split(sizes * len(schedules))
    return "", [pieces[first : first + 5] for first in range(0, len(pieces), 5)]


def _wrong(lengths: list[int], steps: int, batch_first: bool, results: list[Layout]) -> list[str]:
    """The names of what is not the reference's, in any schedule."""
    expected = layout_in_place_reference(
        torch.tensor(lengths, dtype=torch.int64), *_strides(len(lengths), steps, batch_first)
    )
    named = [
        (name, e, layout[n]) for layout in results for n, (name, e) in enumerate(zip(NAMES, expected, strict=True))
    ]
    return [name for name, e, ours in named if not torch.equal(ours, e)]


@pytest.mark.parametrize("flavour", emulated.ON_BOTH)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_reference(case: str, batch_first: bool, flavour: str, tmp_path: Path) -> None:
    lengths, steps = CASES[case]
    said, results = _run(tmp_path, flavour, lengths, steps, batch_first)
    assert len(results) == len(emulated.SCHEDULES), said
    assert _wrong(lengths, steps, batch_first, results) == []


@pytest.mark.parametrize("flavour", emulated.SANITIZERS)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("case", UNDER_SANITIZERS)
def test_sanitizers_see_nothing(case: str, batch_first: bool, flavour: str, tmp_path: Path) -> None:
    test_equals_the_reference(case, batch_first, flavour, tmp_path)


KERNEL = "cuda/layout_in_place.cu"
BUGS = {
    "tied": (KERNEL, "other < row)", "other < row && !BUG)"),
    "lanes_short": (KERNEL, "mask > 0;", "mask > int(BUG);"),
    "known": (KERNEL, "known ? place : -1", "known || BUG ? place : -1"),
    "rest": (KERNEL, "place >= p.starts[p.steps]", "place >= p.starts[p.steps] + BUG"),
    "size_beyond": (KERNEL, "if (step < p.steps) p.batch", "if (step < p.steps + BUG) p.batch"),
    "place_beyond": (KERNEL, "int64_t(p.steps) * p.rows) return", "int64_t(p.steps) * p.rows + BUG) return"),
}
SEEN_BY = {"tsan": ["tied"], "asan": ["size_beyond", "place_beyond"]}  # the rest by its numbers


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bugs.plant(tmp_path_factory.mktemp("planted"), BUGS)


def _sees(folder: Path, csrc: Path, flavour: str, bug: int, schedules: tuple[int, ...]) -> bool:
    lengths, steps = CASES["out of range"]
    said, results = _run(folder, flavour, lengths, steps, False, csrc, bug, schedules)
    return said != "" or _wrong(lengths, steps, False, results) != []


@pytest.mark.parametrize("flavour", emulated.FLAVOURS)
def test_without_a_bug_nothing_is_seen(planted: Path, flavour: str, tmp_path: Path) -> None:
    assert not _sees(tmp_path, planted, flavour, 0, emulated.SCHEDULES)


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_is_seen(planted: Path, bug: str, tmp_path: Path) -> None:
    """In the numbers, or by a sanitizer in any order of threads."""
    number = 1 + list(BUGS).index(bug)
    sanitizers = [flavour for flavour, seen in SEEN_BY.items() if bug in seen]
    for flavour in sanitizers or ["plain"]:
        for schedule in emulated.SCHEDULES if sanitizers else [0]:
            assert _sees(tmp_path, planted, flavour, number, (schedule,))


@pytest.mark.parametrize(
    ("rows", "steps", "there", "ours"),
    [(4096, 9, True, True), (4097, 9, True, False), (4096, 2**19, True, False), (4096, 9, False, False)],
)
def test_what_goes_to_the_kernel(
    rows: int, steps: int, there: bool, ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On fake tensors, which have a device and no numbers: what the kernel does not cover is PyTorch's."""
    monkeypatch.setattr(ops._libraries, "cuda_has", lambda op: there and op == "layout_in_place")
    called: list[str] = []
    monkeypatch.setattr(ops, "layout_in_place_reference", lambda *arguments: called.append("reference"))
    with FakeTensorMode():
        lengths = torch.empty(rows, device="cuda", dtype=torch.int64)
        results = ops.layout_in_place(lengths, *_strides(rows, steps, False))
    assert called == ([] if ours else ["reference"])
    if ours:
        assert [tuple(r.shape) for r in results] == [(rows * steps,)] * 2 + [(steps,), (rows,), (rows,)]


@pytest.mark.gpu
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_op_on_a_gpu(case: str, batch_first: bool) -> None:
    lengths, steps = CASES[case]
    arguments = _strides(len(lengths), steps, batch_first)
    given = torch.tensor(lengths, dtype=torch.int64)
    assert cuda_has("layout_in_place")
    results = ops.layout_in_place(given.cuda(), *arguments)
    for ours, expected in zip(results, layout_in_place_reference(given, *arguments), strict=True):
        assert torch.equal(ours.cpu(), expected)


@pytest.mark.gpu
def test_other_strides_are_refused() -> None:
    with pytest.raises(RuntimeError, match="step_stride, row_stride: got 2 and 1, expected 3 and 1 or"):
        ops.layout_in_place(torch.tensor([1, 2, 3], device="cuda"), 4, 2, 1)


def test_shapes_of_the_fake_kernel() -> None:
    for batch_first in (False, True):
        lengths = torch.tensor([3, 1, 2])
        arguments = _strides(3, 4, batch_first)
        fake = torch.ops.textclf_fast.layout_in_place(lengths.to("meta"), *arguments)
        for ours, expected in zip(fake, layout_in_place_reference(lengths, *arguments), strict=True):
            assert (ours.shape, ours.dtype) == (expected.shape, expected.dtype)
