"""What the emulator's tests are worth: bugs are planted in a copy of the kernels, and each must be seen."""

from __future__ import annotations

from pathlib import Path

import emulated
import planted as bugs
import pytest
from emulated_lstm import Problem

END_STEP = "__device__ void end_step(int) const {{ {}sync_{}(); }}"
BARRIERS = {
    "block_step": ("cuda/teams.h", END_STEP.format("", "block"), END_STEP.format("if (!BUG) ", "block")),
    "cluster_step": ("cuda/teams.h", END_STEP.format("", "cluster"), END_STEP.format("if (!BUG) ", "cluster")),
    "grid_step": ("cuda/teams.h", "    wait_acquire(", "    if (!BUG) wait_acquire("),
    "grid_image": ("cuda/teams.h", "<0>();\n    sync_block();", "<0>();\n    if (!BUG) sync_block();"),
    "begin": ("cuda/lstm_persistent.inl", "  team.begin();", "  if (!BUG) team.begin();"),
    "splits": ("cuda/lstm_persistent.inl", "  sync_block();\n", "  if (!BUG) sync_block();\n"),
}
NUMBERS = {
    "chunk_short": ("cuda/products.h", "if (c < weights.chunks) add(sums", "if (c < weights.chunks - BUG) add(sums"),
    "split_short": ("cuda/lstm_persistent.inl", "other < tiles.splits", "other < tiles.splits - BUG"),
    "shared_chunk_short": (
        "cuda/products.h",
        "c < weights.chunks; ++c)\n      add(sums",
        "c < weights.chunks - BUG; ++c)\n      add(sums",
    ),
    "row_short": ("cuda/lstm_persistent.inl", "first_row + row < p.rows;", "first_row + row < p.rows - BUG;"),
    "step_short": ("cuda/lstm_stepwise.cu", "< step.rows * step.hidden)", "< step.rows * step.hidden - BUG)"),
    "wrong_position": ("cuda/lstm_stepwise.h", "= shape.offsets[t],", "= shape.offsets[t - t * BUG],"),
    "wrong_image": ("cuda/lstm_persistent.inl", "publish(team, tiles, s)", "publish(team, tiles, s + BUG)"),
}
RACES = {
    "threads_share": ("cuda/lstm_stepwise.cu", "* kThreads + threadIdx.x;", "* kThreads + threadIdx.x / (1 + BUG);"),
}
MEMORY = {
    "beyond": ("cuda/lstm_stepwise.cu", "< step.rows * step.hidden", "< step.rows * step.hidden + BUG"),
    "shared_short": ("cuda/lstm_persistent.inl", "size_t(plan.shared_bytes)", "size_t(plan.shared_bytes) - 16 * BUG"),
}
BUGS = BARRIERS | NUMBERS | RACES | MEMORY
TEAMS = {"block": 1, "cluster": 2, "grid": 2}
ONLY = {
    "block_step": ["block"],
    "cluster_step": ["cluster"],
    "grid_step": ["grid"],
    "grid_image": ["grid"],
    "chunk_short": ["cluster", "grid"],  # a warp has all its chunks in registers
    "shared_chunk_short": ["block"],
    "splits": ["cluster", "grid"],
    "split_short": ["cluster", "grid"],
    "step_short": ["stepwise"],
    "wrong_position": ["stepwise"],
    "threads_share": ["stepwise"],
    "beyond": ["stepwise"],
}


def _cases(chosen: bugs.Bugs) -> list[tuple[str, str]]:
    return [(bug, family) for bug in chosen for family in ONLY.get(bug, TEAMS)]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bugs.plant(tmp_path_factory.mktemp("planted"), BUGS)


def _sees(csrc: Path, flavour: str, bug: str | None, family: str, schedules: tuple[int, ...]) -> str | None:
    """What a run makes known of the bug; None if nothing."""
    # 7 unit tiles for a team of 2, and a depth of 4 chunks in 2 splits; rows that end early.
    problem = Problem("bfloat16", [3, 3, 2], 100, 1, 5)
    return bugs.seen(problem, csrc, BUGS, bug, flavour, family, TEAMS.get(family, 1), schedules)


@pytest.mark.parametrize("family", [*TEAMS, "stepwise"])
@pytest.mark.parametrize("flavour", emulated.FLAVOURS)
def test_without_a_bug_nothing_is_seen(planted: Path, flavour: str, family: str) -> None:
    assert _sees(planted, flavour, None, family, (0, 2)) is None


@pytest.mark.parametrize(("bug", "family"), _cases(BARRIERS | NUMBERS | RACES))
def test_some_order_of_threads_shows_the_bug(planted: Path, bug: str, family: str) -> None:
    assert _sees(planted, "plain", bug, family, emulated.SCHEDULES) is not None


@pytest.mark.parametrize(("bug", "family"), _cases(BARRIERS | RACES))
def test_tsan_sees_a_race_in_any_order(planted: Path, bug: str, family: str) -> None:
    for schedule in (0, 1):
        seen = _sees(planted, "tsan", bug, family, (schedule,))
        assert seen is not None
        assert "data race" in seen or "has not begun, or has left" in seen


@pytest.mark.parametrize(("bug", "family"), _cases(MEMORY))
def test_asan_sees_too_little_memory(planted: Path, bug: str, family: str) -> None:
    seen = _sees(planted, "asan", bug, family, (0,))
    assert seen is not None
    assert "heap-buffer-overflow" in seen
