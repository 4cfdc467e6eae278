"""A frozen model behind HTTP: how much one may ask of it, who waits, and what is counted.

One thread computes, one request after the other: units of different requests never share a forward
pass, so that an answer does not depend on who else asks.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from cliptune.config import ModelConfig
from cliptune.protocol import (
    PROMPT,
    SCORE,
    SESSIONS,
    Answer,
    Bounds,
    Message,
    PromptQuestion,
    Question,
    Session,
)
from cluster.meters import Meters
from cluster.web import RETRY_AFTER, Refused, Route, Server, as_json, read_json, settle

M = TypeVar("M", bound=Message)
T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """What one may ask of a replica."""

    units: int = 64  # of a request
    rows: int = 4096  # of a unit
    bytes: int = 16 * 2**20  # of a request's body
    examples: int = 100_000  # of a session
    sessions: int = 16  # kept at the same time
    idle: float = 10.0  # seconds without a question, after which a session makes room for another
    queue: int = 16  # requests that wait
    seconds: float = 120.0  # for a request, its waiting included
    opening: float = 600.0  # seconds for a session


class Provider(Server):
    """Answers requests for one model."""

    def __init__(
        self,
        model: ModelConfig,
        limits: Limits,
        token_sha256: str | None,
        threads: int = 1,
        folder: str | None = None,
        totals: Any = None,
    ) -> None:
        """Loads the model. `threads` and `folder` as of settle, `totals` as of Meters."""
        settle(threads, folder)
        from cluster.provided import ModelHost

        meters = Meters("provider", totals)
        super().__init__(token_sha256, meters)
        self.routes |= {
            SESSIONS: Route("POST", self._open),
            SCORE: Route("POST", self._score),
            PROMPT: Route("POST", self._prompt),
        }
        self._limits = limits
        bounds = Bounds(units=limits.units, rows=limits.rows, bytes=limits.bytes)
        self._host = ModelHost(model, bounds, limits.sessions, limits.examples, limits.idle)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._waiting = 0  # requests, the one that is computed included
        self._units = meters.counter("units", "Scored")
        self._passes = meters.counter("forward_passes", "Candidates x examples scored")
        self._tokens = meters.counter("tokens", "Computed, padding included")
        self._busy = meters.counter("device_seconds", "That scoring took")
        meters.gauge("waiting", "Requests that wait or are computed", lambda: self._waiting)
        meters.gauge("sessions", "That are kept", lambda: self._host.sessions)

    async def _open(self, request: Request) -> Response:
        session = await self._read(request, Session)
        opened = await self._turn(lambda check: self._host.open(session), self._limits.opening)
        if opened is None:
            text = (
                f"all places for sessions ({self._limits.sessions}) are taken by searches that go "
                "on; cliptune provider --sessions says how many there are."
            )
            raise Refused(429, "busy", text, RETRY_AFTER)
        return as_json(opened)

    async def _prompt(self, request: Request) -> Response:
        question = await self._read(request, PromptQuestion)
        with self._host.awaited(question.session):
            return as_json(await self._turn(lambda check: self._host.prompt(question)))

    async def _score(self, request: Request) -> Response:
        question = await self._read(request, Question)
        if (found := len(question.units)) > self._limits.units:
            most = self._limits.units
            raise Refused(413, "too_large", f"a request may have {most} units, {found} were sent.")
        with self._host.awaited(question.session):
            answer: Answer = await self._turn(lambda check: self._host.score(question, check))
        self._units.inc(found)
        self._passes.inc(answer.usage.forward_passes)
        self._tokens.inc(answer.usage.tokens)
        self._busy.inc(answer.usage.device_seconds)
        return await asyncio.to_thread(as_json, answer)

    async def _read(self, request: Request, kind: type[M]) -> M:
        return await read_json(request, kind, self._limits.bytes, self._meters)

    async def _turn(
        self, work: Callable[[Callable[[], None]], T], seconds: float | None = None
    ) -> T:
        """Do something with the model once all who came before are done."""
        seconds = self._limits.seconds if seconds is None else seconds
        if self._waiting > self._limits.queue:
            text = f"{self._limits.queue} requests wait already."
            raise Refused(429, "busy", text, RETRY_AFTER)
        turn = _Turn()
        self._waiting += 1
        try:
            future = self._thread.submit(turn.take, work)
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except TimeoutError:
            if turn.begun:
                text = f"it took longer than {seconds:g} s; ask for fewer units at once."
                raise Refused(504, "timeout", text) from None
            text = f"its turn did not come within {seconds:g} s."
            raise Refused(503, "busy", text, RETRY_AFTER) from None
        finally:
            turn.over = True  # whoever gave up waiting: no further unit is computed
            self._waiting -= 1


class _Turn:
    """What one request has the thread do."""

    begun = over = False

    def take(self, work: Callable[[Callable[[], None]], T]) -> T:
        self.check()
        self.begun = True
        return work(self.check)

    def check(self) -> None:
        if self.over:
            raise Refused(503, "given_up", "nobody waits for it any more.")
