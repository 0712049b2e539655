"""Requests that come together are one call of the model, in a thread of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class QueueFull(Exception):
    """More would wait than may."""


class _Request(NamedTuple, Generic[Item, Answer]):
    items: Sequence[Item]
    weight: int
    answers: asyncio.Future[list[Answer]]
    came: float  # in the event loop's time


class Batcher(Generic[Item, Answer]):
    """Gathers items, such as texts, into batches: what comes within a short while of the first, or for as long as the
    model is busy, is one.

    Its methods are for one event loop; `run` is called in one other thread, which computes one batch at a time.

    Args:
        run: items -> an answer each.
        weigh: for how many items one counts in a batch.
        batch_items: of a batch, at most, unless one request alone has more.
        queued_items: that may wait.
        window_seconds: the short while.
        count: is told the number of items of each batch.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Answer]],
        *,
        weigh: Callable[[Item], int],
        batch_items: int,
        queued_items: int,
        window_seconds: float,
        count: Callable[[int], None],
    ) -> None:
        self._run = run
        self._weigh = weigh
        self._batch_items = batch_items
        self._most_queued = queued_items
        self._window = window_seconds
        self._count = count
        self._waiting: deque[_Request[Item, Answer]] = deque()
        self._queued = 0
        self._worker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    @property
    def queued_items(self) -> int:
        """Items that wait for the model."""
        return self._queued

    async def answer(self, items: Sequence[Item]) -> list[Answer]:
        """The answers to some items, all of one batch.

        Raises:
            QueueFull: too many wait before them.
        """
        if not items:
            return []
        if self._queued + len(items) > self._most_queued:
            raise QueueFull
        loop = asyncio.get_running_loop()
        request: _Request[Item, Answer] = _Request(
            items, sum(map(self._weigh, items)), loop.create_future(), loop.time()
        )
        self._waiting.append(request)
        self._queued += len(items)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await request.answers

    async def close(self) -> None:
        """Answers those who still wait, then ends the thread."""
        if self._worker is not None:
            await self._worker
        self._thread.shutdown()

    async def _work(self) -> None:
        """Batch after batch, until nobody waits."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            rest = self._waiting[0].came + self._window - loop.time()
            if rest > 0 and self._queued < self._batch_items:
                await asyncio.sleep(rest)
            batch = self._next_batch()
            if not batch:
                continue
            await self._compute(batch)
        self._worker = None

    async def _compute(self, batch: list[_Request[Item, Answer]]) -> None:
        """Tells whoever asked the answers, or what went wrong with them."""
        items = [item for request in batch for item in request.items]
        self._count(len(items))
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, items)
        except Exception as error:
            if len(batch) > 1:  # it is some request's fault, not everybody's
                for request in batch:
                    await self._compute([request])
            elif not batch[0].answers.done():
                batch[0].answers.set_exception(error)
            return
        begin = 0
        for request in batch:
            end = begin + len(request.items)
            if not request.answers.done():  # whoever asked may have gone
                request.answers.set_result(list(answers[begin:end]))
            begin = end

    def _next_batch(self) -> list[_Request[Item, Answer]]:
        """Takes the requests that waited longest: one, and as many more as fit; none whose asker has gone."""
        batch: list[_Request[Item, Answer]] = []
        size = 0
        while self._waiting and (not batch or size + self._waiting[0].weight <= self._batch_items):
            request = self._waiting.popleft()
            self._queued -= len(request.items)
            if not request.answers.done():
                batch.append(request)
                size += request.weight
        return batch
