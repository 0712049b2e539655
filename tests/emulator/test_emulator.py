"""The emulator itself: what is right comes out right in every order of threads, what is wrong is seen."""

from __future__ import annotations

import emulated
import pytest

RIGHT = (
    "block_sum",
    "lanes",
    "through_memory",
    "mma_bf16",
    "mma_half",
    "mma_tf32",
    "numbers",
    "copy_async",
    "cluster_ring",
    "grid_ring",
)
# What is reported, in whatever order threads run.
REPORTED = {
    "unread_memory": "wrong",
    "barrier_in_two_places": "sync_block: others wait at",
    "barrier_for_some": "waits for ever for sync_block",
    "lanes_disagree": "other lanes of the warp are at",
    "mma_unrounded": "not rounded to tf32",
    "copy_async_read_early": "wrong",
    "copy_of_what_changes": "what was to be copied changed",
    "copy_never_waited_for": "never waited for",
    "cluster_ring_without_beginning": "has not begun",
    "cluster_ring_without_steps": "has left",
    "grid_ring_without_wait": "wrong",
    "waits_for_nobody": "waits for ever for a change in memory",
    "too_many_threads": "at most 1024",
    "no_whole_warps": "no whole warps",
    "too_much_shared_memory": "and a block has 232448",
    "too_many_blocks_together": "cannot be on 132 multiprocessors",
    "too_large_a_cluster": "a cluster of 16 blocks",
    "grid_is_no_multiple": "no multiple of the cluster",
}
RACES = ("block_sum_without_barrier", "through_memory_without_barrier", "grid_ring_without_wait", "blocks_in_order")


def _output(flavour: str, case: str, schedule: int) -> tuple[int, str]:
    done = emulated.run(emulated.program(("tests/emulator/cases.cpp",), flavour), [case, schedule])
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("flavour", emulated.FLAVOURS)
@pytest.mark.parametrize("case", RIGHT)
def test_what_is_right_comes_out_right(flavour: str, case: str) -> None:
    for schedule in emulated.SCHEDULES:
        assert _output(flavour, case, schedule) == (0, "right\n")


@pytest.mark.parametrize("case", REPORTED)
def test_what_is_wrong_is_reported(case: str) -> None:
    for schedule in emulated.SCHEDULES:
        assert REPORTED[case] in _output("plain", case, schedule)[1]


@pytest.mark.parametrize("case", ["block_sum_without_barrier", "blocks_in_order"])
def test_a_missing_barrier_shows_in_some_order(case: str) -> None:
    outputs = {_output("plain", case, schedule)[1] for schedule in emulated.SCHEDULES}
    assert outputs == {"right\n", "wrong\n"}


@pytest.mark.parametrize("case", RACES)
def test_a_race_is_seen_in_every_order(case: str) -> None:
    for schedule in emulated.SCHEDULES:
        code, output = _output("tsan", case, schedule)
        assert code != 0
        assert "WARNING: ThreadSanitizer: data race" in output
        assert "cases.cpp" in output


def test_an_access_beyond_shared_memory_is_seen() -> None:
    code, output = _output("asan", "block_sum_out_of_bounds", 0)
    assert code != 0
    assert "heap-buffer-overflow" in output
