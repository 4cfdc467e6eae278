"""Requests that wait are computed together.

While one batch is computed in a thread, the next one gathers: an idle server adds no delay, and a
busy one has large batches.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
I = TypeVar("I")  # noqa: E741 - of items
R = TypeVar("R")
Work = Callable[[K, Sequence[I]], Sequence[R]]  # one result an item


class FullError(Exception):
    """As many wait already as may."""


@dataclass(eq=False)
class _Request(Generic[K, I, R]):
    key: K
    items: Sequence[I]
    answer: asyncio.Future[Sequence[R]] = field(default_factory=asyncio.Future)


class Batcher(Generic[K, I, R]):
    """One thread that does the work of many requests; belongs to one event loop."""

    def __init__(self, work: Work[K, I, R], most: int, queue: int) -> None:
        """At most `queue` requests wait; those of one key share a batch up to `most` items."""
        self._work, self._most, self._queue = work, most, queue
        self._waiting: deque[_Request[K, I, R]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._running: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Requests whose turn has not come."""
        return sum(not one.answer.done() for one in self._waiting)

    async def ask(self, key: K, items: Sequence[I], seconds: float) -> Sequence[R]:
        """The results of `items`, in their order.

        Raises FullError at once, TimeoutError after so many `seconds` (what waits until then is
        not computed), and what the work raises for these items.
        """
        if self.waiting >= self._queue:
            raise FullError
        request: _Request[K, I, R] = _Request(key, items)
        self._waiting.append(request)
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await asyncio.wait_for(request.answer, seconds)  # at its end it cancels the answer

    async def _run(self) -> None:
        while batch := self._next():
            await self._compute(batch)

    def _next(self) -> list[_Request[K, I, R]]:
        """The first that still wants an answer, and all later ones of its key that have room."""
        batch: list[_Request[K, I, R]] = []
        others: deque[_Request[K, I, R]] = deque()
        room = self._most
        for request in self._waiting:
            if request.answer.done():
                continue
            if not batch or (request.key == batch[0].key and len(request.items) <= room):
                batch.append(request)
                room -= len(request.items)
            else:
                others.append(request)
        self._waiting = others
        return batch

    async def _compute(self, batch: list[_Request[K, I, R]]) -> None:
        items = [item for request in batch for item in request.items]
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._thread, self._work, batch[0].key, items)
        except Exception as error:
            if len(batch) > 1:  # whose fault it was is not known: the others get their answers
                for request in batch:
                    if not request.answer.done():
                        await self._compute([request])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        start = 0
        for request in batch:
            end = start + len(request.items)
            if not request.answer.done():
                request.answer.set_result(found[start:end])
            start = end
