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
from cliptune.evaluation import calibrate, evaluate, validate
from cliptune.scorer import Scorer, Unit, UnitScorer
from cliptune.task import Task
from cliptune.types import Latents


@dataclass(frozen=True)
class MicroBatch:
    """A unit, and what of it is in vain."""

    unit: Unit
    prompted: bool
    padding: int  # tokens that fill the shorter rows up

    @property
    def tokens(self) -> int:
        """Those that count, with the prompt vectors."""
        return self.computed - self.padding

    @property
    def computed(self) -> int:
        """Tokens that the model computes, padding included."""
        return self.unit.tokens


@dataclass(frozen=True)
class Work:
    """Units by call: those of one call can be computed side by side, the calls one by one."""

    calls: tuple[tuple[MicroBatch, ...], ...]

    @property
    def forward_passes(self) -> int:
        return sum(batch.unit.forward_passes for call in self.calls for batch in call)

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


def plan(config: Config, task: Task, lengths: Mapping[str, Sequence[int]]) -> Plan:
    """Count a search's work; `config` is resolved, `lengths` are the examples' tokens by split."""
    # The units do not depend on the selection, and a user's own is not to be called for nothing.
    search = config.search.model_copy(update={"selection": "loss"})
    counter = CountingScorer(config.model_copy(update={"search": search}), task, lengths)
    scorer = cast(Scorer, counter)  # nobody asks here for what it lacks
    latents = np.broadcast_to(0.0, (search.population, config.prompt.latent_size))
    counter.score(latents)
    generation = counter.take()
    validate(scorer, latents[0], calibrate(scorer, latents[0]))
    validation = counter.take()
    validate(scorer, None)
    manual = counter.take()
    evaluate(scorer, latents[0], generation=0)
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

    def __init__(self, config: Config, task: Task, lengths: Mapping[str, Sequence[int]]) -> None:
        super().__init__(config, task)
        self._lengths = lengths
        self._calls: list[tuple[MicroBatch, ...]] = []

    @property
    def lengths(self) -> Mapping[str, Sequence[int]]:
        return self._lengths

    def run(self, units: Sequence[Unit], latents: Latents | None) -> list[NDArray[Any]]:
        self._calls.append(tuple(self._count(unit, latents is not None) for unit in units))
        return [np.zeros(unit.shape(self.task.classes), np.float32) for unit in units]

    def take(self) -> Work:
        """What was counted since this was last called."""
        calls, self._calls = tuple(self._calls), []
        return Work(calls)

    def _count(self, unit: Unit, prompted: bool) -> MicroBatch:
        each = [self._lengths[unit.split][row] for row in unit.examples]
        candidates = unit.rows // len(each)
        return MicroBatch(unit, prompted, candidates * (max(each) * len(each) - sum(each)))


def _batches(*works: Work) -> Iterator[MicroBatch]:
    return (batch for work in works for call in work.calls for batch in call)


def _size(batch: MicroBatch) -> int:
    return batch.computed
