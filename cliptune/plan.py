"""What a search will cost, counted and not computed.

A CountingScorer takes the place of one that scores, so that the units it counts are those that the
search's own code asks for. As everywhere, a forward pass is one example with one prompt through
one subnetwork; the label texts of the encoder read-out, a handful a subnetwork, are left out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cliptune import limits
from cliptune.config import Config
from cliptune.evaluation import evaluate, validate
from cliptune.scorer import Scorer, Unit, UnitScorer, micro_batches
from cliptune.task import Task
from cliptune.types import Latents


@dataclass(frozen=True)
class MicroBatch:
    """Rows that go through the model at once."""

    split: str
    examples: tuple[int, ...]
    candidates: int
    prompted: bool
    tokens: int  # with the prompt vectors
    padding: int  # what fills the shorter rows up

    @property
    def computed(self) -> int:
        """Tokens that the model computes, padding included."""
        return self.tokens + self.padding


@dataclass(frozen=True)
class UnitCost:
    """What one unit takes."""

    forward_passes: int
    tokens: int  # with the prompt vectors
    padding: int

    @property
    def computed(self) -> int:
        return self.tokens + self.padding


@dataclass(frozen=True)
class Work:
    """Units by call: those of one call can be computed side by side, the calls one by one."""

    calls: tuple[tuple[UnitCost, ...], ...]

    @property
    def forward_passes(self) -> int:
        return sum(unit.forward_passes for call in self.calls for unit in call)

    @property
    def tokens(self) -> int:
        return sum(unit.tokens for call in self.calls for unit in call)

    @property
    def padding(self) -> int:
        return sum(unit.padding for call in self.calls for unit in call)


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
    latents = np.broadcast_to(0.0, (search.population, config.prompt.dimension))
    counter.score(latents)
    generation, training = counter.take(), sorted(counter.batches, key=_size)
    validate(scorer, latents[0])
    validation = counter.take()
    validate(scorer, None)
    manual = counter.take()
    evaluate(scorer, latents[0], generation=0)
    return Plan(
        generation=generation,
        validation=validation,
        manual=manual,
        evaluation=counter.take(),
        generations=limits.generations(config, len(task["train"])),
        typical=training[len(training) // 2],
        largest=max(counter.batches, key=_size),
    )


class CountingScorer(UnitScorer):
    """Answers every unit with zeros and notes what a LocalScorer would have computed for it."""

    def __init__(self, config: Config, task: Task, lengths: Mapping[str, Sequence[int]]) -> None:
        super().__init__(config, task)
        self._lengths = lengths
        self._calls: list[tuple[UnitCost, ...]] = []
        self._costs: dict[tuple[object, ...], UnitCost] = {}
        self.batches: list[MicroBatch] = []  # of all units that differ

    def run(self, units: Sequence[Unit], latents: Latents | None) -> list[NDArray[Any]]:
        self._calls.append(tuple(self._cost(unit, latents is not None) for unit in units))
        return [self._zeros(unit) for unit in units]

    def take(self) -> Work:
        """What was counted since this was last called."""
        calls, self._calls = tuple(self._calls), []
        return Work(calls)

    def _zeros(self, unit: Unit) -> NDArray[np.float32]:
        candidates = unit.candidates[1] - unit.candidates[0]
        examples = unit.examples[1] - unit.examples[0]
        shape = (candidates,) if unit.reduce else (candidates, examples, self.task.classes)
        return np.zeros(shape, np.float32)

    def _cost(self, unit: Unit, prompted: bool) -> UnitCost:
        """The sum of its micro-batches; units through other subnetworks are counted once."""
        candidates = unit.candidates[1] - unit.candidates[0]
        shape = (unit.split, unit.examples, candidates, prompted)
        if shape not in self._costs:
            batches = self._micro_batches(unit, candidates, prompted)
            self.batches += batches
            self._costs[shape] = UnitCost(
                forward_passes=unit.forward_passes,
                tokens=sum(batch.tokens for batch in batches),
                padding=sum(batch.padding for batch in batches),
            )
        return self._costs[shape]

    def _micro_batches(self, unit: Unit, candidates: int, prompted: bool) -> list[MicroBatch]:
        lengths = self._lengths[unit.split]
        prompt = self.config.prompt.length if prompted else 0
        batches = []
        for rows in micro_batches(unit, lengths):
            each = [lengths[row] for row in rows]
            batches.append(
                MicroBatch(
                    split=unit.split,
                    examples=tuple(rows),
                    candidates=candidates,
                    prompted=prompted,
                    tokens=candidates * (sum(each) + prompt * len(each)),
                    padding=candidates * (max(each) * len(each) - sum(each)),
                )
            )
        return batches


def _size(batch: MicroBatch) -> int:
    return batch.computed
