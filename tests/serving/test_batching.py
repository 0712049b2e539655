"""Which requests become one call of the model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from textclf_fast.serving import Batcher, QueueFull


class Model:
    """Doubles numbers; waits to be let go where it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self.free = threading.Event()
        self.free.set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.threads.add(threading.current_thread().name)
        self.batches.append(list(items))
        assert self.free.wait(60)
        if -1 in items:
            raise ValueError("a negative number")
        return [2 * item for item in items]


def run(
    scene: Callable[[Batcher[int, int], Model], Coroutine[Any, Any, None]], *, batch: int = 8, queue: int = 100
) -> Model:
    """Plays a scene; afterwards the batcher has to end."""
    model, sizes = Model(), []

    async def play() -> None:
        batcher = Batcher(
            model,
            weigh=lambda item: 3 if item >= 100 else 1,
            batch_items=batch,
            queued_items=queue,
            window_seconds=0.001,
            count=sizes.append,
        )
        await scene(batcher, model)
        await batcher.close()
        assert batcher.queued_items == 0

    asyncio.run(asyncio.wait_for(play(), 60))
    assert sizes == [len(items) for items in model.batches]
    return model


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_requests_that_come_together_are_one_batch() -> None:
    async def scene(batcher: Batcher[int, int], model: Model) -> None:
        assert await asyncio.gather(batcher.answer([1]), batcher.answer([2, 3])) == [[2], [4, 6]]
        assert await batcher.answer([4]) == [8]
        assert await batcher.answer([]) == []

    model = run(scene)
    assert model.batches == [[1, 2, 3], [4]]
    assert len(model.threads) == 1
    assert threading.main_thread().name not in model.threads


def test_what_comes_while_the_model_is_busy_is_the_next_batch() -> None:
    async def scene(batcher: Batcher[int, int], model: Model) -> None:
        model.free.clear()
        first = asyncio.create_task(batcher.answer([1]))
        await until(lambda: model.batches == [[1]])
        others = [asyncio.create_task(batcher.answer([number])) for number in (2, 3, 4)]
        await until(lambda: batcher.queued_items == 3)
        await asyncio.sleep(0.01)
        assert model.batches == [[1]]
        model.free.set()
        assert await asyncio.gather(first, *others) == [[2], [4], [6], [8]]

    assert run(scene).batches == [[1], [2, 3, 4]]


def test_no_request_is_torn_apart() -> None:
    async def scene(batcher: Batcher[int, int], model: Model) -> None:
        requests = [[1, 2], [3, 4, 5], [6], list(range(10, 20)), [7]]
        answers = await asyncio.gather(*map(batcher.answer, requests))
        assert answers == [[2 * item for item in items] for items in requests]

    assert run(scene, batch=4).batches == [[1, 2], [3, 4, 5, 6], list(range(10, 20)), [7]]


def test_items_that_take_longer_count_for_more() -> None:
    async def scene(batcher: Batcher[int, int], model: Model) -> None:
        requests = [[100], [101], [1], [2], [3], [100, 101, 102]]
        answers = await asyncio.gather(*map(batcher.answer, requests))
        assert answers == [[2 * item for item in items] for items in requests]

    assert run(scene).batches == [[100, 101, 1, 2], [3], [100, 101, 102]]


def test_a_full_queue_refuses_and_empties_again() -> None:
    async def scene(batcher: Batcher[int, int], model: Model) -> None:
        model.free.clear()
        first = asyncio.create_task(batcher.answer([1]))
        await until(lambda: model.batches == [[1]])
        waiting = asyncio.create_task(batcher.answer([2, 3]))
        await until(lambda: batcher.queued_items == 2)
        with pytest.raises(QueueFull):
            await batcher.answer([4, 5])
        smaller = asyncio.create_task(batcher.answer([6]))
        await until(lambda: batcher.queued_items == 3)
        model.free.set()
        assert await asyncio.gather(first, waiting, smaller) == [[2], [4, 6], [12]]
        assert await batcher.answer([4, 5]) == [8, 10]

    run(scene, queue=3)


def test_a_request_that_fails_fails_alone() -> None:
    async def scene(batcher: Batcher[int, int], model: Model) -> None:
        asked = (batcher.answer(items) for items in ([1], [-1], [3, 4]))
        first, failed, last = await asyncio.gather(*asked, return_exceptions=True)
        assert (first, str(failed), last) == ([2], "a negative number", [6, 8])
        assert await batcher.answer([2]) == [4]

    assert run(scene).batches == [[1, -1, 3, 4], [1], [-1], [3, 4], [2]]


def test_whoever_goes_away_is_not_missed() -> None:
    async def scene(batcher: Batcher[int, int], model: Model) -> None:
        model.free.clear()
        gone, stays = (asyncio.create_task(batcher.answer([number])) for number in (1, 2))
        await until(lambda: model.batches == [[1, 2]])
        gone.cancel()
        await until(gone.cancelled)
        model.free.set()
        assert await stays == [4]

    run(scene)


def test_whoever_goes_away_while_waiting_costs_nothing() -> None:
    """So that a server that leaves its clients at last has not to compute their answers first."""

    async def scene(batcher: Batcher[int, int], model: Model) -> None:
        model.free.clear()
        first = asyncio.create_task(batcher.answer([1]))
        await until(lambda: model.batches == [[1]])
        gone, stays = (asyncio.create_task(batcher.answer(items)) for items in ([2, 3], [4]))
        await until(lambda: batcher.queued_items == 3)
        gone.cancel()
        await until(gone.cancelled)
        model.free.set()
        assert await asyncio.gather(first, stays) == [[2], [8]]
        model.free.clear()
        first = asyncio.create_task(batcher.answer([5]))
        await until(lambda: model.batches[-1] == [5])
        gone = asyncio.create_task(batcher.answer([6]))
        await until(lambda: batcher.queued_items == 1)
        gone.cancel()
        await until(gone.cancelled)
        model.free.set()
        assert await first == [10]

    assert run(scene).batches == [[1], [4], [5]]


def test_what_waits_at_the_end_is_answered() -> None:
    async def scene(batcher: Batcher[int, int], model: Model) -> None:
        model.free.clear()
        tasks = [asyncio.create_task(batcher.answer([1]))]
        await until(lambda: bool(model.batches))
        tasks.append(asyncio.create_task(batcher.answer([2])))
        await until(lambda: batcher.queued_items == 1)
        asyncio.get_running_loop().call_later(0.01, model.free.set)
        await batcher.close()
        assert [task.result() for task in tasks] == [[2], [4]]

    run(scene)
