"""Peers with threads of their own, in a process of their own.

In ours they would change what is measured: OpenVINO binds the calling thread to a core, and pools take memory and wake
up beside PyTorch's. Nobody computes while another is timed: who was timed waits until its threads sleep.
"""

from __future__ import annotations

import pickle
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from torch import Tensor, nn

from benchmarks.peers import make_peers
from benchmarks.timing import Call, flush_denormals, ready, seconds, settle

_calls: dict[str, Call] = {}  # of the other process
_once: dict[str, float] = {}


class PeerProcess:
    """ONNX Runtime and OpenVINO on one cell: see :func:`benchmarks.peers.make_peers`, whose errors it raises.

    Attributes:
        notes: what there is to say of a peer, by name.
        names: those that can be timed.
    """

    def __init__(self, embedding: nn.Embedding, lstm: nn.LSTM, ids: Tensor, lengths: Tensor | None, dtype: str) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        # Pickled here, not by the pool's thread: where two threads of a process have called OpenMP, it has more threads
        # than there are cores, and those that wait sleep instead of spinning: nn.LSTM was seen to take twice as long.
        given = pickle.dumps((embedding, lstm, ids, lengths, dtype))
        start = self._pool.submit(_start, torch.get_num_threads(), given)
        try:
            self.names, self.notes = start.result()
        except BaseException:
            self.close()
            raise
        # Making the peers keeps the cores busy for seconds, after which a virtual machine was seen to be slow for two.
        time.sleep(3)

    def seconds(self, name: str) -> float:
        """Of one call of this peer, made ready for it."""
        settle()
        return self._pool.submit(_time, name).result()

    def close(self) -> None:
        """Ends the process."""
        self._pool.shutdown()


def _start(threads: int, given: bytes) -> tuple[list[str], dict[str, str]]:
    flush_denormals()
    torch.set_num_threads(threads)
    calls, notes = make_peers(*pickle.loads(given))
    _calls.update(calls)
    for name, call in calls.items():
        ready(call, 0)
        _once[name] = min(seconds(call) for _ in range(3))
    settle()
    return list(calls), notes


def _time(name: str) -> float:
    ready(_calls[name], _once[name])
    result = seconds(_calls[name])
    settle()
    return result
