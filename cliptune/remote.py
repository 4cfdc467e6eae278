"""RemoteScorer: a Scorer whose units are computed by a model behind an API.

Needs neither the model nor torch. Labels stay here: class scores come back, and become rewards
where the search is. A request changes nothing at the provider, so each can be sent again.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cliptune.asking import IN_JOURNAL, Provider, TooMuch
from cliptune.errors import ConfigError, ScorerError
from cliptune.functions import loss
from cliptune.observer import Observer
from cliptune.protocol import (
    PROMPT,
    SCORE,
    Answer,
    Array,
    PromptAnswer,
    PromptQuestion,
    Question,
    Session,
    Subnetwork,
    Texts,
    UnitOfWork,
)
from cliptune.scorer import ModelFacts, Unit, UnitScorer, Usage
from cliptune.task import Task
from cliptune.types import Latent, Latents, Neighbours, PromptArray

if TYPE_CHECKING:
    from cliptune.config import Config

BEAT = 0.5  # seconds between two looks at whether to go on waiting


class RemoteScorer(UnitScorer):
    """Sends units to the provider at `scorer.url`, several requests at a time."""

    def __init__(self, config: Config, task: Task, observer: Observer | None = None) -> None:
        """`observer` is asked again and again, while requests are on their way, whether to wait."""
        self._provider = Provider(config)
        self._observer = observer or Observer()
        self._session = session_of(config, task)
        self._opened = self._provider.open(self._session)
        model = config.model.model_copy(update=self._opened.model)
        super().__init__(config.model_copy(update={"model": model}), task)
        self._most = min(config.scorer.units, self._opened.bounds.units)  # units of a request
        self.usage = Usage(bill=self._provider.bill)

    @property
    def workers(self) -> int:
        """Requests that are on their way at the same time."""
        return self.config.scorer.requests

    @property
    def lengths(self) -> Mapping[str, Sequence[int]]:
        return self._opened.lengths

    def facts(self) -> ModelFacts:
        return self._opened.facts

    def prompt(self, latent: Latent) -> PromptArray:
        return self._about(latent).prompt.numpy()

    def nearest(self, latent: Latent) -> Neighbours:
        return self._about(latent).nearest

    def run(self, units: Sequence[Unit], latents: Latents | None) -> list[NDArray[Any]]:
        """Have the units computed, some in each request; those of a request that takes too long
        are sent again in two."""
        self._provider.begin()
        retries = self._provider.bill.retries
        results: list[Any] = [None] * len(units)
        waiting = list(self._requests(range(len(units))))
        running: dict[Future[Answer], list[int]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    some = waiting.pop(0)
                    asked = question(self._opened.session, [units[i] for i in some], latents)
                    running[_begun(self._ask, asked)] = some
                self._observer.waiting()
                for done in wait(running, BEAT, FIRST_COMPLETED).done:
                    some = running.pop(done)
                    try:
                        self._keep(done.result(), some, units, results)
                    except TooMuch as error:
                        if len(some) == 1:
                            raise ScorerError(str(error)) from None
                        self._most = max(1, min(self._most, len(some) // 2))
                        waiting += self._requests(some)
        except BaseException:
            self._provider.give_up()
            raise
        self.usage.retries += self._provider.bill.retries - retries
        return results

    def _requests(self, units: Sequence[int]) -> Iterator[list[int]]:
        for start in range(0, len(units), self._most):
            yield list(units[start : start + self._most])

    def _ask(self, asked: Question) -> Answer:
        most = self._opened.bounds.bytes
        if asked.latents is not None and len(asked.latents.data) > most:
            raise TooMuch(
                f"The provider at {self._provider.url} takes requests of {most:,} bytes; the "
                f"latents of one micro-batch have {len(asked.latents.data):,}. Lower "
                f"search.population or prompt.dimension. {IN_JOURNAL}"
            )
        return self._provider.ask(SCORE, asked, Answer, self._session, self._opened)

    def _about(self, latent: Latent) -> PromptAnswer:
        asked = PromptQuestion(session=self._opened.session, latent=Array.of(latent))
        return self._provider.ask(PROMPT, asked, PromptAnswer, self._session, self._opened)

    def _keep(
        self, answer: Answer, some: list[int], units: Sequence[Unit], results: list[Any]
    ) -> None:
        """Put the class scores of some units where they belong, as rewards where they reduce."""
        shapes = [(*units[i].shape(self.task.classes)[:2], self.task.classes) for i in some]
        if [each.shape for each in answer.scores] != shapes:
            raise ScorerError(
                f"The provider at {self._provider.url} gave class scores of other shapes than "
                f"asked for: expected (candidates, examples, classes) {shapes[0]} first. Is it "
                f"another version of cliptune? {IN_JOURNAL}"
            )
        for i, each in zip(some, answer.scores, strict=True):
            scores = each.numpy()
            if units[i].reduce:
                labels = self.task[units[i].split].labels[list(units[i].examples)]
                search = self.config.search
                scores = loss.find(search.loss)(scores, labels, search.margin)
            results[i] = scores
        self.usage.device_seconds += answer.usage.device_seconds
        self._provider.bill.tokens += answer.usage.tokens


def session_of(config: Config, task: Task) -> Session:
    """What a provider has to know of a search: texts and settings, no labels and no paths."""
    prompt = config.prompt.model_dump(mode="json", exclude={"file"})
    file = config.prompt.file
    try:
        content = None if file is None else base64.b64encode(file.read_bytes()).decode()
    except OSError as error:
        raise ConfigError(f"prompt.file: {file} cannot be read: {error.strerror}.") from error
    return Session(
        template=task.template.source,
        label_words=task.label_words,
        verbalizer=task.verbalizer,
        label_tokens=task.label_tokens,
        max_tokens=task.max_tokens,
        splits={
            name: Texts(texts=split.texts, pairs=split.pairs) for name, split in task.splits.items()
        },
        prompt=prompt,
        prompt_file=content,
        sigma=config.search.sigma,
        model=config.model.model_dump(mode="json", exclude={"name"}),
    )


def question(session: str, units: Sequence[Unit], latents: Latents | None) -> Question:
    """Units with the latents of their candidates alone."""
    start = 0 if latents is None else min(unit.candidates[0] for unit in units)
    end = max(unit.candidates[1] for unit in units)
    asked = tuple(
        UnitOfWork(
            subnetwork=Subnetwork.model_validate(unit.subnetwork, from_attributes=True),
            split=unit.split,
            candidates=(unit.candidates[0] - start, unit.candidates[1] - start),
            examples=unit.examples,
        )
        for unit in units
    )
    some = None if latents is None else Array.of(np.asarray(latents[start:end], np.float64))
    return Question(session=session, units=asked, latents=some)


def _begun(work: Callable[[Question], Answer], question: Question) -> Future[Answer]:
    """What comes of the work, done in a thread that the end of the process does not wait for."""
    future: Future[Answer] = Future()

    def run() -> None:
        try:
            future.set_result(work(question))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="cliptune-request", daemon=True).start()
    return future
