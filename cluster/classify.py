"""Found prompts behind HTTP: texts in, classes out, and a page for people.

A plain class; Ray Serve runs it (see serving.py), and so does any ASGI server. What users send is
never written down.
"""

import base64
import hashlib
import logging
import os
import re
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import prometheus_client
from pydantic import Field
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from cliptune.errors import CliptuneError, OutOfMemoryError
from cliptune.predictor import Device, Prediction
from cliptune.protocol import HEALTH, METRICS, Message
from cluster.batching import Batcher, DefectError, FullError
from cluster.prompts import PromptHost, PromptInfo, Served, Texts, Wish
from cluster.web import JSON, RETRY_AFTER, Refused, as_json, check_token, failure, parsed, read_body

PAGE, CLASSIFY, PROMPTS = "", "/v1/classify", "/v1/prompts"
HTML = Path(__file__).with_name("page.html")
METHODS = {PAGE: "GET", HEALTH: "GET", PROMPTS: "GET", METRICS: "GET", CLASSIFY: "POST"}
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)  # of batches, in texts
OPEN = (PAGE, HEALTH)  # without the token: nothing of a prompt is in them

LOG = logging.getLogger("cliptune.serve")


@dataclass(frozen=True)
class Limits:
    """What one may ask of a replica."""

    texts: int = 256  # of a request, and computed together
    characters: int = 20_000  # of a text
    bytes: int = 2**20  # of a request's body
    queue: int = 64  # requests that wait
    seconds: float = 30.0  # for a request, its waiting included


class Question(Message):
    """What is to be classified; of a task of pairs, two texts each."""

    prompt: str | None = None  # its name, where there are several
    texts: tuple[str | Texts, ...] = Field(min_length=1)
    ensemble: bool = False  # asks the thinned networks instead of the full one


class Found(Message):
    """What a text is taken for."""

    label: str  # the label word
    value: int | str  # as the label column has it
    probabilities: dict[str, float]  # by label word
    agreement: float | None  # of an ensemble: share of its networks that say the same


class Answer(Message):
    """In the order of the texts."""

    prompt: str
    predictions: tuple[Found, ...]


class Prompts(Message):
    """All that are served."""

    prompts: tuple[PromptInfo, ...]


class Classifier:
    """Answers requests for the prompts of some runs."""

    def __init__(
        self,
        served: Sequence[Served],
        limits: Limits,
        token_sha256: str | None = None,
        threads: int = 1,
        model: str | None = None,
        device: Device | None = None,
    ) -> None:
        """Loads the model, to compute on so many CPU `threads`; of the token only its SHA-256 is
        known here, and without one everybody may ask."""
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        import torch

        torch.set_num_threads(threads)
        self._limits, self._token = limits, token_sha256
        self._host = PromptHost(served, model, device)
        self._meters = Meters()
        self._batcher = Batcher(self._compute, limits.texts, limits.queue)
        self._page = HTML.read_text(encoding="utf-8")
        self._policy = content_policy(self._page)

    async def __call__(self, request: Request) -> Response:
        started = time.perf_counter()
        path = request.url.path.rstrip("/")
        try:
            response = await self._answer(request, path)
        except Refused as refused:
            response = failure(refused)
        except ClientDisconnect:
            response = Response(status_code=499)
        except Exception as error:  # its message may hold a user's text
            where = "".join(traceback.format_tb(error.__traceback__))
            LOG.error("A request failed with %s\n%s", type(error).__name__, where)
            response = failure(_defect())
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        self._meters.request(path, response, time.perf_counter() - started)
        return response

    def check_health(self) -> None:
        """Asked by Ray Serve; what is not raised is health."""

    async def _answer(self, request: Request, path: str) -> Response:
        if path not in METHODS:
            raise Refused(404, "not_found", f"there is no {path[:60]} here.")
        if path not in OPEN:
            check_token(request, self._token)
        if request.method != METHODS[path]:
            raise Refused(405, "method", f"{path} is asked with {METHODS[path]}.")
        if path == PAGE:
            return HTMLResponse(self._page, headers={"Content-Security-Policy": self._policy})
        if path == HEALTH:
            return Response('{"status":"ok"}', media_type=JSON)
        if path == METRICS:
            return PlainTextResponse(self._meters.text(self._batcher.waiting))
        if path == PROMPTS:
            return as_json(Prompts(prompts=self._host.infos))
        return as_json(await self._classify(request))

    async def _classify(self, request: Request) -> Answer:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            # A browser asks before it sends JSON for another page, and is not answered.
            raise Refused(415, "media_type", f"the body must be {JSON}, and be called so.")
        question = parsed(Question, await read_body(request, self._limits.bytes))
        self._check_size(question)
        try:
            wish = self._host.wish(question.prompt, ensemble=question.ensemble)
            examples = self._host.examples(wish, question.texts)
            found = await self._batcher.ask(wish, examples, self._limits.seconds)
        except FullError:
            text = f"{self._limits.queue} requests wait already."
            raise Refused(429, "busy", text, RETRY_AFTER) from None
        except TimeoutError:
            text = f"there was no answer within {self._limits.seconds:g} s."
            raise Refused(504, "timeout", text) from None
        except DefectError:
            raise _defect() from None
        except OutOfMemoryError as error:
            raise Refused(507, "out_of_memory", str(error)) from None
        except CliptuneError as error:
            raise Refused(422, "invalid", str(error)) from None
        self._meters.classified(wish, len(found))
        return Answer(prompt=wish.prompt, predictions=tuple(map(_found, found)))

    def _check_size(self, question: Question) -> None:
        limits, count = self._limits, len(question.texts)
        if count > limits.texts:
            text = f"a request may have {limits.texts} texts, {count} were sent."
            raise Refused(413, "too_large", text)
        for number, each in enumerate(question.texts):
            size = max(map(len, (each,) if isinstance(each, str) else each), default=0)
            if size > limits.characters:
                text = f"a text may have {limits.characters:,} characters, texts.{number} has more."
                raise Refused(413, "too_large", text)

    def _compute(self, wish: Wish, examples: Sequence[Texts]) -> list[Prediction]:
        started = time.perf_counter()
        try:
            return self._host.answer(wish, examples)
        finally:
            self._meters.batch(len(examples), time.perf_counter() - started)


class Meters:
    """What Prometheus is told. Each replica has its own numbers, told apart by its process."""

    def __init__(self) -> None:
        self._registry = prometheus_client.CollectorRegistry()
        self._own = (str(os.getpid()),)
        kinds = prometheus_client
        self._requests = self._meter(kinds.Counter, "requests", "Answered", "path", "status")
        self._seconds = self._meter(kinds.Histogram, "request_seconds", "To the answer", "path")
        self._texts = self._meter(kinds.Counter, "texts", "Classified", "prompt", "ensemble")
        self._sizes = self._meter(
            kinds.Histogram,
            "batch_texts",
            "Computed together",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
        )
        self._busy = self._meter(kinds.Counter, "busy_seconds", "In which the model computed")
        self._waiting = self._meter(kinds.Gauge, "waiting", "Requests whose turn has not come")

    def _meter(self, kind: Any, name: str, text: str, *labels: str, **more: Any) -> Any:
        full = f"cliptune_serve_{name}"
        return kind(full, text, ("replica", *labels), registry=self._registry, **more)

    def request(self, path: str, response: Response, seconds: float) -> None:
        known = path or "/" if path in METHODS else "other"
        self._requests.labels(*self._own, known, str(response.status_code)).inc()
        self._seconds.labels(*self._own, known).observe(seconds)

    def classified(self, wish: Wish, texts: int) -> None:
        self._texts.labels(*self._own, wish.prompt, str(wish.ensemble).lower()).inc(texts)

    def batch(self, texts: int, seconds: float) -> None:
        self._sizes.labels(*self._own).observe(texts)
        self._busy.labels(*self._own).inc(seconds)

    def text(self, waiting: int) -> str:
        """In Prometheus' own format."""
        self._waiting.labels(*self._own).set(waiting)
        return prometheus_client.generate_latest(self._registry).decode()


def content_policy(page: str) -> str:
    """Nothing runs on the page but what is written in it, and it talks to this server alone."""

    def digests(tag: str) -> str:
        inside = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        each = (base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in inside)
        return " ".join(f"'sha256-{one}'" for one in each)

    return (
        f"default-src 'none'; script-src {digests('script')}; style-src {digests('style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


def _found(prediction: Prediction) -> Found:
    return Found(
        label=prediction.label,
        value=prediction.value,
        probabilities=prediction.probabilities,
        agreement=prediction.agreement,
    )


def _defect() -> Refused:
    return Refused(500, "defect", "this is a defect of the server; its log says where.")
