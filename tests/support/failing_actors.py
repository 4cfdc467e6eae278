"""Actors that go wrong in known places; what is to happen once, a file beside the run remembers.

Ray's workers import this module by name: tests/support must be on their PYTHONPATH.
"""

import itertools
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from numpy.typing import NDArray

from cliptune.config import Config
from cliptune.scorer import Unit
from cliptune.task import Task
from cliptune.types import Latents
from cluster.actor import ScoringActor


def die() -> NoReturn:
    """As the kernel's out-of-memory killer does it: at once, with no word."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def first(config: Config) -> bool:
    """True for one caller only, of all processes, by a file that only one can create."""
    assert config.run_dir is not None
    try:
        Path(config.run_dir).with_name("died").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class DiesAmidAUnit(ScoringActor):
    """One of them dies in its fourth unit."""

    def load(self, config: Config, task: Task) -> int:
        pid = super().load(config, task)
        class_scores = self._scorer.model.class_scores
        calls = itertools.count()

        def deadly(*arguments: Any) -> Any:
            if next(calls) == 3 and first(config):
                die()
            return class_scores(*arguments)

        vars(self._scorer.model)["class_scores"] = deadly
        return pid


class HoldsTwoRows(ScoringActor):
    """Its memory holds micro-batches of two rows."""

    def load(self, config: Config, task: Task) -> int:
        pid = super().load(config, task)
        class_scores = self._scorer.model.class_scores

        def limited(prompts: Any, batch: Any) -> Any:
            if len(batch.ids) * (1 if prompts is None else len(prompts)) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return class_scores(prompts, batch)

        vars(self._scorer.model)["class_scores"] = limited
        return pid


class Idle(ScoringActor):
    """Has no model; where only its life and death matter."""

    def load(self, config: Config, task: Task) -> int:
        self._task = task
        return os.getpid()

    def lengths(self) -> dict[str, list[int]]:
        return {name: [9] * len(split) for name, split in self._task.splits.items()}


class DiesOfAnyUnit(Idle):
    """Whatever it is to score kills it."""

    def run(
        self, units: Sequence[Unit], latents: Latents | None
    ) -> tuple[list[NDArray[Any]], float]:
        die()


class DiesLoadingOnce(Idle):
    """One of them dies before the model is loaded."""

    def load(self, config: Config, task: Task) -> int:
        if first(config):
            die()
        return super().load(config, task)


class DiesLoading(Idle):
    """None of them ever gets the model loaded."""

    def load(self, config: Config, task: Task) -> int:
        die()


class NeverLoads(Idle):
    """Hangs in loading, as on a network file system that is gone."""

    def load(self, config: Config, task: Task) -> int:
        threading.Event().wait()
        raise AssertionError("unreachable")
