"""SyntheticScorer: rewards without a model, for measuring and testing what is around one.

A candidate's reward is minus the squared distance of its latent from a point, another one for
every subnetwork and example; a unit takes a given time. Needs neither torch nor transformers.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptune.config import Config
from cliptune.hashing import digest
from cliptune.scorer import ModelFacts, Unit, UnitScorer
from cliptune.task import Task
from cliptune.types import Latent, Latents, PromptArray

NAME = "synthetic"
WIDTH = 8  # of a prompt vector
TOKENS = 30  # of every example


class SyntheticScorer(UnitScorer):
    """Scores in this process, without a model."""

    def __init__(self, config: Config, task: Task, seconds: float = 0.0) -> None:
        """`seconds` are what a unit takes at least."""
        super().__init__(config, task)
        self._seconds = seconds

    @property
    def workers(self) -> int:
        return 1

    @property
    def lengths(self) -> Mapping[str, Sequence[int]]:
        return {name: [TOKENS] * len(split) for name, split in self.task.splits.items()}

    def run(self, units: Sequence[Unit], latents: Latents | None) -> list[NDArray[Any]]:
        started = time.perf_counter()
        results = [self.compute(unit, latents) for unit in units]
        due = started + len(units) * self._seconds
        time.sleep(max(0.0, due - time.perf_counter()))  # once: each waking up takes a while
        self.usage.device_seconds += time.perf_counter() - started
        return results

    def compute(self, unit: Unit, latents: Latents | None) -> NDArray[Any]:
        """One unit, without the time that it takes."""
        distances = self._distances(unit, latents)
        if unit.reduce:
            return -distances
        scores = np.zeros(unit.shape(self.task.classes), np.float32)
        rows = np.arange(len(unit.examples))
        labels = self.task[unit.split].labels[list(unit.examples)]
        scores[:, rows, labels] = -distances
        return scores

    def prompt(self, latent: Latent) -> PromptArray:
        shape = self.config.prompt.length, WIDTH
        return np.resize(latent, shape).astype(np.float32)

    def facts(self) -> ModelFacts:
        nothing = dict.fromkeys(self.task.splits, 0)
        tokens = {name: sum(lengths) for name, lengths in self.lengths.items()}
        return ModelFacts(NAME, digest(NAME), WIDTH, 0, truncated=nothing, tokens=tokens)

    def _distances(self, unit: Unit, latents: Latents | None) -> NDArray[np.float64]:
        """`(candidates, examples)`: mean squared distances from the points of this subnetwork."""
        dimension = self.config.prompt.latent_size
        if latents is None:
            some = np.zeros((unit.candidates[1] - unit.candidates[0], dimension))
        else:
            some = latents[slice(*unit.candidates)]
        points = np.sin(1.0 + unit.subnetwork.index + np.array(unit.examples))  # one an example
        mean, square = some.mean(axis=1), np.square(some).mean(axis=1)
        return np.asarray(square[:, None] - 2 * mean[:, None] * points + np.square(points))
