"""Trials on Ray Tune: started as the cluster has room, watched, tried again, stopped.

Of Ray Tune's own records nothing is kept or read: they go to a temporary folder. What a sweep is
resumed from is written by whoever made the `Plan`, and by the searches.
"""

import contextlib
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from cliptune.errors import ScorerError
from cliptune.observer import Observer
from cluster import nodes
from cluster.config import ClusterSearch
from cluster.trial import FINISHED, REFUSED, SearchTrial, bundles
from cluster.trials import Asha, Plan, Report, State, Trial

LOOK = 0.5  # seconds between two looks at whether to go on
SILENT = 60.0  # without a sign of any trial, until it is said what is waited for
GRACE = 30.0  # for all trials to end when the sweep is stopped
DIED = "its driver's process died as often as it was started; often memory ran out, see Ray's logs"
ENDS: dict[Any, State] = {FINISHED: "done", REFUSED: "failed"}  # others were stopped
ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # Ray Tune's older display is silent when it is told to be
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # should it outlive the connection, it starts no Ray of its own
    "TUNE_DISABLE_AUTO_INIT": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a step without a generation has no score
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}


class TuneError(ScorerError):
    """Ray Tune came to an end of its own, such as when Ray killed a trial for want of memory."""


def run(
    plan: Plan, observer: Observer, *, concurrency: int | None, failures: int, asha: Asha | None
) -> None:
    """Run the trials of a plan on the connected Ray; a failed one is tried again `failures` times.

    What `observer.waiting` raises stops all trials and comes out here; they can be gone on with.
    TuneError where Ray Tune itself failed: what has no end yet can be given to it again.
    """
    errors: list[Exception] = []
    broken: list[BaseException] = []
    over = threading.Event()
    searcher, stopper = _Suggestions(plan, errors), _OnRequest()

    def work() -> None:
        try:
            with _quiet(), tempfile.TemporaryDirectory(prefix="cliptune-sweep-") as folder:
                tune.run(
                    SearchTrial,
                    name="sweep",
                    search_alg=searcher,
                    scheduler=_scheduler(asha),
                    stop=stopper,
                    num_samples=-1,
                    max_concurrent_trials=concurrency,
                    max_failures=failures,
                    storage_path=folder,
                    trial_dirname_creator=lambda trial: trial.trial_id,
                    raise_on_failed_trial=False,
                    verbose=0,
                )
        except BaseException as error:
            broken.append(error)
        finally:
            over.set()

    # In a thread of its own, so that a signal meets our code and never Ray Tune's.
    threading.Thread(target=work, daemon=True).start()
    try:
        _watch(over, searcher, observer)
    except BaseException:
        stopper.asked = True
        over.wait(GRACE)  # a thread's join, once interrupted, takes the thread for dead
        raise
    if errors:
        raise errors[0]
    if broken:
        what = " ".join(str(broken[0]).split())
        raise TuneError(f"Ray Tune failed: {what.rstrip('.'):.200}.") from broken[0]


def _watch(over: threading.Event, searcher: "_Suggestions", observer: Observer) -> None:
    """Wait for the end, and say so where no trial finds a place."""
    said = False
    while not over.wait(LOOK):
        observer.waiting()
        silent = time.monotonic() - searcher.sign > SILENT
        if silent and not said and searcher.asked_for:
            observer.warning(_shortage(searcher.asked_for))
        said = silent


def _shortage(trial: Trial) -> str:
    free = _free()
    return (
        f"No trial was heard of for {SILENT:.0f} seconds: the sweep waits for room on the cluster, "
        f"or for processes to start. A trial takes {_taken(trial.config)}; free "
        f"are {free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs."
    )


def _taken(config: ClusterSearch) -> str:
    cluster = config.cluster
    if config.scorer.url is not None:
        return "one CPU"
    return (
        f"{cluster.most} actors with {cluster.threads_per_actor} CPUs and "
        f"{cluster.gpus_per_actor:g} GPUs each"
    )


def _free() -> Mapping[str, float]:
    free: Mapping[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    return free


def _scheduler(asha: Asha | None) -> ASHAScheduler | None:
    """With what earlier sessions' trials reported, as if they had just done so."""
    if asha is None:
        return None
    scheduler = ASHAScheduler(
        time_attr="prompts_scored",
        metric="score",
        mode="max",
        max_t=asha.most,
        grace_period=asha.grace,
        reduction_factor=asha.reduction,
        stop_last_trials=False,
    )
    for name, reports in asha.past.items():
        trial: Any = SimpleNamespace(trial_id=name)
        scheduler.on_trial_add(None, trial)  # type: ignore[arg-type]
        for report in reports:
            scheduler.on_trial_result(None, trial, report)  # type: ignore[arg-type]
    return scheduler


class _OnRequest(Stopper):
    """Stops all trials when asked to."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.asked


class _Suggestions(Searcher):
    """The plan as Ray Tune asks for trials and tells of them."""

    def __init__(self, plan: Plan, errors: list[Exception]) -> None:
        super().__init__()
        self._plan = plan
        self._failed = errors  # what the plan raises; Ray Tune would hide it in an error of its own
        self._here = nodes.here()
        self._names: dict[str, str] = {}
        self._errors: dict[str, str] = {}
        self.asked_for: Trial | None = None
        self.sign = time.monotonic()  # when any trial was last heard of

    def suggest(self, trial_id: str) -> Any:
        with self._kept():
            trial = self._plan.next()
        if trial is None:
            return Searcher.FINISHED
        self.asked_for = trial
        self._names[trial_id] = trial.name
        return {
            "settings": json.dumps(trial.config.model_dump(mode="json")),
            "bundles": bundles(trial.config, self._here),
        }

    def on_trial_result(self, trial_id: str, result: Report) -> None:
        self.sign = time.monotonic()
        if error := result.get("error"):
            self._errors[trial_id] = error
        elif "generation" in result:  # tried again: that error is over
            self._errors.pop(trial_id, None)
        if "generation" in result or error:
            with self._kept():
                self._plan.reported(self._names[trial_id], result)

    def on_trial_complete(
        self, trial_id: str, result: Report | None = None, error: bool = False
    ) -> None:
        self.sign = time.monotonic()
        last = result or {}
        if error:
            state: State = "failed"
            said: str | None = self._errors.get(trial_id, DIED)
        else:
            state = ENDS.get(last.get("end"), "stopped")
            said = last.get("error")
        with self._kept():
            self._plan.ended(self._names[trial_id], state, said)

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._failed.append(error)
            raise

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the sweep has records of its own."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray Tune says nothing, and writes no logs of its own."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    loggers = [logging.getLogger(name) for name in ("ray.tune", "ray.train", "ray.air")]
    levels = [logger.level for logger in loggers]
    os.environ.update(ENVIRONMENT)
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
