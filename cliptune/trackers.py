"""Trackers: the figures of a search, sent to TensorBoard, MLflow or Weights & Biases.

A tracker is three methods. What goes wrong in one is said once and ends its tracking, never the
search. Where they write, and as whom, is theirs to say: MLFLOW_TRACKING_URI, WANDB_PROJECT and the
like, so that no address and no key stands in a config.
"""

import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cliptune.config import Config
from cliptune.errors import ConfigError
from cliptune.journal import Validation
from cliptune.observer import Observer, Observers, Progress
from cliptune.record import Result
from cliptune.storage import Folder, local_path, open_folder
from cliptune.wording import flat

REFERENCES = "trackers.json"  # in a run directory: what each tracker calls this run
PROJECT = "cliptune"  # where the environment names none

Figures = Mapping[str, float]


class Tracker(ABC):
    """Where the figures of one search go."""

    package: str  # that has to be installed

    @abstractmethod
    def open(
        self, run_dir: str, settings: Mapping[str, Any], generations: int, reference: str | None
    ) -> str | None:
        """Begin, or go on after so many generations with what an earlier session called
        `reference`; returns what this tracker calls the run, if it needs it for that."""

    @abstractmethod
    def log(self, generation: int, figures: Figures) -> None:
        """A generation's figures, the first generation being 1."""

    @abstractmethod
    def close(self, *, finished: bool) -> None:
        """The session ends; `finished` where its search did."""


class TensorBoard(Tracker):
    """Event files in the run directory, for `tensorboard --logdir runs`."""

    package = "tensorboard"

    def open(
        self, run_dir: str, settings: Mapping[str, Any], generations: int, reference: str | None
    ) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = local_path(run_dir)
        if folder is None:
            raise ValueError(f"it writes to folders only, and run_dir is {run_dir}")
        self._writer = EventFileWriter(str(folder / "tensorboard"))
        # what a session that was killed wrote beyond its journal is left out by this
        self._add(generations + 1, session_log=SessionLog(status=SessionLog.START))

    def log(self, generation: int, figures: Figures) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=one) for name, one in figures.items()]
        self._add(generation, summary=Summary(value=values))

    def close(self, *, finished: bool) -> None:
        self._writer.close()

    def _add(self, generation: int, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time(), step=generation, **content))


class MLflow(Tracker):
    """A run of the experiment that MLFLOW_EXPERIMENT_NAME names, on MLFLOW_TRACKING_URI."""

    package = "mlflow"

    def open(
        self, run_dir: str, settings: Mapping[str, Any], generations: int, reference: str | None
    ) -> str:
        from mlflow import MlflowClient

        self._client = MlflowClient()
        if reference is not None:
            self._run = reference
            self._client.update_run(self._run, status="RUNNING")
            return reference
        run = self._client.create_run(self._experiment(), run_name=Path(run_dir).name)
        self._run = str(run.info.run_id)
        for name, value in settings.items():
            self._client.log_param(self._run, name, value)
        self._client.set_tag(self._run, "run_dir", run_dir)
        return self._run

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(name)
        return str(known.experiment_id if known else self._client.create_experiment(name))

    def log(self, generation: int, figures: Figures) -> None:
        for name, value in figures.items():
            self._client.log_metric(self._run, name, value, step=generation)

    def close(self, *, finished: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if finished else "KILLED")


class WeightsAndBiases(Tracker):
    """A run of the project that WANDB_PROJECT names."""

    package = "wandb"

    def open(
        self, run_dir: str, settings: Mapping[str, Any], generations: int, reference: str | None
    ) -> str:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=Path(run_dir).name,
            id=reference,
            resume="allow",
            config={**settings, "run_dir": run_dir},
            dir=local_path(run_dir),
            settings=wandb.Settings(silent=True, console="off"),
        )
        return str(self._run.id)

    def log(self, generation: int, figures: Figures) -> None:
        self._run.log(dict(figures), step=generation)

    def close(self, *, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


TRACKERS: Mapping[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}


def chosen(config: Config) -> list[str]:
    """Names of the trackers that a config asks for; ConfigError where one is not installed."""
    names = config.watch.trackers
    for name in names:
        package = TRACKERS[name].package
        if find_spec(package) is None:
            raise ConfigError(
                f"watch.trackers: {name} needs the package {package}, which is not installed here: "
                f"pip install {package}, or leave it out."
            )
    return list(names)


@contextmanager
def tracked(config: Config, run_dir: str, observer: Observer) -> Iterator[Observer]:
    """The observer, and beside it the trackers that the config asks for."""
    tracking = [Tracking(name, TRACKERS[name](), observer) for name in chosen(config)]
    finished = False
    try:
        yield Observers([observer, *tracking])
        finished = True
    finally:
        for one in tracking:
            one.close(finished=finished)


class Tracking(Observer):
    """Tells a tracker how a search goes, for as long as it takes it."""

    def __init__(self, name: str, tracker: Tracker, observer: Observer) -> None:
        """What goes wrong is said to `observer`."""
        self._name = name
        self._tracker = tracker
        self._observer = observer
        self._open = False
        self._generation = 0  # the last one that it was told of

    def begun(self, config: Config, run_dir: str, generations: int) -> None:
        folder, settings = open_folder(run_dir), flat(config.model_dump(mode="json"))
        with self._guarded():
            references = _references(folder)
            before = references.get(self._name)
            reference = self._tracker.open(run_dir, settings, generations, before)
            self._open, self._generation = True, generations
            if reference != before:
                content = json.dumps({**references, self._name: reference}, indent=2)
                folder.write(REFERENCES, content.encode())

    def generation(self, progress: Progress) -> None:
        if self._open:
            with self._guarded():
                self._generation = progress.generation.number + 1
                self._tracker.log(self._generation, figures(progress))

    def result(self, result: Result) -> None:
        if self._open:
            with self._guarded():
                self._tracker.log(self._generation, result_figures(result))

    def close(self, *, finished: bool) -> None:
        """The session has ended."""
        if self._open:
            with self._guarded():
                self._tracker.close(finished=finished)
        self._open = False

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._open = False
            what = " ".join(str(error).split()) or type(error).__name__
            self._observer.warning(
                f"{self._name} (watch.trackers) is told no more of this search: {what:.300}"
            )


def figures(progress: Progress) -> dict[str, float]:
    """What is worth a curve of a generation."""
    generation, telemetry = progress.generation, progress.telemetry
    return {
        "fitness/best": float(generation.fitness.max()),
        "fitness/mean": float(generation.fitness.mean()),
        "fitness/spread": generation.spread,
        "step_size": generation.step_size,
        **_validation("validation", generation.validation),
        **_validation("best_validation", progress.best.validation),
        "prompts_scored": progress.prompts_scored,
        "prompts_per_second": progress.speed,
        "workers": telemetry.workers,
        "retries": telemetry.retries,
    }


def result_figures(result: Result) -> dict[str, float]:
    """The table at the end."""
    return {
        f"accuracy/{row.name}/{split}".replace(" ", "_"): value
        for row in result.table
        for split, value in row.accuracy.items()
    }


def _validation(name: str, validation: Validation) -> dict[str, float]:
    return {
        f"{name}/accuracy": validation.accuracy,
        f"{name}/loss": validation.loss,
        f"{name}/macro_f1": validation.macro_f1,
    }


def _references(folder: Folder) -> dict[str, str]:
    if not folder.exists(REFERENCES):
        return {}
    known = json.loads(folder.read(REFERENCES))
    return known if isinstance(known, dict) else {}
