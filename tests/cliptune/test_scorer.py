"""Units: what a scorer's work is cut into, and how the pieces are put together again."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cliptune.calibration import class_biases
from cliptune.device import MICRO_BATCH_TOKENS, TEXT_TOKENS
from cliptune.errors import ModelError, OutOfMemoryError
from cliptune.rewards import cross_entropy
from cliptune.scorer import (
    CANDIDATES,
    ROWS_PER_CANDIDATE,
    Unit,
    UnitScorer,
    Usage,
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
    assert candidate_spans(20, 51) == candidate_spans(20, 25)  # on a GPU as on a CPU
    assert candidate_spans(20, 256) == [(0, 10), (10, 20)]
    assert candidate_spans(20, 4) == [(0, 4), (4, 8), (8, 12), (12, 16), (16, 20)]


def batches(lengths: Sequence[int], candidates: int, micro_batch: int) -> list[list[int]]:
    return [list(rows) for rows in micro_batches(lengths, candidates, micro_batch)]


def test_a_micro_batch_holds_examples_of_one_length_where_that_fills_it() -> None:
    lengths = [7, 5, 7, 9, 5, 5]
    assert batches(lengths, candidates=4, micro_batch=16) == [[1, 4, 5], [0, 2], [3]]
    assert batches(lengths, candidates=8, micro_batch=16) == [[1, 4], [5], [0, 2], [3]]


def test_a_micro_batch_is_padded_rather_than_left_small() -> None:
    lengths = [7, 5, 7, 9, 5, 5]
    assert batches(lengths, candidates=1, micro_batch=8) == [[1, 4, 5, 0], [2, 3]]
    assert batches(lengths, candidates=1, micro_batch=4) == [[1, 4, 5], [0, 2], [3]]


class Recorder(UnitScorer):
    """Notes the units and answers with numbers that say where they belong."""

    def __init__(self, lengths: Sequence[int] = (5, 9, 4, 9, 4, 6), **sections: Any) -> None:
        config = tiny.config(Path("model"), Path("data"), **sections)
        super().__init__(config, tiny.task(len(lengths)))
        self._lengths = dict.fromkeys(self.task.splits, lengths)
        self.seen: list[Unit] = []

    @property
    def lengths(self) -> Mapping[str, Sequence[int]]:
        return self._lengths

    def run(self, units: Sequence[Unit], latents: Latents | None) -> list[NDArray[Any]]:
        self.seen = list(units)
        return [self._answer(unit) for unit in units]

    def _answer(self, unit: Unit) -> NDArray[Any]:
        candidates, examples = np.arange(*unit.candidates), np.array(unit.examples)
        each = candidates[:, None] * 1000.0 + examples * 2 + 100_000 * unit.subnetwork.index
        return each if unit.reduce else (each[..., None] + np.arange(2)).astype(np.float32)


def covered(units: Sequence[Unit]) -> list[tuple[SubnetworkSpec, int, int]]:
    """Every (subnetwork, candidate, example) that units hold, with repetition."""
    return [
        (unit.subnetwork, candidate, example)
        for unit in units
        for candidate in range(*unit.candidates)
        for example in unit.examples
    ]


def small(micro_batch: int) -> Recorder:
    return Recorder(model={"micro_batch": micro_batch})


# What a unit is


def test_a_unit_costs_its_rows_times_their_length() -> None:
    unit = Unit(FULL_NETWORK, "train", (5, 8), (4, 0, 2, 9), 50, reduce=True)
    assert (unit.rows, unit.tokens) == (12, 600)


def test_a_result_has_an_axis_of_classes_unless_it_is_reduced() -> None:
    unit = Unit(FULL_NETWORK, "train", (5, 8), (4, 0, 2, 9), 50, reduce=True)
    assert unit.shape(2) == (3, 4)
    assert Unit(FULL_NETWORK, "test", (5, 8), (4, 0), 50, reduce=False).shape(6) == (3, 2, 6)


def test_rows_are_as_long_as_the_longest_with_its_prompt() -> None:
    """Three candidates: 4 4, 5 6, 9 9."""
    scorer = small(micro_batch=8)
    units = scorer.units(FULL_NETWORK, "train", 3, reduce=True)
    assert [(unit.examples, unit.length) for unit in units] == [
        ((2, 4), 4 + 3),
        ((0, 5), 6 + 3),
        ((1, 3), 9 + 3),
    ]


def test_without_a_prompt_rows_are_shorter_and_one_candidates() -> None:
    units = small(micro_batch=2).units(FULL_NETWORK, "test", None, reduce=False)
    assert [unit.length for unit in units] == [4, 5, 6, 9]
    assert {unit.candidates for unit in units} == {(0, 1)}


LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=60)
SIZES = {"population": st.integers(1, 50), "micro_batch": st.integers(1, 300)}


@given(lengths=LENGTHS, **SIZES)
@settings(max_examples=60, deadline=None)
def test_every_candidate_meets_every_example_in_one_unit_that_fits(
    lengths: list[int], population: int, micro_batch: int
) -> None:
    scorer = Recorder(lengths, model={"micro_batch": micro_batch})
    units = scorer.units(FULL_NETWORK, "train", population, reduce=True)
    everything = [(FULL_NETWORK, k, e) for k in range(population) for e in range(len(lengths))]
    assert sorted(covered(units), key=lambda place: place[1:]) == everything
    assert max(unit.rows for unit in units) <= micro_batch
    for unit in units:
        assert unit.length == scorer.config.prompt.length + max(lengths[e] for e in unit.examples)


@given(lengths=LENGTHS, **SIZES)
@settings(max_examples=50, deadline=None)
def test_units_depend_on_the_config_and_the_lengths_alone(
    lengths: list[int], population: int, micro_batch: int
) -> None:
    sections = {
        "model": {"micro_batch": micro_batch},
        "search": {"population": 50, "budget": 50},
    }
    busy, fresh = Recorder(lengths, **sections), Recorder(tuple(lengths), **sections)
    rng = np.random.default_rng(population)
    busy.class_scores(rng.standard_normal((3, 5)), "test", [FULL_NETWORK])
    busy.canary()
    busy.score(rng.standard_normal((population, 5)))
    fresh.score(np.zeros((population, 5)))
    assert busy.seen == fresh.seen


def test_units_are_ordered_by_subnetwork_then_candidates_then_length() -> None:
    scorer = small(micro_batch=8)
    scorer.score(np.zeros((7, 5)))
    networks, spans = ensemble(scorer.config.ensemble, 0), candidate_spans(7, 8)
    rows = [list(micro_batches(scorer.lengths["train"], last - first, 8)) for first, last in spans]
    assert [(u.subnetwork, u.candidates, u.examples) for u in scorer.seen] == [
        (network, span, batch)
        for network in networks
        for span, cut in zip(spans, rows, strict=True)
        for batch in cut
    ]
    assert {(unit.split, unit.reduce) for unit in scorer.seen} == {("train", True)}


def test_a_generation_of_the_defaults_has_more_units_than_64_actors() -> None:
    """32 examples as long as SST-2's, 20 candidates, 5 subnetworks, L = 50."""
    lengths = np.random.default_rng(0).integers(12, 45, 32).tolist()
    sections = {"prompt": {"length": 50}, "ensemble": {"subnetworks": 5}}
    for tokens in MICRO_BATCH_TOKENS.values():
        rows = {"micro_batch": tokens // (50 + TEXT_TOKENS)}
        scorer = Recorder(lengths, model=rows, **sections)
        scorer.score(np.zeros((20, 5)))
        assert len(scorer.seen) > 64


# How they are put together again


def test_rewards_come_to_stand_at_their_candidate_and_subnetwork() -> None:
    rewards = small(micro_batch=4).score(np.zeros((7, 5)))
    mean = 2 * np.arange(6).mean()
    assert rewards.tolist() == [[1000 * k + 100_000 * n + mean for n in range(3)] for k in range(7)]
    assert rewards.flags.c_contiguous
    assert rewards.dtype == np.float64


@pytest.mark.parametrize("examples", [1, 7, 32, 300])
def test_a_reward_is_the_mean_of_a_contiguous_row_to_the_bit(examples: int) -> None:
    """In whatever pieces it was computed: so journals of older versions go on."""
    rng = np.random.default_rng(0)
    each = rng.standard_normal((7, examples))

    class Uneven(Recorder):
        def _answer(self, unit: Unit) -> NDArray[Any]:
            return each[slice(*unit.candidates)][:, list(unit.examples)]

    lengths = rng.integers(3, 9, examples).tolist()
    for micro_batch in (1, 16, 1000):
        rewards = Uneven(lengths, model={"micro_batch": micro_batch}).score(np.zeros((7, 5)))
        assert rewards[:, 1].tolist() == each.mean(axis=1).tolist()


def test_a_calibrated_reward_has_biases_of_its_candidate_and_subnetwork() -> None:
    rng = np.random.default_rng(0)
    each = rng.standard_normal((7, 3, 6, 2)).astype(np.float32)

    class Partial(Recorder):
        def _answer(self, unit: Unit) -> NDArray[Any]:
            assert not unit.reduce
            return each[slice(*unit.candidates), unit.subnetwork.index][:, list(unit.examples)]

    scorer = Partial(search={"calibrate": True})
    rewards = scorer.score(np.zeros((7, 5)))
    labels = scorer.task["train"].labels
    for candidate, subnetwork in np.ndindex(7, 3):
        scores = each[candidate, subnetwork]
        expected = cross_entropy(scores + class_biases(scores, labels), labels, 0.0).mean()
        assert rewards[candidate, subnetwork] == pytest.approx(expected, rel=1e-9)


def test_dynamic_units_name_their_generation() -> None:
    scorer = Recorder(ensemble={"mode": "dynamic"})
    scorer.score(np.zeros((4, 5)), 6)
    assert {unit.subnetwork.generation for unit in scorer.seen} == {6}


def test_class_scores_come_to_stand_at_their_place() -> None:
    lengths = np.random.default_rng(0).integers(3, 20, 521).tolist()
    scorer = Recorder(lengths, model={"micro_batch": 32})
    networks = ensemble(scorer.config.ensemble, 0)[::-1]
    scores = scorer.class_scores(np.zeros((5, 5)), "test", networks)
    k, n, e, c = np.ogrid[:5, :3, :521, :2]
    assert scores.dtype == np.float32
    assert np.array_equal(scores, k * 1000 + (2 - n) * 100_000 + e * 2 + c)
    assert {(unit.split, unit.reduce) for unit in scorer.seen} == {("test", False)}


def test_equal_subnetworks_have_places_of_their_own() -> None:
    scores = Recorder().class_scores(np.zeros((2, 5)), "test", [FULL_NETWORK] * 3)
    assert np.array_equal(scores[:, 0], scores[:, 1])
    assert np.array_equal(scores[:, 0], scores[:, 2])


def test_without_latents_there_is_one_candidate() -> None:
    scorer = Recorder()
    assert scorer.class_scores(None, "test", [FULL_NETWORK]).shape == (1, 1, 6, 2)
    assert {unit.candidates for unit in scorer.seen} == {(0, 1)}


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


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_neither_is_one_that_is_calibrated(broken: float) -> None:
    class Broken(Recorder):
        def _answer(self, unit: Unit) -> NDArray[Any]:
            rows = (unit.candidates[1] - unit.candidates[0], len(unit.examples), 2)
            scores = np.zeros(rows, np.float32)
            if unit.subnetwork.index == 2:
                scores[np.arange(*unit.candidates) == 5] = broken
            return scores

    message = r"candidate 5 on subnetwork 2 in generation 3 is nan; .*wider model.dtype"
    with pytest.raises(ModelError, match=message):
        Broken(search={"calibrate": True}).score(np.zeros((7, 5)), 3)


# The canary


class Rounding(Recorder):
    """Gives rewards that are off by something, and notes how often it is asked."""

    def __init__(self, off: float = 0.0, room: int = 1000, **sections: Any) -> None:
        super().__init__(**sections)
        self.off, self.room = off, room

    def _answer(self, unit: Unit) -> NDArray[Any]:
        if unit.rows > self.room:
            raise OutOfMemoryError("A micro-batch does not fit.")
        return super()._answer(unit) * (1 + self.off)


def test_equal_scorers_have_equal_canaries() -> None:
    assert Rounding().canary() == Rounding().canary()
    assert len(Rounding().canary()) == 64


@pytest.mark.parametrize("off", [2.0**-52, 1e-6])
def test_a_canary_tells_rewards_that_differ_in_a_bit(off: float) -> None:
    assert Rounding(off).canary() != Rounding().canary()


def test_a_canary_is_the_first_unit_of_a_generation() -> None:
    scorer = Recorder(ensemble={"mode": "dynamic"})
    scorer.canary()
    canary = scorer.seen
    scorer.score(np.zeros((scorer.config.search.population, 5)))
    assert canary == [replace(scorer.seen[0], reduce=False), scorer.seen[0]]
    assert canary[0].subnetwork.clip_ratio > 0


def test_a_canary_is_not_counted() -> None:
    scorer = Recorder()
    used = scorer.usage
    scorer.canary()
    assert scorer.usage is used
    assert used == Usage()


def test_a_canary_for_which_memory_is_short_takes_a_smaller_micro_batch_for_itself() -> None:
    scorer = Rounding(room=2)
    narrow = Rounding(model={"micro_batch": 2})
    assert scorer.canary() == narrow.canary()
    assert scorer.micro_batch == 8
