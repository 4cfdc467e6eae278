"""ActorPool: a Scorer whose units are computed by Ray actors.

Results are gathered by the index of their unit, so neither the number of actors nor the order in
which they answer can be seen in them; nor can it be seen which of two actors answered first, or
how often one had to be asked.
"""

import statistics
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import ray
from numpy.typing import NDArray

from cliptune.errors import CliptuneError, ScorerError
from cliptune.observer import Observer
from cliptune.scorer import ModelFacts, Unit, UnitScorer
from cliptune.task import Task
from cliptune.types import Latent, Latents, Neighbours, PromptArray
from cluster.actor import ScoringActor, rows_of, span
from cluster.config import ClusterSearch
from cluster.dispatch import Dispatch
from cluster.fleet import PATIENCE, Fleet
from cluster.wire import Units
from cluster.worker import DIED, Lost, Worker

LATE, GRACE = 2.0, 0.25  # times what a call takes as a rule, and seconds, until it is late
HANGS = 20.0  # times what a call takes as a rule, until its actor is taken to hang
IMPATIENCE = 0.05  # seconds between two looks while an idle actor could help a late one
WORTH = 0.1  # seconds of work that are worth a call of their own
INLINE = 96 * 2**10  # bytes of latents that go with a call; Ray stores what has over 100 KiB


class ActorPool(UnitScorer):
    """Actors that each hold the model; `config.cluster` must be resolved (see session.py)."""

    config: ClusterSearch

    def __init__(
        self,
        config: ClusterSearch,
        task: Task,
        observer: Observer | None = None,
        actor: type[ScoringActor] = ScoringActor,
    ) -> None:
        """`observer` is asked again and again, while actors work, whether to go on waiting."""
        super().__init__(config, task)
        self._fleet = Fleet(config, task, observer or Observer(), actor)
        self._pace: deque[float] = deque(maxlen=64)  # seconds a token of the last calls
        self._facts: ModelFacts | None = None

    @property
    def workers(self) -> int:
        return len(self._fleet.ready)

    @property
    def pids(self) -> list[int]:
        """Process ids of the actors, by slot; on the actors' own machines."""
        return [worker.place.pid for worker in self._fleet.ready if worker.place]

    @property
    def handles(self) -> list[Any]:
        """The actors as Ray knows them, by slot; for measuring what a bare call takes."""
        return [worker.handle for worker in self._fleet.ready]

    @property
    def lengths(self) -> Mapping[str, Sequence[int]]:
        return self._fleet.arrival.lengths

    def canary(self) -> str:
        """That of the actors, which all have the same."""
        return self._fleet.arrival.canary

    def run(self, units: Sequence[Unit], latents: Latents | None) -> list[NDArray[Any]]:
        """Have the units computed, each by whoever is free; what is lost is given out again."""
        work = _Work(units, latents, self.task.classes)
        slots = [worker.slot for worker in self._fleet.ready]
        worth = WORTH / max(self._usual(1.0), 1e-12)  # all is, as long as nothing is known
        dispatch = work.dispatch = Dispatch([unit.tokens for unit in units], slots, worth)
        while dispatch.open:
            helpless = self._give(work)
            for worker, call, answer in self._fleet.outcomes(IMPATIENCE if helpless else PATIENCE):
                if call.about is work:
                    self._take(work, worker, answer)
        self.usage.retries += dispatch.again
        return work.results

    def prompt(self, latent: Latent) -> PromptArray:
        prompt: PromptArray = self._ask("prompt", latent)
        return prompt

    def nearest(self, latent: Latent) -> Neighbours:
        found: Neighbours = self._ask("nearest", latent)
        return found

    def facts(self) -> ModelFacts:
        if self._facts is None:
            self._facts = self._ask("facts")
        return self._facts

    def close(self) -> None:
        """End the actors."""
        self._fleet.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _give(self, work: "_Work") -> bool:
        """Give every idle actor something to do; whether one found nothing."""
        late: list[int] | None = None
        for worker in self._fleet.idle:
            if not (job := work.dispatch.take(worker.slot)):
                late = self._late(work) if late is None else late
                job = work.dispatch.double(worker.slot, late)
            if not job:
                return True
            mine = Units(work.units[index] for index in job)
            arguments = mine, work.latents_of(mine)
            seconds = self._seconds(work.dispatch.job_cost(worker.slot), len(job))
            self._fleet.call(
                worker, "run", *arguments, seconds=seconds, setting="unit_timeout", about=work
            )
        return False

    def _take(self, work: "_Work", worker: Worker, answer: Any) -> None:
        """Keep what is new in an actor's answer, or note that there was none."""
        if isinstance(answer, CliptuneError):
            raise answer
        if isinstance(answer, Lost):
            self._give_again(work, worker, answer)
            return
        results, seconds = answer
        if fault := work.fault(worker.slot, results):
            self._fleet.dismiss(worker, fault)
            self._give_again(work, worker, Lost(fault, blameless=False))
            return
        self.usage.device_seconds += seconds
        self._pace.append(seconds / work.dispatch.job_cost(worker.slot))
        for place, index in work.dispatch.answered(worker.slot):
            work.results[index] = results[place]

    def _give_again(self, work: "_Work", worker: Worker, lost: Lost) -> None:
        index = work.dispatch.lost(worker.slot, blameless=lost.blameless)
        failures = self.config.cluster.failures
        if index is None or work.dispatch.losses(index) < failures:
            return
        unit = work.units[index]
        first, last = unit.candidates
        hint = "; often memory ran out, see Ray's logs" if lost.why == DIED else ""
        raise ScorerError(
            f"{failures} actors were lost over the same micro-batch (cluster.failures): candidates "
            f"{first} to {last - 1} on {len(unit.examples)} examples of {unit.split}, subnetwork "
            f"{unit.subnetwork.index}. The last one {lost.why}{hint}. "
            "What was scored before is in the journal."
        )

    def _late(self, work: "_Work") -> list[int]:
        """Slots of actors that take far longer than they should, or that are about to go."""
        now, usual = time.monotonic(), self._usual(1.0)
        return [
            worker.slot
            for worker in self._fleet.busy
            if worker.call and worker.call.about is work
            if worker.leaving
            or now - worker.call.since > GRACE + LATE * usual * work.dispatch.job_cost(worker.slot)
        ]

    def _usual(self, tokens: float) -> float:
        """Seconds that so many tokens take as a rule; forever where that is not known yet."""
        return tokens * statistics.median(self._pace) if self._pace else float("inf")

    def _seconds(self, tokens: float, units: int) -> float:
        """How long a call may take."""
        limit = self.config.cluster.unit_timeout
        return min(float(limit * units), max(float(limit), HANGS * self._usual(tokens)))

    def _ask(self, method: str, *arguments: Any) -> Any:
        """Ask any actor; another one where it dies."""
        about = object()
        for _ in range(self.config.cluster.failures):
            while not (idle := self._fleet.idle):
                self._fleet.outcomes()
            seconds = float(self.config.cluster.start_timeout)
            self._fleet.call(idle[0], method, *arguments, seconds=seconds, about=about)
            answers: list[Any] = []
            while not answers:
                found = self._fleet.outcomes()
                answers = [answer for _, call, answer in found if call.about is about]
            if isinstance(answers[0], CliptuneError):
                raise answers[0]
            if not isinstance(answers[0], Lost):
                return answers[0]
            self.usage.retries += 1
        raise ScorerError(
            f"{self.config.cluster.failures} actors were lost over the question for the model's "
            f"{method} (cluster.failures). What was scored before is in the journal."
        )


class _Work:
    """Units that are to be computed, and what became of them."""

    dispatch: Dispatch

    def __init__(self, units: Sequence[Unit], latents: Latents | None, classes: int) -> None:
        self.units = units
        self._latents = latents
        self._stored: Any = None  # where all latents are for actors that need many
        self.results: list[Any] = [None] * len(units)
        self._classes = classes
        self._doubted: set[int] = set()  # not finite by one actor
        self._confirmed = False  # one of them by a second actor as well

    def latents_of(self, units: Sequence[Unit]) -> Any:
        """What a call with these units says of the latents: the rows themselves, where they are
        few, as an actor waits longer for the object store than for anything else."""
        if self._latents is None:
            return None
        start, end = span(units)
        few = (end - start) * self._latents[0].nbytes <= INLINE
        if few and self._latents.dtype == np.float64:
            return rows_of(self._latents, units)
        if self._stored is None:
            self._stored = ray.put(self._latents)
        return self._stored

    def fault(self, slot: int, results: Sequence[Any]) -> str:
        """What is wrong with a worker's results, in words; empty where nothing is.

        What is not finite is taken from the second actor that gives it: then it is the model, and
        the scorer says so.
        """
        job = self.dispatch.job(slot)
        if not isinstance(results, list) or len(results) != len(job):
            return f"did not answer for each of its {len(job)} micro-batches"
        answers = list(zip(job, results, strict=True))
        for index, result in answers:
            expected = self.units[index].shape(self._classes)
            if getattr(result, "shape", None) != expected:
                return f"gave a result that has not the shape {expected}"
        bad = {index for index, result in answers if not np.isfinite(result).all()}
        self._confirmed |= bool(bad & self._doubted)
        self._doubted |= bad
        return "gave a result that is not finite" if bad and not self._confirmed else ""
