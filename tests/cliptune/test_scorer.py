"""Units: what a scorer's work is cut into, and how the pieces are put together again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from numpy.typing import NDArray

from cliptune.errors import ModelError
from cliptune.scorer import (
    CANDIDATES,
    EVALUATION_CHUNK,
    ROWS_PER_CANDIDATE,
    Unit,
    UnitScorer,
    candidate_spans,
    micro_batches,
)
from cliptune.subnetwork import FULL_NETWORK, SubnetworkSpec, ensemble
from cliptune.types import Latents

POPULATIONS_AND_MICRO_BATCHES = [
    (population, micro_batch)
    for population in (1, 2, 7, 16, 20, 33)
    for micro_batch in (1, 15, 16, 40, 64, 256, 1024)
]


@pytest.mark.parametrize(("population", "micro_batch"), POPULATIONS_AND_MICRO_BATCHES)
def test_spans_hold_every_candidate_once_and_in_order(population: int, micro_batch: int) -> None:
    spans = candidate_spans(population, micro_batch)
    assert [i for span in spans for i in range(*span)] == list(range(population))


@pytest.mark.parametrize(("population", "micro_batch"), POPULATIONS_AND_MICRO_BATCHES)
def test_spans_are_even_as_few_as_can_be_and_fit(population: int, micro_batch: int) -> None:
    sizes = [last - first for first, last in candidate_spans(population, micro_batch)]
    most = min(micro_batch, max(CANDIDATES, micro_batch // ROWS_PER_CANDIDATE))
    assert max(sizes) - min(sizes) <= 1
    assert 1 <= min(sizes) <= max(sizes) <= most
    assert len(sizes) == -(-population // most)


def test_spans_of_the_defaults() -> None:
    assert candidate_spans(20, 25) == [(0, 5), (5, 10), (10, 15), (15, 20)]
    assert candidate_spans(20, 256) == [(0, 10), (10, 20)]
    assert candidate_spans(20, 4) == [(0, 4), (4, 8), (8, 12), (12, 16), (16, 20)]


def batches(lengths: Sequence[int], candidates: int, micro_batch: int) -> list[list[int]]:
    unit = Unit(FULL_NETWORK, "train", (0, candidates), (0, len(lengths)), micro_batch, reduce=True)
    return list(micro_batches(unit, lengths))


def test_a_micro_batch_holds_examples_of_one_length_where_that_fills_it() -> None:
    lengths = [7, 5, 7, 9, 5, 5]
    assert batches(lengths, candidates=4, micro_batch=16) == [[1, 4, 5], [0, 2], [3]]
    assert batches(lengths, candidates=8, micro_batch=16) == [[1, 4], [5], [0, 2], [3]]


def test_a_micro_batch_is_padded_rather_than_left_small() -> None:
    lengths = [7, 5, 7, 9, 5, 5]
    assert batches(lengths, candidates=1, micro_batch=8) == [[1, 4, 5, 0], [2, 3]]
    assert batches(lengths, candidates=1, micro_batch=4) == [[1, 4, 5], [0, 2], [3]]


@pytest.mark.parametrize("candidates", [1, 3, 10])
@pytest.mark.parametrize("micro_batch", [1, 5, 64])
def test_every_example_is_in_one_micro_batch_that_fits(candidates: int, micro_batch: int) -> None:
    lengths = np.random.default_rng(0).integers(3, 20, 57).tolist()
    found = batches(lengths, candidates, micro_batch)
    assert sorted(row for batch in found for row in batch) == list(range(57))
    assert all(len(batch) == 1 or len(batch) * candidates <= micro_batch for batch in found)


class Recorder(UnitScorer):
    """Notes the units and answers with numbers that say where they belong."""

    def __init__(self, examples: int = 6, **sections: Any) -> None:
        super().__init__(tiny.config(Path("model"), Path("data"), **sections), tiny.task(examples))
        self.units: list[Unit] = []

    def run(self, units: Sequence[Unit], latents: Latents | None) -> list[NDArray[Any]]:
        self.units = list(units)
        return [self._answer(unit) for unit in units]

    def _answer(self, unit: Unit) -> NDArray[Any]:
        candidates = np.arange(*unit.candidates)
        if unit.reduce:
            return candidates + 100.0 * unit.subnetwork.index
        examples, classes = np.arange(*unit.examples), np.arange(2)
        scores = candidates[:, None, None] * 1000 + examples[:, None] * 2 + classes
        return (scores + 100_000 * unit.subnetwork.index).astype(np.float32)


def covered(units: Sequence[Unit]) -> list[tuple[SubnetworkSpec, int, int]]:
    """Every (subnetwork, candidate, example) that units hold, with repetition."""
    return [
        (unit.subnetwork, candidate, example)
        for unit in units
        for candidate in range(*unit.candidates)
        for example in range(*unit.examples)
    ]


def test_rewards_come_to_stand_at_their_candidate_and_subnetwork() -> None:
    rewards = Recorder(model={"micro_batch": 48}).score(np.zeros((7, 5)))
    assert rewards.tolist() == [[k + 100.0 * n for n in range(3)] for k in range(7)]
    assert rewards.flags.c_contiguous
    assert rewards.dtype == np.float64


def test_training_units_hold_all_examples_of_some_candidates_on_one_subnetwork() -> None:
    scorer = Recorder(model={"micro_batch": 48})
    scorer.score(np.zeros((7, 5)))
    networks = ensemble(scorer.config.ensemble, 0)
    assert all(u.reduce and u.split == "train" and u.examples == (0, 6) for u in scorer.units)
    assert [u.candidates for u in scorer.units] == candidate_spans(7, 48) * 3
    expected = {(n, k, e) for n in networks for k in range(7) for e in range(6)}
    assert len(covered(scorer.units)) == len(expected)
    assert set(covered(scorer.units)) == expected


def test_units_do_not_depend_on_the_latents() -> None:
    one, other = Recorder(), Recorder()
    one.score(np.zeros((7, 5)))
    other.score(np.ones((7, 5)))
    assert one.units == other.units


def test_dynamic_units_name_their_generation() -> None:
    scorer = Recorder(ensemble={"mode": "dynamic"})
    scorer.score(np.zeros((4, 5)), 6)
    assert {unit.subnetwork.generation for unit in scorer.units} == {6}


def test_class_scores_come_to_stand_at_their_place() -> None:
    scorer = Recorder(examples=2 * EVALUATION_CHUNK + 9, model={"micro_batch": 32})
    networks = ensemble(scorer.config.ensemble, 0)[::-1]
    scores = scorer.class_scores(np.zeros((5, 5)), "test", networks)
    k, n, e, c = np.ogrid[:5, :3, : 2 * EVALUATION_CHUNK + 9, :2]
    assert scores.dtype == np.float32
    assert np.array_equal(scores, k * 1000 + (2 - n) * 100_000 + e * 2 + c)


def test_evaluation_units_hold_a_chunk_of_examples_at_most() -> None:
    scorer = Recorder(examples=2 * EVALUATION_CHUNK + 9)
    scorer.class_scores(np.zeros((20, 5)), "validation", [FULL_NETWORK])
    chunks = [u.examples for u in scorer.units if u.candidates == (5, 10)]
    size = EVALUATION_CHUNK
    assert chunks == [(0, size), (size, 2 * size), (2 * size, 2 * size + 9)]
    assert {(u.split, u.reduce) for u in scorer.units} == {("validation", False)}


def test_without_latents_there_is_one_candidate() -> None:
    scorer = Recorder()
    assert scorer.class_scores(None, "test", [FULL_NETWORK]).shape == (1, 1, 6, 2)
    assert [unit.candidates for unit in scorer.units] == [(0, 1)]


def test_forward_passes_are_candidates_times_subnetworks_times_examples() -> None:
    scorer = Recorder()
    scorer.score(np.zeros((7, 5)))
    assert scorer.usage.forward_passes == 7 * 3 * 6
    scorer.class_scores(None, "test", [FULL_NETWORK])
    assert scorer.usage.forward_passes == 7 * 3 * 6 + 6


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_reward_that_is_not_finite_names_candidate_subnetwork_and_remedy(broken: float) -> None:
    class Broken(Recorder):
        def _answer(self, unit: Unit) -> NDArray[Any]:
            rewards = super()._answer(unit)
            if unit.subnetwork.index == 2:
                rewards[np.arange(*unit.candidates) == 5] = broken
            return rewards

    message = rf"candidate 5 on subnetwork 2 in generation 3 is {broken}; .*wider model.dtype"
    with pytest.raises(ModelError, match=message):
        Broken().score(np.zeros((7, 5)), 3)
