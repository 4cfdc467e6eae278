"""A whole search as one trial of Ray Tune: in steps, to be ended between any two of them."""

import json
import queue
import threading
from collections.abc import Mapping
from typing import Any

from ray.tune import PlacementGroupFactory, Trainable

from cliptune.config import validate
from cliptune.errors import CliptuneError, ScorerError
from cliptune.lease import LEASE_SECONDS
from cliptune.observer import Observer, Progress
from cliptune.record import is_run
from cluster.config import ClusterSearch
from cluster.session import search
from cluster.trials import Report

BEAT = 1.0  # seconds after which a step ends, generation or not: then the trial can be stopped
GRACE = 8.0  # seconds for a search to let go of its actors and its run; Ray Tune kills after ten
BAD_INPUT = 2  # exit code of errors that come from settings or files
SLIVER = 0.001  # of a resource that is only to be there

FINISHED, REFUSED = "finished", "refused"


def bundles(config: ClusterSearch, here: str) -> list[dict[str, float]]:
    """What a trial reserves: nothing but a place on this machine for its driver, which writes the
    run, then as much for each actor as it takes; or a CPU where a model behind an API takes the
    actors' place. `config.cluster` is resolved, unless it does."""
    if config.scorer.url is not None:
        return [{here: SLIVER}, {"CPU": 1.0}]  # of whichever machine: it only counts drivers
    cluster = config.cluster
    actor = {"CPU": float(cluster.threads_per_actor), "GPU": float(cluster.gpus_per_actor)}
    taken = {name: amount for name, amount in actor.items() if amount}
    return [{here: SLIVER}, *(taken for _ in range(cluster.most))]


class SearchTrial(Trainable):
    """Begins the search of its run_dir, or goes on with it.

    Its settings are those of `settings`, as JSON, with nothing left on auto; `bundles` as above.
    """

    @classmethod
    def default_resource_request(cls, config: Mapping[str, Any]) -> PlacementGroupFactory:
        return PlacementGroupFactory(config["bundles"])

    def setup(self, config: Mapping[str, Any]) -> None:
        self._search = SteppedSearch(validate(ClusterSearch, json.loads(config["settings"])))

    def step(self) -> Report:
        return self._search.step(BEAT)

    def cleanup(self) -> None:
        self._search.stop()


class SteppedSearch(Observer):
    """A search in a thread of its own, that waits after each generation to be told to go on."""

    def __init__(self, config: ClusterSearch) -> None:
        self._config = config
        self._reports: queue.Queue[Report] = queue.Queue()
        self._on = threading.Semaphore(0)
        self._waits = False  # for the next step
        self._failure = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def step(self, seconds: float) -> Report:
        """What came of at most so many seconds: a generation, the end, or nothing yet.

        A failure is reported first and raised by the next step, so that its sentence arrives.
        """
        if self._failure:
            raise ScorerError(self._failure)
        if self._waits:
            self._waits = False
            self._on.release()
        try:
            report = self._reports.get(timeout=seconds)
        except queue.Empty:
            return {}
        self._waits = "generation" in report
        if "end" not in report:
            self._failure = report.get("error", "")
        return report

    def stop(self) -> None:
        """End the search between two generations or amid one, and wait until it is gone."""
        self._over.set()
        self._on.release()
        self._thread.join(GRACE)

    def waiting(self) -> None:
        if self._over.is_set():
            raise _Ended

    def generation(self, progress: Progress) -> None:
        self._reports.put(report(progress))
        self._on.acquire()
        self.waiting()

    def _run(self) -> None:
        config, patience = self._config, 1.25 * LEASE_SECONDS
        try:
            resume = is_run(str(config.run_dir))
            search(config, self, resume=resume, patience=patience)
        except _Ended:
            return
        except CliptuneError as error:
            # What is wrong with the input is wrong the next time, too; of the rest a new try may
            # make something.
            end = {"done": True, "end": REFUSED} if error.exit_code == BAD_INPUT else {}
            self._reports.put({"error": str(error), **end})
        except Exception as error:
            text = " ".join(str(error).split())
            self._reports.put({"error": f"unexpected {type(error).__name__}: {text:.300}"})
        else:
            self._reports.put({"done": True, "end": FINISHED})


class _Ended(BaseException):
    """The trial was stopped; nothing on the way out may take it for an error."""


def report(progress: Progress) -> Report:
    """What is known after a generation. The last one says nothing of prompts scored: ASHA would
    stop a search there that has only its evaluation before it."""
    best, done = progress.best.validation, progress.generation.number + 1
    values: Report = {
        "generation": done,
        "generations": progress.generations,
        "score": best.score,
        "accuracy": best.accuracy,
        "seconds": progress.seconds,
    }
    if done != progress.generations:
        values["prompts_scored"] = progress.prompts_scored
    return values
