"""How calls of few rows learn on how many threads they run (csrc/cpu/thread_choice.h)."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from layer_cases import Layer, equal_bits, threads
from torch import Tensor

from textclf_fast import FusedEmbeddingLSTM, _libraries

_COMPILER = shlex.split(os.environ.get("CXX") or "c++")
_SOURCES = Path(__file__).parents[2] / "csrc/cpu"
needs_compiler = pytest.mark.skipif(shutil.which(_COMPILER[0]) is None, reason="no C++ compiler")

# Reads how long a call takes by each candidate, one line a call, and prints which was chosen.
_DRIVER = """
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>
#include "thread_choice.h"
using namespace textclf_fast::cpu;

// Kinds of many and of few candidates, which find each other in the table, learn in several threads: is what they are
// told to take always one of theirs?
static int share_places() {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([t] {
      for (int64_t i = 0; i < 300000; ++i) {
        const int64_t most = (i + t) % 2 ? 2 : 16, kind = i * 7919 % 3000;
        int64_t candidates[ThreadChoice::kMost];
        const int count = ThreadChoice::candidates(most, candidates);
        ThreadChoice& choice = thread_choice({1, kind / 4, 0, 0, 1, 1, 100, most});
        const auto next = choice.choose(count);
        if (next.candidate < 0 || next.candidate >= count) std::abort();
        choice.record(next.candidate, float(1 + next.candidate % 3));
      }
    });
  for (auto& thread : threads) thread.join();
  return 0;
}

int main(int, char** arguments) {
  if (arguments[1][0] == 's') return share_places();
  const int count = arguments[1][0] - '0';
  ThreadChoice choice;
  std::vector<float> seconds(count);
  for (;;) {
    for (auto& s : seconds)
      if (std::scanf("%f", &s) != 1) return 0;
    const auto next = choice.choose(count);
    std::printf("%d\\n", next.candidate);
    if (next.counts) choice.record(next.candidate, seconds[next.candidate]);
  }
}
"""

Times = Callable[[int], tuple[float, ...]]  # by candidate, of the call of this number


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("driver")
    source, program = folder / "driver.cpp", folder / "driver"
    source.write_text(_DRIVER)
    sources = [str(source), str(_SOURCES / "thread_choice.cpp")]
    command = [*_COMPILER, "-std=c++20", "-O1", "-pthread", f"-I{_SOURCES}", *sources, "-o", str(program)]
    subprocess.run(command, check=True)
    return program


def _choices(driver: Path, times: Times, calls: int) -> list[int]:
    lines = "\n".join(" ".join(map(str, times(call))) for call in range(calls))
    count = str(len(times(0)))
    done = subprocess.run([driver, count], input=lines, capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.split()]


def _share(choices: list[int], candidate: int) -> float:
    return choices.count(candidate) / len(choices)


@needs_compiler
@pytest.mark.parametrize("times", [(1, 2), (2, 1), (5, 3, 1, 2), (1, 1.1, 8, 9), (30, 1)])
def test_it_finds_the_fastest(driver: Path, times: tuple[float, ...]) -> None:
    choices = _choices(driver, lambda call: times, 5000)
    best = times.index(min(times))
    assert _share(choices[200:], best) > 0.97
    assert set(choices[:200]) == set(range(len(times)))
    assert set(choices[2000:]) == set(range(len(times)))  # the others are tried again


@needs_compiler
def test_it_follows_what_changes(driver: Path) -> None:
    """As a virtual machine's cores do, from near to far and back."""
    choices = _choices(driver, lambda call: (1.0, 1.7) if call // 3000 % 2 == 0 else (3.0, 1.7), 12_000)
    for begin in range(0, 12_000, 3000):
        expected = begin // 3000 % 2
        assert _share(choices[begin + 700 : begin + 3000], expected) > 0.97


@needs_compiler
def test_a_bad_beginning_is_forgotten(driver: Path) -> None:
    """Two threads that began on the same core took 120 times as long as later: seen while other processes started."""
    choices = _choices(driver, lambda call: (120.0, 1.4) if call < 20 else (0.8, 1.4), 3000)
    assert _share(choices[500:], 0) > 0.97


@needs_compiler
def test_interruptions_do_not_matter(driver: Path) -> None:
    choices = _choices(driver, lambda call: (20.0, 30.0) if call % 37 == 0 else (1.0, 1.5), 10_000)
    assert _share(choices[200:], 0) > 0.97


@needs_compiler
def test_who_is_far_slower_is_seldom_tried(driver: Path) -> None:
    slow, close = (_choices(driver, lambda call, other=other: (1.0, other), 60_000) for other in (9.0, 1.5))
    assert 0 < slow[1000:].count(1) < close[1000:].count(1) / 8


@needs_compiler
def test_kinds_that_share_a_place(driver: Path) -> None:
    subprocess.run([driver, "share"], check=True)


@pytest.fixture
def learning() -> Iterator[None]:
    _libraries.learn_threads(True)
    yield
    _libraries.learn_threads(False)


@pytest.mark.usefixtures("_poisoned", "learning")
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("lengths", [(), (40,)])
def test_the_bits_stay(isa: str, lengths: tuple[int, ...], directions: int) -> None:
    """On however many threads: results and gradients, while every candidate is tried."""
    layer = Layer(33, (700, *lengths), directions, True)
    assert layer.positions * directions * 4 * 33**2 > 5 * 2**19  # worth five threads: csrc/cpu/launch.cpp
    with threads(5):
        first = layer.run_ours(torch.float32)
        for _ in range(60):
            assert equal_bits(layer.run_ours(torch.float32), first)


@pytest.mark.usefixtures("learning")
def test_the_bits_of_int8_stay(int8_isa: str) -> None:
    model = FusedEmbeddingLSTM(50, 8, 64).eval()
    ids = torch.randint(0, 50, (170, 1))
    assert ids.numel() * 4 * 64**2 > 5 * 2**19
    model.prepare_inference("int8")

    def run() -> Tensor:
        with torch.inference_mode():
            return model(ids)[0]

    with threads(5):
        first = run()
        assert all(torch.equal(run(), first) for _ in range(60))
