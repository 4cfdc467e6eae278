"""Found prompts behind HTTP: texts in, classes out, and a page for people.

What users send is never written down.
"""

import base64
import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from cliptune.predictor import Device, Prediction
from cliptune.protocol import Message
from cluster.batching import Batcher, FullError
from cluster.meters import Meters
from cluster.prompts import PromptHost, PromptInfo, Served, Texts, Wish
from cluster.web import RETRY_AFTER, Refused, Route, Server, as_json, read_json, settle

PAGE, CLASSIFY, PROMPTS = "", "/v1/classify", "/v1/prompts"
HTML = Path(__file__).with_name("page.html")
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)  # of batches, in texts


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


class Classifier(Server):
    """Answers requests for the prompts of some runs."""

    def __init__(
        self,
        served: Sequence[Served],
        limits: Limits,
        token_sha256: str | None = None,
        threads: int = 1,
        model: str | None = None,
        device: Device | None = None,
        folder: str | None = None,
        totals: Any = None,
    ) -> None:
        """Loads the model. `threads` and `folder` as of settle, `totals` as of Meters."""
        settle(threads, folder)
        meters = Meters("serve", totals)
        super().__init__(token_sha256, meters)
        self.routes |= {
            PAGE: Route("GET", self._show, open=True),  # nothing of a prompt is in it
            PROMPTS: Route("GET", self._prompts),
            CLASSIFY: Route("POST", self._classify),
        }
        self._limits = limits
        self._host = PromptHost(served, model, device)
        self._batcher = Batcher(self._compute, limits.texts, limits.queue)
        self._page = HTML.read_text(encoding="utf-8")
        self._policy = content_policy(self._page)
        self._texts = meters.counter("texts", "Classified", "prompt", "ensemble")
        self._sizes = meters.histogram("batch_texts", "Computed together", buckets=SIZES)
        self._busy = meters.counter("busy_seconds", "In which the model computed")
        meters.gauge("waiting", "Requests whose turn has not come", lambda: self._batcher.waiting)

    async def _show(self, request: Request) -> Response:
        return HTMLResponse(self._page, headers={"Content-Security-Policy": self._policy})

    async def _prompts(self, request: Request) -> Response:
        return as_json(Prompts(prompts=self._host.infos))

    async def _classify(self, request: Request) -> Response:
        question = await read_json(request, Question, self._limits.bytes, self._meters)
        self._check_size(question)
        wish = self._host.wish(question.prompt, ensemble=question.ensemble)
        examples = self._host.examples(wish, question.texts)
        try:
            found = await self._batcher.ask(wish, examples, self._limits.seconds)
        except FullError:
            text = f"{self._limits.queue} requests wait already."
            raise Refused(429, "busy", text, RETRY_AFTER) from None
        except TimeoutError:
            text = f"there was no answer within {self._limits.seconds:g} s."
            raise Refused(504, "timeout", text) from None
        self._texts.labels(wish.prompt, str(wish.ensemble).lower()).inc(len(found))
        return as_json(Answer(prompt=wish.prompt, predictions=tuple(map(_found, found))))

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
            self._sizes.observe(len(examples))
            self._busy.inc(time.perf_counter() - started)


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
