"""The actors: started, proved, watched and replaced, as machines come and go.

As many are always asked for as the settings allow. Those that the cluster has no room for stay
asked for: that is how an autoscaler learns what is missing, and how a machine that joins is used
at once. Ray's own restarts and retries are off, as they may run a call twice and forget what the
actor had loaded.
"""

import contextlib
import itertools
import math
import time
from typing import Any

import ray
from ray.util.scheduling_strategies import (
    NodeLabelSchedulingStrategy,
    NotIn,
    PlacementGroupSchedulingStrategy,
)

from cliptune.errors import CliptuneError, ScorerError
from cliptune.observer import Observer
from cliptune.task import Task
from cluster import nodes
from cluster.actor import Arrival, Place, ScoringActor
from cluster.config import ClusterSearch
from cluster.placement import Need
from cluster.worker import Call, Lost, Worker, fetched

PATIENCE = 0.5  # seconds between two looks at whether to go on waiting
LOOK = 1.0  # between two looks at the cluster's machines
SILENT = 15.0  # of waiting for room before it is said
PAUSE, LONGEST_PAUSE = 1.0, 300.0  # before a start is tried again
NODE_ID = "ray.io/node-id"

Outcome = tuple[Worker, Call, Any]


class Fleet:
    """Between `least` and `most` actors that hold the model; `config.cluster` is resolved."""

    arrival: Arrival

    def __init__(
        self,
        config: ClusterSearch,
        task: Task,
        observer: Observer,
        actor: type[ScoringActor] = ScoringActor,
    ) -> None:
        """Returns once there are enough actors to begin."""
        self._config = config
        self._cluster = cluster = config.cluster
        self._need = Need(cluster.threads_per_actor, float(cluster.gpus_per_actor))
        self._observer = observer
        self._task_ref = ray.put(task)
        self._places = nodes.reserved()
        self._actor_class = ray.remote(
            num_cpus=self._need.cpus,
            num_gpus=self._need.gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=self._strategy(),
        )(actor)
        self._workers: list[Worker] = []
        self._least = cluster.to_begin
        self._refused: list[str] = []  # machines whose actors round otherwise
        self._failed = 0  # starts in a row
        self._pause, self._not_before = PAUSE, 0.0
        self._looked = 0.0
        self._short_since = math.inf
        self._said = self._begun = False
        self._told = 0  # workers that the observer knows of
        try:
            while len(self.ready) < self._least:
                self.outcomes()
        except BaseException:
            self.close()
            raise
        self._least, self._begun = cluster.least, True

    @property
    def ready(self) -> list[Worker]:
        """Those that can be given work, by their slots."""
        return sorted(
            (worker for worker in self._workers if worker.ready and not worker.leaving),
            key=lambda worker: worker.slot,
        )

    @property
    def idle(self) -> list[Worker]:
        """Those that wait for work; none while there are fewer than the search needs."""
        ready = self.ready
        return [w for w in ready if w.call is None] if len(ready) >= self._least else []

    @property
    def busy(self) -> list[Worker]:
        """Those that compute, the leaving ones among them."""
        return [worker for worker in self._workers if worker.ready and worker.call]

    def call(
        self,
        worker: Worker,
        method: str,
        *arguments: Any,
        seconds: float,
        setting: str = "start_timeout",
        about: Any = None,
    ) -> None:
        """Ask a worker for something; the answer is among the `outcomes`, once."""
        ref = getattr(worker.handle, method).remote(*arguments)
        now = time.monotonic()
        worker.call = Call(ref, now, now + seconds, setting, about)

    def outcomes(self, patience: float = PATIENCE) -> list[Outcome]:
        """Wait a little; the answers that came: each a value, Lost, or an error of ours."""
        self._observer.waiting()
        self._tend()
        if self._told != (count := len(self.ready)):
            self._told = count
            self._observer.workers(count)
        calls = {worker.call.ref: worker for worker in self._workers if worker.call}
        if not calls:
            time.sleep(patience)
            return []
        refs = list(calls)
        done, _ = ray.wait(refs, num_returns=1, timeout=patience)
        if done and len(refs) > 1:
            done, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        found = [outcome for ref in done if (outcome := self._answered(calls[ref]))]
        return found + self._overdue()

    def dismiss(self, worker: Worker, why: str) -> None:
        """End a worker; another one takes its place."""
        self._end(worker)
        if len(self.ready) < self._least:  # however often others failed to start meanwhile
            self._failed, self._pause, self._not_before = 0, PAUSE, 0.0
        self._observer.warning(f"{worker.name} {why}: it is replaced.")

    def close(self) -> None:
        """End all actors, those as well that were never placed."""
        for worker in list(self._workers):
            self._end(worker)

    def _answered(self, worker: Worker) -> Outcome | None:
        """A worker's answer, unless it belongs to its start."""
        call, worker.call = worker.call, None
        assert call is not None  # noqa: S101  only called for workers that have one
        answer = fetched(worker, call)
        if worker.ready:
            if isinstance(answer, Lost):
                self.dismiss(worker, answer.why)
            return worker, call, answer
        self._start_goes_on(worker, answer)
        return None

    def _overdue(self) -> list[Outcome]:
        """Workers that are taken to hang are ended."""
        now, found = time.monotonic(), []
        for worker in list(self._workers):
            call = worker.call
            if call is None or now < call.until:
                continue
            waited = f"{now - call.since:.0f} seconds"
            if worker.ready:
                why = f"gave no answer for {waited} (cluster.{call.setting})"
                lost = Lost(why, blameless=False)
                self.dismiss(worker, lost.why)
                found.append((worker, call, lost))
            else:
                self._start_failed(
                    worker,
                    f"was not ready {waited} after it had its place (cluster.{call.setting})",
                )
        return found

    # Starting

    def _strategy(self) -> Any:
        """All over the cluster, but for a trial's actors: those stay in the trial's own places."""
        return PlacementGroupSchedulingStrategy(self._places) if self._places else "SPREAD"

    def _hire(self) -> None:
        taken = {worker.slot for worker in self._workers}  # one that leaves may still compute
        slot = next(slot for slot in itertools.count() if slot not in taken)
        options: dict[str, Any] = {}
        if self._refused:
            elsewhere: Any = {NODE_ID: NotIn(*self._refused)}  # type: ignore[no-untyped-call]
            options["scheduling_strategy"] = NodeLabelSchedulingStrategy(hard=elsewhere)
        worker = Worker(slot, self._actor_class.options(**options).remote(), self._failed)
        self._workers.append(worker)
        self.call(worker, "hello", seconds=math.inf)

    def _start_goes_on(self, worker: Worker, answer: Any) -> None:
        if isinstance(answer, Lost):
            self._start_failed(worker, answer.why, blameless=answer.blameless)
        elif isinstance(answer, CliptuneError):
            if not hasattr(self, "arrival"):  # nobody could load it: a mistake, not an accident
                raise answer
            self._start_failed(worker, f"could not load the model: {answer}")
        elif isinstance(answer, Place):
            worker.place = answer
            arguments = self._config, self._task_ref, self._cluster.threads_per_actor
            self.call(worker, "load", *arguments, seconds=self._cluster.start_timeout)
        else:
            self._arrived(worker, answer)

    def _arrived(self, worker: Worker, arrival: Arrival) -> None:
        if not hasattr(self, "arrival"):
            self.arrival = arrival
        if other := self._difference(arrival):
            self._refuse(worker, other)
            return
        worker.ready = True
        self._failed, self._pause = 0, PAUSE

    def _difference(self, arrival: Arrival) -> str:
        if arrival.lengths != self.arrival.lengths:
            return "cuts the texts into other tokens than the first actor: its tokenizer differs"
        if arrival.canary != self.arrival.canary and not self._cluster.mixed_hardware:
            return (
                "rounds otherwise than the first actor: its hardware or libraries differ. "
                "cluster.mixed_hardware=true takes it, for results that depend on who scored"
            )
        return ""

    def _refuse(self, worker: Worker, why: str) -> None:
        self._end(worker)
        if self._places or (not self._begun and len(self.ready) < self._least):
            raise ScorerError(f"{worker.name} {why}.")  # a trial has no other places
        if worker.place is not None and worker.place.node not in self._refused:
            self._refused.append(worker.place.node)
        self._observer.warning(f"{worker.name} {why}. It is not used.")

    @property
    def _undecided(self) -> bool:
        """Whether one more failed start would end the search, while others may yet bring it off."""
        return (
            self._failed + 1 >= self._cluster.failures
            and len(self.ready) < self._least
            and any(worker.place and not worker.ready for worker in self._workers)
        )

    def _start_failed(self, worker: Worker, why: str, *, blameless: bool = False) -> None:
        """Try again, later each time; those that failed at the same time count once."""
        self._end(worker)
        now, enough = time.monotonic(), len(self.ready) >= self._least
        if blameless:
            self._not_before = now + PAUSE
        if blameless or worker.attempt < self._failed or self._undecided:
            return
        self._failed += 1
        if self._failed < self._cluster.failures:
            self._not_before = now + (self._failed - 1) * PAUSE
        elif enough:
            self._failed -= 1
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self._not_before = now + self._pause
            self._observer.warning(
                f"{worker.name} {why}; the next one is started in {self._pause:.0f} seconds."
            )
        else:
            raise ScorerError(
                f"{self._failed} starts of actors failed in a row (cluster.failures). "
                f"{worker.name} {why}. What was scored before is in the journal."
            )

    # Watching

    def _tend(self) -> None:
        """Let those go that leave, ask for those that are missing, and say what is waited for."""
        now = time.monotonic()
        if now >= self._looked + LOOK:
            self._looked = now
            self._look(now)
        for worker in [w for w in self._workers if w.leaving and w.call is None]:
            self._end(worker)
        staying = sum(not worker.leaving for worker in self._workers)
        if now >= self._not_before and not self._undecided:
            for _ in range(self._cluster.most - staying):
                self._hire()

    def _look(self, now: float) -> None:
        draining = nodes.draining()
        for worker in self._workers:
            if worker.place and worker.place.node in draining and not worker.leaving:
                worker.leaving = True
                self._observer.warning(f"{worker.name} leaves: its machine is about to go.")
        placed = sum(w.place is not None and not w.leaving for w in self._workers)
        if placed >= self._least:
            self._short_since = math.inf
            if self._said:
                self._said = False
                self._observer.warning(f"{placed} actors have their place now: the search goes on.")
            return
        self._short_since = min(self._short_since, now)
        waited, limit = now - self._short_since, self._cluster.wait_timeout
        if limit is not None and waited > limit:
            raise ScorerError(
                f"{self._shortage(placed)} after {waited:.0f} seconds of waiting "
                "(cluster.wait_timeout). What was scored before is in the journal."
            )
        if waited > SILENT and not self._said:
            self._said = True
            self._observer.warning(
                f"{self._shortage(placed)}: the search waits for the rest. Make room for them, or "
                "stop it and resume it with other cluster.actors; cluster.wait_timeout ends such "
                "waits."
            )

    def _shortage(self, placed: int) -> str:
        free: Any = ray.available_resources()  # type: ignore[no-untyped-call]
        return (
            f"{placed} of at least {self._least} actors have a place on the cluster, with "
            f"{self._need.cpus:g} CPUs and {self._need.gpus:g} GPUs each (free there: "
            f"{free.get('CPU', 0):g} CPUs, {free.get('GPU', 0):g} GPUs{self._without()})"
        )

    def _without(self) -> str:
        """Machines that have room, maybe, and are not used."""
        if not self._refused:
            return ""
        return f"; machines that round otherwise: {len(self._refused)}, see cluster.mixed_hardware"

    def _end(self, worker: Worker) -> None:
        if worker in self._workers:
            self._workers.remove(worker)
        with contextlib.suppress(Exception):
            ray.kill(worker.handle)
