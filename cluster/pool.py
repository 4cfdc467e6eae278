"""ActorPool: a Scorer whose units are computed by Ray actors.

Results are gathered by the index of their unit, so neither the number of actors nor the order
in which they answer can be seen in them. An actor that dies is replaced and what it had not
answered is sent again; Ray's own restarts and retries stay off, as they may run a call twice
and forget the actor's state.
"""

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import ray
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayTaskError

from cliptune.errors import CliptuneError, ScorerError
from cliptune.scorer import ModelFacts, Unit, UnitScorer
from cliptune.task import Task
from cliptune.types import Latent, Latents, PromptArray
from cluster.actor import ScoringActor
from cluster.config import ClusterSearch
from cluster.placement import shares

PATIENCE = 0.5  # seconds between two looks at whether to go on waiting


@dataclass
class Worker:
    """An actor and what is known of it."""

    handle: Any
    pid: int | None = None


class ActorPool(UnitScorer):
    """Actors that each hold the model; `config.cluster` must be resolved (see session.py)."""

    config: ClusterSearch

    def __init__(
        self, config: ClusterSearch, task: Task, waiting: Callable[[], None] = lambda: None
    ) -> None:
        """`waiting` is called again and again while the actors work, and may raise."""
        super().__init__(config, task)
        self._waiting = waiting
        self._task_ref = ray.put(task)
        self._actor_class = ray.remote(
            num_cpus=config.cluster.threads_per_actor,
            num_gpus=float(config.cluster.gpus_per_actor),
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )(ScoringActor)
        self._deaths = 0  # since a unit was last scored
        count = int(config.cluster.actors)
        self._workers = self._start(count)
        while len(self._workers) < count:
            self._mourn()
            self._workers += self._start(count - len(self._workers))
        self._facts: ModelFacts | None = None
        self._lengths: Mapping[str, Sequence[int]] | None = None

    @property
    def workers(self) -> int:
        return len(self._workers)

    @property
    def pids(self) -> list[int]:
        """Process ids of the actors, by slot; on the actors' own machines."""
        return [int(worker.pid or 0) for worker in self._workers]

    @property
    def lengths(self) -> Mapping[str, Sequence[int]]:
        if self._lengths is None:
            self._lengths = self._ask("lengths")
        return self._lengths

    def run(self, units: Sequence[Unit], latents: Latents | None) -> list[NDArray[Any]]:
        """Send every actor its share, and what is lost with an actor to its replacement."""
        results: list[NDArray[Any] | None] = [None] * len(units)
        argument = None if latents is None else ray.put(latents)
        costs = [unit.tokens for unit in units]
        calls: dict[Any, tuple[int, list[int]]] = {}

        def send(slot: int, share: list[int]) -> None:
            handle = self._workers[slot].handle
            calls[handle.run.remote([units[i] for i in share], argument)] = (slot, share)

        for slot, share in enumerate(shares(costs, len(self._workers))):
            if share:
                send(slot, share)
        while calls:
            for ref in self._answered(list(calls), 1):
                slot, share = calls.pop(ref)
                try:
                    answers, seconds = _get(ref)
                except RayActorError:
                    self._replace(slot)
                    send(slot, share)
                    continue
                self._deaths = 0
                self.usage.device_seconds += seconds
                for index, answer in zip(share, answers, strict=True):
                    results[index] = answer
        return [result for result in results if result is not None]

    def prompt(self, latent: Latent) -> PromptArray:
        prompt: PromptArray = self._ask("prompt", latent)
        return prompt

    def facts(self) -> ModelFacts:
        if self._facts is None:
            self._facts = self._ask("facts")
        return self._facts

    def close(self) -> None:
        """End the actors."""
        for worker in self._workers:
            with contextlib.suppress(Exception):
                ray.kill(worker.handle)
        self._workers = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _ask(self, method: str, *arguments: Any) -> Any:
        """Call one actor, the first; another one in its place if it dies."""
        while True:
            try:
                return _get(getattr(self._workers[0].handle, method).remote(*arguments))
            except RayActorError:
                self._replace(0)

    def _answered(self, calls: list[Any], count: int, timeout: float = math.inf) -> list[Any]:
        """Those of the calls that have an answer, once `count` have or the seconds are over."""
        end = time.monotonic() + timeout
        while True:
            self._waiting()
            left = max(0.0, min(PATIENCE, end - time.monotonic()))
            done: list[Any] = ray.wait(calls, num_returns=count, timeout=left)[0]
            if len(done) >= count or time.monotonic() >= end:
                return done

    def _start(self, count: int) -> list[Worker]:
        """Start actors and load the model in each; those that died meanwhile are left out."""
        threads = self.config.cluster.threads_per_actor
        workers = [Worker(self._actor_class.remote(threads)) for _ in range(count)]
        calls = [worker.handle.load.remote(self.config, self._task_ref) for worker in workers]
        timeout = self.config.cluster.start_timeout
        if late := count - len(self._answered(calls, count, timeout)):
            for worker in workers:
                ray.kill(worker.handle)
            free = ray.available_resources()  # type: ignore[no-untyped-call]
            raise ScorerError(
                f"{late} of {count} actors were not ready after {timeout} seconds "
                f"(cluster.start_timeout). Free on the cluster now: {free.get('CPU', 0):g} CPUs, "
                f"{free.get('GPU', 0):g} GPUs."
            )
        alive = []
        for worker, call in zip(workers, calls, strict=True):
            with contextlib.suppress(RayActorError):
                worker.pid = _get(call)
                alive.append(worker)
        return alive

    def _replace(self, slot: int) -> None:
        """Put a new actor in a dead one's place."""
        self.usage.retries += 1
        with contextlib.suppress(Exception):
            ray.kill(self._workers[slot].handle)
        self._mourn()
        while not (started := self._start(1)):
            self._mourn()
        self._workers[slot] = started[0]

    def _mourn(self) -> None:
        """Count a death; too many in a row are no accident."""
        self._deaths += 1
        if self._deaths >= self.config.cluster.failures:
            raise ScorerError(
                f"{self._deaths} actors died without one unit scored in between "
                "(cluster.failures); often a machine out of memory, see Ray's logs. "
                "What was scored before is in the journal."
            )


def _get(ref: Any) -> Any:
    """The answer of a call; an error of ours arrives as itself, without Ray's wrapping."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, CliptuneError):
            raise cause from None
        raise
