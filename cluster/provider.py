"""A frozen model behind HTTP: who may ask, how much, who waits, and what is counted.

One thread computes, one request after the other: units of different requests never share a forward
pass, so that an answer does not depend on who else asks. A plain class; Ray Serve runs it
(see serving.py), and so does any ASGI server.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import prometheus_client
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

from cliptune.config import ModelConfig
from cliptune.errors import CliptuneError, OutOfMemoryError
from cliptune.protocol import (
    HEALTH,
    METRICS,
    PROMPT,
    SCORE,
    SESSIONS,
    Answer,
    Bounds,
    Message,
    PromptQuestion,
    Question,
    Session,
    UnknownSessionError,
)
from cluster.web import JSON, RETRY_AFTER, Refused, as_json, check_token, failure, parsed, read_body

T = TypeVar("T")

LOG = logging.getLogger("cliptune.provider")


@dataclass(frozen=True)
class Limits:
    """What one may ask of a replica."""

    units: int = 64  # of a request
    rows: int = 4096  # of a unit
    bytes: int = 16 * 2**20  # of a request's body
    examples: int = 100_000  # of a session
    sessions: int = 16  # kept at the same time
    queue: int = 16  # requests that wait
    seconds: float = 120.0  # for a request, its waiting included
    opening: float = 600.0  # seconds for a session


class Provider:
    """Answers requests for one model."""

    def __init__(
        self, model: ModelConfig, limits: Limits, token_sha256: str | None, threads: int = 1
    ) -> None:
        """Loads the model, to compute on so many CPU `threads`; of the token only its SHA-256 is
        known here, and without one everybody may ask."""
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        import torch

        from cluster.provided import ModelHost

        torch.set_num_threads(threads)
        self._limits, self._token = limits, token_sha256
        bounds = Bounds(units=limits.units, rows=limits.rows, bytes=limits.bytes)
        self._host = ModelHost(model, bounds, limits.sessions, limits.examples)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._waiting = 0  # requests, the one that is computed included
        self._meters = Meters()

    async def __call__(self, request: Request) -> Response:
        started = time.perf_counter()
        path = request.url.path.rstrip("/")
        try:
            response = await self._answer(request, path)
        except Refused as refused:
            response = failure(refused)
        except ClientDisconnect:
            response = Response(status_code=499)
        except Exception:
            LOG.exception("A request to %s failed", path)
            text = "this is a defect of the provider; its log says more."
            response = failure(Refused(500, "defect", text))
        self._meters.request(path, response, time.perf_counter() - started)
        return response

    def check_health(self) -> None:
        """Asked by Ray Serve; what is not raised is health."""

    async def _answer(self, request: Request, path: str) -> Response:
        if path == HEALTH:
            return Response('{"status":"ok"}', media_type=JSON)
        check_token(request, self._token)
        if path == METRICS and request.method == "GET":
            self._meters.state(self._waiting, self._host.sessions)
            return PlainTextResponse(self._meters.text())
        kinds: dict[str, type[Message]] = {
            SESSIONS: Session,
            SCORE: Question,
            PROMPT: PromptQuestion,
        }
        if path not in kinds:
            raise Refused(404, "not_found", f"there is no {path[:60]} here.")
        if request.method != "POST":
            raise Refused(405, "method", f"{path} is asked with POST.")
        body = await read_body(request, self._limits.bytes)
        self._meters.received.inc(len(body))
        message = await asyncio.to_thread(parsed, kinds[path], body)
        if isinstance(message, Session):
            opening = self._limits.opening
            return as_json(await self._turn(lambda check: self._host.open(message), opening))
        if isinstance(message, PromptQuestion):
            asked = message
            return as_json(await self._turn(lambda check: self._host.prompt(asked)))
        assert isinstance(message, Question)  # noqa: S101 - for the type checker
        return await self._score(message)

    async def _score(self, question: Question) -> Response:
        if (found := len(question.units)) > self._limits.units:
            most = self._limits.units
            raise Refused(413, "too_large", f"a request may have {most} units, {found} were sent.")
        answer: Answer = await self._turn(lambda check: self._host.score(question, check))
        self._meters.work(len(question.units), answer)
        return await asyncio.to_thread(as_json, answer)

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
        except CliptuneError as error:
            raise _refusal(error) from None
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


class Meters:
    """What Prometheus is told, of this replica."""

    def __init__(self) -> None:
        self._registry = prometheus_client.CollectorRegistry()
        counter: Any = lambda name, text, labels=(): prometheus_client.Counter(  # noqa: E731
            f"cliptune_provider_{name}", text, labels, registry=self._registry
        )
        gauge: Any = lambda name, text: prometheus_client.Gauge(  # noqa: E731
            f"cliptune_provider_{name}", text, registry=self._registry
        )
        self._requests = counter("requests", "Requests answered", ("path", "status"))
        self._seconds = counter("request_seconds", "Seconds until their answers", ("path",))
        self.received = counter("received_bytes", "Bytes of their bodies")
        self._sent = counter("sent_bytes", "Bytes of the answers")
        self._units = counter("units", "Units scored")
        self._passes = counter("forward_passes", "Candidates x examples scored")
        self._tokens = counter("tokens", "Tokens computed, padding included")
        self._device = counter("device_seconds", "Seconds that scoring took")
        self._waiting = gauge("waiting", "Requests that wait or are computed")
        self._sessions = gauge("sessions", "Sessions that are kept")

    def request(self, path: str, response: Response, seconds: float) -> None:
        known = path if path in (SESSIONS, SCORE, PROMPT, HEALTH, METRICS) else "other"
        self._requests.labels(known, str(response.status_code)).inc()
        self._seconds.labels(known).inc(seconds)
        self._sent.inc(len(response.body))

    def work(self, units: int, answer: Answer) -> None:
        self._units.inc(units)
        self._passes.inc(answer.usage.forward_passes)
        self._tokens.inc(answer.usage.tokens)
        self._device.inc(answer.usage.device_seconds)

    def state(self, waiting: int, sessions: int) -> None:
        self._waiting.set(waiting)
        self._sessions.set(sessions)

    def text(self) -> str:
        """In Prometheus' own format."""
        return prometheus_client.generate_latest(self._registry).decode()


def _refusal(error: CliptuneError) -> Refused:
    """How an error of the model's is answered."""
    if isinstance(error, UnknownSessionError):
        return Refused(404, "unknown_session", str(error))
    if isinstance(error, OutOfMemoryError):
        return Refused(507, "out_of_memory", str(error))
    return Refused(422, "invalid", str(error))
