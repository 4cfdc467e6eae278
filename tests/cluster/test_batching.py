"""What waits is computed together; what is given up, or wrong, harms nobody else."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from cliptune.errors import TaskError
from cluster.batching import Batcher, FullError


class Worker:
    """Doubles numbers, once it may; and remembers what it was given."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.begun, self.may = threading.Event(), threading.Event()

    def __call__(self, key: str, items: Sequence[int]) -> list[int]:
        self.batches.append((key, list(items)))
        self.begun.set()
        assert self.may.wait(20)
        if -1 in items:
            raise TaskError("minus one")
        if -2 in items:
            raise ValueError
        return [2 * item for item in items]


Ask = Callable[..., Coroutine[Any, Any, Sequence[int]]]


def while_busy(
    worker: Worker, *asked: tuple[str, list[int]], most: int = 8, queue: int = 8
) -> list[Any]:
    """What each gets that asks while the first is computed."""

    async def all_of_them() -> list[Any]:
        batcher: Batcher[str, int, int] = Batcher(worker, most, queue)
        first, *others = asked
        tasks = [asyncio.create_task(batcher.ask(*first, 20))]
        assert await asyncio.to_thread(worker.begun.wait, 20)
        tasks += [asyncio.create_task(batcher.ask(*each, 20)) for each in others]
        await asyncio.sleep(0)  # each is in the queue then
        worker.may.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(all_of_them())


def test_what_came_meanwhile_is_computed_together_by_its_key() -> None:
    worker = Worker()
    found = while_busy(worker, ("a", [1]), ("a", [2, 3]), ("b", [4]), ("a", [5]))
    assert found == [[2], [4, 6], [8], [10]]
    assert worker.batches == [("a", [1]), ("a", [2, 3, 5]), ("b", [4])]


def test_a_batch_has_no_more_items_than_it_may_but_for_one_request() -> None:
    worker = Worker()
    found = while_busy(worker, ("a", [1]), ("a", [2, 3]), ("a", [4, 5, 6, 7]), ("a", [8]), most=3)
    assert found == [[2], [4, 6], [8, 10, 12, 14], [16]]
    assert [items for _, items in worker.batches] == [[1], [2, 3, 8], [4, 5, 6, 7]]


def test_who_comes_when_the_queue_is_full_hears_so_at_once() -> None:
    found = while_busy(Worker(), ("a", [1]), ("a", [2]), ("a", [3]), queue=1)
    assert found[:2] == [[2], [4]]
    assert isinstance(found[2], FullError)


def test_a_wrong_item_fails_its_own_request_only() -> None:
    found = while_busy(Worker(), ("a", [1]), ("a", [2]), ("a", [-1]), ("a", [3]))
    assert [found[0], found[1], found[3]] == [[2], [4], [6]]
    assert isinstance(found[2], TaskError)


def test_a_defect_reaches_its_own_request_only() -> None:
    found = while_busy(Worker(), ("a", [-2]), ("a", [1]))
    assert isinstance(found[0], ValueError)
    assert found[1] == [2]


def test_what_nobody_waits_for_any_more_is_not_computed() -> None:
    worker = Worker()

    async def given_up() -> None:
        batcher: Batcher[str, int, int] = Batcher(worker, 8, 8)
        first = asyncio.create_task(batcher.ask("a", [1], 20))
        assert await asyncio.to_thread(worker.begun.wait, 20)
        with pytest.raises(TimeoutError):
            await batcher.ask("a", [2], 0.001)
        assert batcher.waiting == 0
        worker.may.set()
        assert await first == [2]
        assert await batcher.ask("a", [3], 20) == [6]

    asyncio.run(given_up())
    assert [items for _, items in worker.batches] == [[1], [3]]
