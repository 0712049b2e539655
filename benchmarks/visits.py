"""A visit of a cell: ours and its peers in turns, in a process that has computed nothing else.

What ran before changes what is measured. PyTorch's tensors come from the C library's heap, which keeps what larger
calls have freed: behind the cells before it, nn.LSTM's training step at B=32, T=256 took 24 ms, and 34 ms alone, two
fifths of them page faults. A process of its own is what a program that trains or serves one model has, in any order and
choice of cells.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import torch

from benchmarks.calls import Contest, make_contest
from benchmarks.cells import Cell
from benchmarks.timing import WARM, flush_denormals, ready, seconds, warm

# For a visit of a cell and mode, ours and its peers together; and the least and the most rounds.
SECONDS = {"text": 2.0, "bf16": 2.0, "int8": 1.5, "float": 0.9, "packed": 0.9}
MIN_ROUNDS = {"text": 15, "bf16": 15, "int8": 15, "float": 5, "packed": 5}
MAX_ROUNDS = 101

Times = dict[str, list[float]]  # seconds of the rounds, by name


@dataclass(frozen=True)
class Visit:
    """What was found.

    Attributes:
        times: of ours, by "ours", and of the peers.
        positions, distinct: see `calls.Contest`.
        notes: what there is to say of a peer, by name.
    """

    times: Times
    positions: int
    distinct: int
    notes: dict[str, str]


def visit(cell: Cell, training: bool) -> Visit:
    """Times a cell; an error of the process is raised here."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_visit, cell, training, torch.get_num_threads()).result()


def _visit(cell: Cell, training: bool, threads: int) -> Visit:
    flush_denormals()
    torch.set_num_threads(threads)
    contest = make_contest(cell, training)
    others = contest.others
    with contextlib.closing(others) if others else contextlib.nullcontext():
        times = _time(contest, SECONDS[cell.section], MIN_ROUNDS[cell.section])
    return Visit(times, contest.positions, contest.distinct, others.notes if others else {})


def _time(contest: Contest, limit: float, least: int) -> Times:
    others = {name: partial(contest.others.seconds, name) for name in contest.others.names} if contest.others else {}
    prepare, pause = (ready, WARM) if others else (warm, 0.0)  # it takes as long again for those to fall asleep
    here = {**contest.peers, "ours": contest.ours}
    once: dict[str, float] = {}
    for name, call in here.items():
        ready(call, 0)
        call()
        once[name] = min(seconds(call) for _ in range(3))
    for name, timed in others.items():
        once[name] = min(timed() for _ in range(3))
    cost = sum(value + max(value, WARM) + pause for value in once.values())
    rounds = int(min(max(limit / cost, least), MAX_ROUNDS))
    times: Times = {name: [] for name in once}
    for _ in range(rounds):
        for name, call in here.items():
            prepare(call, once[name])
            times[name].append(seconds(call))
        for name, timed in others.items():
            times[name].append(timed())
    return times
