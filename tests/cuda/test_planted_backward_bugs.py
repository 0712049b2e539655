"""What the backward's tests are worth: bugs are planted in a copy of the kernels, and each must be seen."""

from __future__ import annotations

from pathlib import Path

import emulated
import planted as bugs
import pytest
from emulated_backward import BackwardProblem

END_STEP = "__device__ void end_step(int) const {{ {}sync_{}(); }}"
KERNEL = "cuda/lstm_backward.inl"
BARRIERS = {
    "block_step": ("cuda/sums.h", END_STEP.format("", "block"), END_STEP.format("if (!BUG) ", "block")),
    "cluster_step": ("cuda/sums.h", END_STEP.format("", "cluster"), END_STEP.format("if (!BUG) ", "cluster")),
    "grid_step": ("cuda/teams.h", "    wait_acquire(", "    if (!BUG) wait_acquire("),
    "grid_copy": ("cuda/sums.h", "<0>();\n    sync_block();", "<0>();\n    if (!BUG) sync_block();"),
    "begin": (KERNEL, "  team.begin();", "  if (!BUG) team.begin();"),
    "image": (KERNEL, "    sync_block();\n", "    if (!BUG) sync_block();\n"),
}
NUMBERS = {
    "chunk_short": ("cuda/products.h", "if (c < weights.chunks) add(sums", "if (c < weights.chunks - BUG) add(sums"),
    "shared_chunk_short": (
        "cuda/products.h",
        "c < weights.chunks; ++c)\n      add(sums",
        "c < weights.chunks - BUG; ++c)\n      add(sums",
    ),
    "sender_short": ("cuda/backward_cells.h", "sender < senders;", "sender < senders - BUG;"),
    "wrong_row": (KERNEL, "% 4 * 2 + r;", "% 4 * 2 + (r ^ int(BUG));"),
    "wrong_buffer": (KERNEL, "team.received(s - 1)", "team.received(s - 1 + BUG)"),
    "walked_short": (KERNEL, "walked = now.alive;", "walked = now.alive - BUG;"),
}
MEMORY = {"shared_short": (KERNEL, "size_t(plan.shared_bytes)", "size_t(plan.shared_bytes) - 32 * BUG")}
BUGS = BARRIERS | NUMBERS | MEMORY
TEAMS = {"block": 1, "cluster": 2, "grid": 2}
ONLY = {
    "block_step": ["block"],
    "cluster_step": ["cluster"],
    "grid_step": ["grid"],
    "grid_copy": ["grid"],
    "chunk_short": ["cluster", "grid"],  # a warp has all its chunks in registers
    "shared_chunk_short": ["block"],
    "wrong_buffer": ["cluster", "grid"],
}


def _cases(chosen: bugs.Bugs) -> list[tuple[str, str]]:
    return [(bug, family) for bug in chosen for family in ONLY.get(bug, TEAMS)]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bugs.plant(tmp_path_factory.mktemp("planted"), BUGS)


def _sees(csrc: Path, flavour: str, bug: str | None, family: str, schedules: tuple[int, ...]) -> str | None:
    """What a run makes known of the bug; None if nothing."""
    # Every row of a tile is alive; 4 column tiles, a depth of 16 chunks in 4 splits or of 8 in 3; rows that end early.
    # An even number of chunks: of an odd one each thread would clear that part of the image which it writes later.
    problem = BackwardProblem("bfloat16", [3, 3, 3, 3, 3, 3, 2, 2], 128)
    return bugs.seen(problem, csrc, BUGS, bug, flavour, family, TEAMS[family], schedules)


@pytest.mark.parametrize("family", TEAMS)
@pytest.mark.parametrize("flavour", emulated.FLAVOURS)
def test_without_a_bug_nothing_is_seen(planted: Path, flavour: str, family: str) -> None:
    assert _sees(planted, flavour, None, family, (0, 2)) is None


@pytest.mark.parametrize(("bug", "family"), _cases(BARRIERS | NUMBERS))
def test_some_order_of_threads_shows_the_bug(planted: Path, bug: str, family: str) -> None:
    assert _sees(planted, "plain", bug, family, emulated.SCHEDULES) is not None


@pytest.mark.parametrize(("bug", "family"), _cases(BARRIERS))
def test_tsan_sees_a_race_in_any_order(planted: Path, bug: str, family: str) -> None:
    for schedule in (0, 1):
        seen = _sees(planted, "tsan", bug, family, (schedule,))
        assert seen is not None
        assert "data race" in seen or "has not begun, or has left" in seen


@pytest.mark.parametrize(("bug", "family"), _cases(MEMORY))
def test_asan_sees_too_little_memory(planted: Path, bug: str, family: str) -> None:
    seen = _sees(planted, "asan", bug, family, (0,))
    assert seen is not None
    assert "heap-buffer-overflow" in seen or "store_cluster: not in shared memory" in seen
