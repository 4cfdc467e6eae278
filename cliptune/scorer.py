"""What a scorer offers, and the units of work that every scorer is made of.

A unit is one micro-batch: some candidates on some examples through one subnetwork. Which rows it
holds follows from the config and the examples' lengths alone, never from who computes it: that is
why rewards are the same, bit for bit, on any number of actors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cliptune.calibration import calibrated, class_biases
from cliptune.errors import ModelError, OutOfMemoryError
from cliptune.functions import loss
from cliptune.hashing import digest
from cliptune.randomness import generator
from cliptune.subnetwork import SubnetworkSpec, ensemble
from cliptune.task import Task
from cliptune.types import ClassScores, Latent, Latents, Neighbours, PromptArray, Rewards

if TYPE_CHECKING:
    from cliptune.config import Config

T = TypeVar("T")

CANDIDATES = 5  # of a unit; its examples pad little all the same, as they are sorted by length
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
class Bill:
    """What a model behind an API was asked for, all of it: what a provider would charge."""

    requests: int = 0  # those that were tried again count again
    retries: int = 0
    tokens: int = 0  # that the model computed, padding included
    bytes_sent: int = 0
    bytes_received: int = 0

    def plus(self, other: Bill) -> Bill:
        """Both together."""
        return Bill(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass
class Usage:
    """What was spent so far; the seconds differ from run to run."""

    forward_passes: int = 0  # candidates x subnetworks x examples
    device_seconds: float = 0.0
    retries: int = 0
    bill: Bill | None = None  # of a model behind an API


@dataclass(frozen=True, slots=True)
class Unit:
    """One micro-batch: some candidates on some examples of a split, through one subnetwork."""

    subnetwork: SubnetworkSpec
    split: str
    candidates: tuple[int, int]  # a span, [start, end)
    examples: tuple[int, ...]  # rows of the split
    length: int  # tokens of a row, padding and prompt vectors included
    reduce: bool  # to one reward an example, where it is computed

    @property
    def rows(self) -> int:
        """Inputs that go through the model at once: each candidate with each example."""
        return (self.candidates[1] - self.candidates[0]) * len(self.examples)

    @property
    def tokens(self) -> int:
        """What it costs: tokens that the model computes, padding included."""
        return self.rows * self.length

    def shape(self, classes: int) -> tuple[int, ...]:
        """Of its result: `(candidates, examples)` rewards, or class scores with an axis more."""
        each = (self.candidates[1] - self.candidates[0], len(self.examples))
        return each if self.reduce else (*each, classes)


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
        """The soft prompt of a latent, `(length, width)`; of several layers, `(layers, length,
        width)`."""

    def nearest(self, latent: Latent) -> Neighbours:
        """The vocabulary tokens that the vectors of its prompt are nearest to."""

    def facts(self) -> ModelFacts:
        """Identity and size of the model."""

    def canary(self) -> str:
        """SHA-256 of what a small computation comes to: equal where rewards are rounded alike."""


class UnitScorer(ABC):
    """A Scorer that cuts its work into units and leaves only their execution open."""

    def __init__(self, config: Config, task: Task) -> None:
        self.config = config
        self.task = task
        self.usage = Usage()
        self.micro_batch = int(config.model.micro_batch)
        self._cuts: dict[tuple[str, int, int], list[tuple[int, ...]]] = {}

    @property
    @abstractmethod
    def lengths(self) -> Mapping[str, Sequence[int]]:
        """Tokens of every example by split, without the prompt."""

    @abstractmethod
    def run(self, units: Sequence[Unit], latents: Latents | None) -> list[NDArray[Any]]:
        """Compute the units, in any order and anywhere; results in the order of the units.

        A result is float64 rewards `(candidates, examples)` of a unit that reduces, else float32
        class scores `(candidates, examples, classes)`. Raises OutOfMemoryError where a unit does
        not fit.
        """

    def score(self, latents: Latents, generation: int = 0) -> Rewards:
        """Rewards `(population, subnetworks)`, float64, all finite.

        Where memory runs out, all of them are computed again, with smaller micro-batches.
        """
        return self.fitting(lambda: self._score(latents, generation))

    def class_scores(
        self, latents: Latents | None, split: str, subnetworks: Sequence[SubnetworkSpec]
    ) -> ClassScores:
        """Class scores `(population, subnetworks, examples, classes)`, float32."""
        return self.fitting(lambda: self._run(latents, split, subnetworks, reduce=False))

    def canary(self) -> str:
        """SHA-256 of the bits of a generation's first unit, its class scores and its rewards.

        They tell what hardware, threads, libraries and this code round to. Of made-up latents, and
        not counted in `usage`.
        """
        used, rows = self.usage, self.micro_batch
        self.usage = Usage()
        try:
            return self.fitting(self._canary)
        finally:
            self.usage, self.micro_batch = used, rows

    def units(
        self, subnetwork: SubnetworkSpec, split: str, population: int | None, *, reduce: bool
    ) -> list[Unit]:
        """A population on a split through one subnetwork; None is one pass without a prompt.

        Ordered by candidates, then by the examples' length.
        """
        lengths = self.lengths[split]
        prompt = 0 if population is None else self.config.prompt.length
        return [
            Unit(subnetwork, split, span, rows, prompt + lengths[rows[-1]], reduce)
            for span in candidate_spans(1 if population is None else population, self.micro_batch)
            for rows in self._cut(split, span[1] - span[0])
        ]

    def _cut(self, split: str, candidates: int) -> list[tuple[int, ...]]:
        """The micro-batches of a split, made once: every span and subnetwork has the same."""
        key = (split, candidates, self.micro_batch)
        if key not in self._cuts:
            lengths = self.lengths[split]
            self._cuts[key] = list(micro_batches(lengths, candidates, self.micro_batch))
        return self._cuts[key]

    def fitting(self, work: Callable[[], T]) -> T:
        """What comes of the work, with micro-batches of half the size while memory runs out."""
        while True:
            try:
                return work()
            except OutOfMemoryError:
                if self.micro_batch == 1:
                    raise
            self.micro_batch //= 2

    def _canary(self) -> str:
        (subnetwork, *_) = ensemble(self.config.ensemble, 0)
        population = self.config.search.population
        # A prompt may be evaluated on a test set alone.
        split = "train" if "train" in self.task.splits else next(iter(self.task.splits))
        first, *_ = self.units(subnetwork, split, population, reduce=True)
        latents = generator("canary").standard_normal((population, self.config.prompt.latent_size))
        results = self.run([replace(first, reduce=False), first], latents)
        return digest([result.tobytes().hex() for result in results])

    def _score(self, latents: Latents, generation: int) -> Rewards:
        subnetworks = ensemble(self.config.ensemble, generation)
        rewards = self._rewards(latents, subnetworks).mean(axis=-1)
        if len(bad := np.argwhere(~np.isfinite(rewards))):
            candidate, subnetwork = bad[0]
            raise ModelError(
                f"The reward of candidate {candidate} on subnetwork {subnetwork} in generation "
                f"{generation} is {rewards[candidate, subnetwork]}; expected finite numbers. "
                "A wider model.dtype or a smaller prompt.scale may help."
            )
        return np.asarray(rewards)

    def _rewards(
        self, latents: Latents, subnetworks: Sequence[SubnetworkSpec]
    ) -> NDArray[np.float64]:
        """`(population, subnetworks, examples)`."""
        search = self.config.search
        if not search.calibrate:
            return self._run(latents, "train", subnetworks, reduce=True)
        scores = self._run(latents, "train", subnetworks, reduce=False)
        labels = self.task["train"].labels
        with np.errstate(invalid="ignore"):  # what is no number is refused with its reward
            fair = calibrated(scores, class_biases(scores, labels))
            return loss.find(search.loss)(fair, labels, search.margin)

    def _run(
        self,
        latents: Latents | None,
        split: str,
        subnetworks: Sequence[SubnetworkSpec],
        *,
        reduce: bool,
    ) -> NDArray[Any]:
        """`(population, subnetworks, examples)` rewards, or class scores with an axis more."""
        population = None if latents is None else len(latents)
        places = [
            (n, unit)
            for n, subnetwork in enumerate(subnetworks)
            for unit in self.units(subnetwork, split, population, reduce=reduce)
        ]
        units = [unit for _, unit in places]
        shape = (1 if population is None else population, len(subnetworks), len(self.task[split]))
        gathered = np.empty(shape) if reduce else np.empty((*shape, self.task.classes), np.float32)
        for (n, unit), result in zip(places, self.run(units, latents), strict=True):
            gathered[slice(*unit.candidates), n, list(unit.examples)] = result
        self.usage.forward_passes += sum(unit.rows for unit in units)
        return gathered


def candidate_spans(population: int, micro_batch: int) -> list[tuple[int, int]]:
    """Cut a population into even spans, one a unit; depends on the config alone."""
    most = min(micro_batch, max(CANDIDATES, micro_batch // ROWS_PER_CANDIDATE))
    cuts = np.linspace(0, population, -(-population // most) + 1).round().astype(int).tolist()
    return list(pairwise(cuts))


def micro_batches(
    lengths: Sequence[int], candidates: int, micro_batch: int
) -> Iterator[tuple[int, ...]]:
    """A split's examples, a micro-batch after the other: those of one length together.

    A micro-batch without padding needs no mask, and nothing is computed in vain; only one that
    would be too small takes longer examples, too. Sorted by `lengths`, the examples' tokens: the
    last one of a micro-batch is its longest.
    """
    most = max(1, micro_batch // candidates)
    enough = -(-micro_batch // (FILL * candidates))
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        another = batch and lengths[row] != lengths[batch[0]]
        if len(batch) == most or (another and len(batch) >= enough):
            yield tuple(batch)
            batch = []
        batch.append(row)
    if batch:
        yield tuple(batch)
