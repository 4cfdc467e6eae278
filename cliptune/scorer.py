"""What a scorer offers, and the units of work that every scorer is made of.

A unit is some candidates on some examples through one subnetwork. Its shape follows from the
config alone, never from who computes it: that is why rewards are the same, bit for bit, on any
number of actors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cliptune.errors import ModelError, OutOfMemoryError
from cliptune.subnetwork import SubnetworkSpec, ensemble
from cliptune.task import Task
from cliptune.types import ClassScores, Latent, Latents, PromptArray, Rewards

if TYPE_CHECKING:
    from cliptune.config import Config

T = TypeVar("T")

EVALUATION_CHUNK = 256  # examples of a unit that returns class scores
CANDIDATES = 5  # of a unit: few, so that there are several units an actor
ROWS_PER_CANDIDATE = 16  # more candidates fit a large micro-batch; many share examples of a length
FILL = 2  # a micro-batch is padded rather than left below this part of its size


@dataclass(frozen=True)
class ModelFacts:
    """What the run's record says of the model."""

    name: str
    sha256: str
    width: int
    parameters: int
    truncated: dict[str, int]  # examples whose text was shortened, by split
    tokens: dict[str, int]  # tokens of all examples without the prompt, by split
    config_sha256: str = ""  # of what its config.json says
    inputs_sha256: str = ""  # of the tokens of all examples and label words


@dataclass
class Usage:
    """What was spent so far; the seconds differ from run to run."""

    forward_passes: int = 0  # candidates x subnetworks x examples
    device_seconds: float = 0.0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of work; spans are [start, end) of the candidates and of the split's examples."""

    subnetwork: SubnetworkSpec
    split: str
    candidates: tuple[int, int]
    examples: tuple[int, int]
    micro_batch: int  # rows of a forward pass at most
    reduce: bool  # to one reward a candidate, where it is computed

    @property
    def forward_passes(self) -> int:
        return (self.candidates[1] - self.candidates[0]) * (self.examples[1] - self.examples[0])


class Scorer(Protocol):
    """Scores latents; where and how is its own business."""

    @property
    def config(self) -> Config:
        """The search's settings, with nothing left on auto."""

    @property
    def task(self) -> Task:
        """What is classified."""

    @property
    def usage(self) -> Usage:
        """What was spent so far."""

    @property
    def workers(self) -> int:
        """How many score at the same time."""

    micro_batch: int  # rows of a forward pass; fewer than the config's after memory ran out

    def score(self, latents: Latents, generation: int = 0) -> Rewards:
        """`(population, d)` latents to `(population, subnetworks)` rewards on the training set."""

    def class_scores(
        self, latents: Latents | None, split: str, subnetworks: Sequence[SubnetworkSpec]
    ) -> ClassScores:
        """`(population, subnetworks, examples, classes)`; without a soft prompt for None."""

    def prompt(self, latent: Latent) -> PromptArray:
        """The soft prompt of a latent, `(length, width)`."""

    def facts(self) -> ModelFacts:
        """Identity and size of the model."""


class UnitScorer(ABC):
    """A Scorer that cuts its work into units and leaves only their execution open."""

    def __init__(self, config: Config, task: Task) -> None:
        self.config = config
        self.task = task
        self.usage = Usage()
        self.micro_batch = int(config.model.micro_batch)

    @abstractmethod
    def run(self, units: Sequence[Unit], latents: Latents | None) -> list[NDArray[Any]]:
        """Compute the units, in any order and anywhere; results in the order of the units.

        Raises OutOfMemoryError where a micro-batch does not fit.
        """

    def score(self, latents: Latents, generation: int = 0) -> Rewards:
        """Rewards `(population, subnetworks)`, float64, all finite.

        Where memory runs out, all of them are computed again, with smaller micro-batches.
        """
        return self._fitting(lambda: self._score(latents, generation))

    def class_scores(
        self, latents: Latents | None, split: str, subnetworks: Sequence[SubnetworkSpec]
    ) -> ClassScores:
        """Class scores `(population, subnetworks, examples, classes)`, float32."""
        return self._fitting(lambda: self._scores_of_classes(latents, split, subnetworks))

    def _fitting(self, work: Callable[[], T]) -> T:
        while True:
            try:
                return work()
            except OutOfMemoryError:
                if self.micro_batch == 1:
                    raise
            self.micro_batch //= 2

    def _score(self, latents: Latents, generation: int) -> Rewards:
        subnetworks = ensemble(self.config.ensemble, generation)
        spans = candidate_spans(len(latents), self.micro_batch)
        everything = (0, len(self.task["train"]))
        units = [
            Unit(subnetwork, "train", span, everything, self.micro_batch, reduce=True)
            for subnetwork in subnetworks
            for span in spans
        ]
        results = self._run(units, latents)
        rewards = np.concatenate(results).reshape(len(subnetworks), len(latents)).T.copy()
        if len(bad := np.argwhere(~np.isfinite(rewards))):
            candidate, subnetwork = bad[0]
            raise ModelError(
                f"The reward of candidate {candidate} on subnetwork {subnetwork} in generation "
                f"{generation} is {rewards[candidate, subnetwork]}; expected finite numbers. "
                "A wider model.dtype or a smaller prompt.scale may help."
            )
        return rewards

    def _scores_of_classes(
        self, latents: Latents | None, split: str, subnetworks: Sequence[SubnetworkSpec]
    ) -> ClassScores:
        population, examples = 1 if latents is None else len(latents), len(self.task[split])
        spans = candidate_spans(population, self.micro_batch)
        chunks = [
            (start, min(start + EVALUATION_CHUNK, examples))
            for start in range(0, examples, EVALUATION_CHUNK)
        ]
        places = [
            (n, span, chunk) for n in range(len(subnetworks)) for span in spans for chunk in chunks
        ]
        units = [
            Unit(subnetworks[n], split, span, chunk, self.micro_batch, reduce=False)
            for n, span, chunk in places
        ]
        scores = np.empty((population, len(subnetworks), examples, self.task.classes), np.float32)
        for (n, span, chunk), result in zip(places, self._run(units, latents), strict=True):
            scores[slice(*span), n, slice(*chunk)] = result
        return scores

    def _run(self, units: Sequence[Unit], latents: Latents | None) -> list[NDArray[Any]]:
        results = self.run(units, latents)
        self.usage.forward_passes += sum(unit.forward_passes for unit in units)
        return results


def candidate_spans(population: int, micro_batch: int) -> list[tuple[int, int]]:
    """Cut a population into even spans, one a unit; depends on the config alone."""
    most = min(micro_batch, max(CANDIDATES, micro_batch // ROWS_PER_CANDIDATE))
    cuts = np.linspace(0, population, -(-population // most) + 1).round().astype(int).tolist()
    return list(pairwise(cuts))


def micro_batches(unit: Unit, lengths: Sequence[int]) -> Iterator[list[int]]:
    """A unit's examples, a forward pass after the other: those of one length together.

    A micro-batch without padding needs no mask, and nothing is computed in vain; only one that
    would be too small takes longer examples, too. `lengths` are the tokens of the split's examples.
    """
    order = sorted(range(*unit.examples), key=lambda row: lengths[row])
    candidates = unit.candidates[1] - unit.candidates[0]
    most = max(1, unit.micro_batch // candidates)
    enough = -(-unit.micro_batch // (FILL * candidates))
    batch: list[int] = []
    for row in order:
        another = batch and lengths[row] != lengths[batch[0]]
        if len(batch) == most or (another and len(batch) >= enough):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
