"""What a search will cost, counted and not computed.

A CountingScorer takes the place of one that scores, so that the units it counts are those that the
search's own code asks for. As everywhere, a forward pass is one example with one prompt through
one subnetwork; the label texts of the encoder read-out, a handful a subnetwork, are left out.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cliptune import limits
from cliptune.config import Config
from cliptune.evaluation import calibrate, critics_of, evaluate, validate
from cliptune.scorer import Scorer, Unit, UnitScorer
from cliptune.subnetwork import FULL_NETWORK, SubnetworkSpec
from cliptune.task import Task
from cliptune.types import Latents


@dataclass(frozen=True)
class MicroBatch:
    """A unit, and what of it is in vain."""

    unit: Unit
    prompted: bool
    padding: int  # tokens that fill the shorter rows up
    shared: int = 0  # tokens that a candidate's rows begin with and that are computed once
    first: bool = False  # whether they are computed for this unit, or were for one before

    @property
    def tokens(self) -> int:
        """Those that count, with the prompt vectors."""
        return self.computed - self.padding

    @property
    def computed(self) -> int:
        """Tokens that the model computes, padding included."""
        start, end = self.unit.candidates
        beginnings = (end - start) * self.shared if self.first else 0
        return beginnings + self.unit.rows * (self.unit.length - self.shared)


@dataclass(frozen=True)
class Work:
    """Units by call: those of one call can be computed side by side, the calls one by one."""

    calls: tuple[tuple[MicroBatch, ...], ...]

    @property
    def forward_passes(self) -> int:
        return sum(batch.unit.rows for call in self.calls for batch in call)

    @property
    def tokens(self) -> int:
        return sum(batch.tokens for call in self.calls for batch in call)

    @property
    def padding(self) -> int:
        return sum(batch.padding for call in self.calls for batch in call)


@dataclass(frozen=True)
class Plan:
    """The work of a search, part by part."""

    generation: Work  # a population's rewards
    validation: Work  # of a generation's best prompt
    manual: Work  # the validation without a prompt, once, before the first generation
    evaluation: Work  # the table at the end
    generations: int | None  # that the budgets pay for; None where only time limits them
    typical: MicroBatch  # the median one of a generation, by the tokens that are computed
    largest: MicroBatch  # the largest one of the whole search

    def generations_in(self, seconds: float, manual: float, each: float) -> int:
        """Generations of a search of so many `seconds`; the one that they end in is finished.

        `manual` and `each` are the seconds before the first generation and of every one.
        """
        by_time = max(1, math.ceil((seconds - manual) / each))
        return by_time if self.generations is None else min(by_time, self.generations)


def plan(config: Config, task: Task, lengths: Mapping[str, Sequence[int]], shared: int = 0) -> Plan:
    """Count a search's work; `config` is resolved, `lengths` are the examples' tokens by split.

    `shared` are the tokens that a candidate's inputs begin with, where those are computed once.
    """
    # The units depend on neither function, and a user's own is not to be called for nothing.
    ours = {"loss": "cross-entropy", "selection": "loss"}
    search = config.search.model_copy(update=ours)
    counter = CountingScorer(config.model_copy(update={"search": search}), task, lengths, shared)
    scorer = cast(Scorer, counter)  # nobody asks here for what it lacks
    numbers = np.arange(float(search.population))[:, None]  # no two candidates are the same
    latents = np.broadcast_to(numbers, (search.population, config.prompt.latent_size))
    counter.score(latents)
    generation = counter.take()
    validate(scorer, latents[0], calibrate(scorer, latents[0]))
    validation = counter.take()
    validate(scorer, None)
    manual = counter.take()
    networks = (FULL_NETWORK, *critics_of(config.ensemble, 0))
    evaluate(scorer, latents[0], 0, calibrate(scorer, latents[0], networks))
    evaluation = counter.take()
    training = sorted(_batches(generation), key=_size)
    return Plan(
        generation=generation,
        validation=validation,
        manual=manual,
        evaluation=evaluation,
        generations=limits.generations(config, len(task["train"])),
        typical=training[len(training) // 2],
        largest=max(_batches(generation, validation, manual, evaluation), key=_size),
    )


class CountingScorer(UnitScorer):
    """Answers every unit with zeros and notes what it would have taken."""

    def __init__(
        self, config: Config, task: Task, lengths: Mapping[str, Sequence[int]], shared: int = 0
    ) -> None:
        super().__init__(config, task)
        self._lengths = lengths
        self._shared = shared
        self._begun: tuple[SubnetworkSpec, bytes] | None = None  # whose beginnings are there
        self._calls: list[tuple[MicroBatch, ...]] = []

    @property
    def lengths(self) -> Mapping[str, Sequence[int]]:
        return self._lengths

    def run(self, units: Sequence[Unit], latents: Latents | None) -> list[NDArray[Any]]:
        self._calls.append(tuple(self._count(unit, latents) for unit in units))
        return [np.zeros(unit.shape(self.task.classes), np.float32) for unit in units]

    def take(self) -> Work:
        """What was counted since this was last called; what comes after begins anew."""
        calls, self._calls = tuple(self._calls), []
        self._begun = None
        return Work(calls)

    def _count(self, unit: Unit, latents: Latents | None) -> MicroBatch:
        each = [self._lengths[unit.split][row] for row in unit.examples]
        candidates = unit.rows // len(each)
        padding = candidates * (max(each) * len(each) - sum(each))
        if latents is None:
            return MicroBatch(unit, False, padding)
        whose = (unit.subnetwork, latents[slice(*unit.candidates), 0].tobytes())
        first, self._begun = self._shared > 0 and whose != self._begun, whose
        return MicroBatch(unit, True, padding, self._shared, first)


def _batches(*works: Work) -> Iterator[MicroBatch]:
    return (batch for work in works for call in work.calls for batch in call)


def _size(batch: MicroBatch) -> int:
    return batch.computed
