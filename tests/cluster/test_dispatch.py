"""Who computes which units next: every unit is answered, whoever dies or dawdles on the way."""

import random
from collections import Counter
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.dispatch import Dispatch
from cluster.placement import shares


def even(units: int, workers: int) -> Dispatch:
    return Dispatch([1.0] * units, list(range(workers)))


def drained(dispatch: Dispatch, slot: int) -> list[list[int]]:
    """All jobs of a worker that alone goes on, each one answered."""
    jobs = []
    while job := dispatch.take(slot):
        jobs.append(job)
        dispatch.answered(slot)
    return jobs


def undisturbed(dispatch: Dispatch) -> dict[int, list[list[int]]]:
    """Jobs by slot where all workers are equally fast: who began first is ready first."""
    jobs: dict[int, list[list[int]]] = {slot: [] for slot in dispatch.slots}
    clock = dict.fromkeys(dispatch.slots, 0.0)
    ends: dict[int, float] = {}
    while dispatch.open:
        for slot in dispatch.slots:
            if slot not in ends and (job := dispatch.take(slot)):
                jobs[slot].append(job)
                ends[slot] = clock[slot] + dispatch.job_cost(slot)
        slot = min(ends, key=lambda one: (ends[one], one))
        clock[slot] = ends.pop(slot)
        dispatch.answered(slot)
    return jobs


@pytest.mark.parametrize(("units", "workers"), [(60, 2), (60, 3), (100, 64), (64, 64), (5, 2)])
def test_a_worker_has_one_large_call_and_at_most_two_small_ones(units: int, workers: int) -> None:
    jobs = undisturbed(even(units, workers))
    assert sorted(chain(*chain(*jobs.values()))) == list(range(units))
    for calls in jobs.values():
        assert len(calls) <= 3
        assert all(len(call) <= len(calls[0]) for call in calls)


def test_the_large_call_is_three_quarters_of_the_share_and_in_its_order() -> None:
    dispatch = even(48, 2)
    assert dispatch.take(1) == list(range(24, 42))
    assert dispatch.take(0) == list(range(18))


def test_a_small_share_is_one_call() -> None:
    dispatch = even(6, 2)
    assert [dispatch.take(0), dispatch.take(1)] == [[0, 1, 2], [3, 4, 5]]


def test_what_is_too_little_for_a_call_of_its_own_goes_with_the_call_before() -> None:
    dispatch = Dispatch([1.0] * 16, [0, 1], worth=2.5)
    assert dispatch.take(0) == list(range(8))  # two would have been left
    dispatch = Dispatch([1.0] * 40, [0, 1], worth=2.5)
    assert [len(job) for job in drained(dispatch, 0)[:2]] == [15, 5]
    dispatch = Dispatch([1.0] * 16, [0, 1], worth=float("inf"))
    assert [dispatch.take(0), dispatch.take(1)] == [list(range(8)), list(range(8, 16))]


def test_workers_keep_to_their_own_shares_while_all_go_on() -> None:
    """So that each has the same subnetworks in every generation."""
    parts = shares([1.0] * 60, 4)
    for slot, jobs in undisturbed(even(60, 4)).items():
        assert set(chain(*jobs)) <= set(parts[slot])


def test_who_runs_dry_takes_over_what_waits_for_another() -> None:
    dispatch = even(48, 2)
    assert dispatch.take(1) == list(range(24, 42))  # and never comes back
    taken = drained(dispatch, 0)
    assert sorted(chain(*taken)) == [*range(24), *range(42, 48)]
    assert dispatch.open == set(range(24, 42))


def test_the_share_of_a_worker_that_never_came_is_taken_over_in_halves() -> None:
    dispatch = even(48, 2)
    taken = drained(dispatch, 0)
    assert sorted(chain(*taken)) == list(range(48))
    assert len(taken[3]) == 12
    assert len(taken) < 10


def test_a_worker_that_joins_is_given_a_part_of_what_waits() -> None:
    dispatch = even(48, 1)
    dispatch.take(0)
    assert dispatch.take(7)
    assert dispatch.answered(7)


def test_without_workers_the_units_wait_for_whoever_comes() -> None:
    dispatch = Dispatch([1.0] * 4, [])
    assert sorted(chain(*drained(dispatch, 3))) == [0, 1, 2, 3]
    assert not dispatch.open


def test_lost_units_go_out_one_a_call_and_first() -> None:
    dispatch = even(8, 2)
    assert dispatch.take(0) == [0, 1, 2]
    assert dispatch.lost(0) is None  # one of three: nobody knows which
    assert [dispatch.take(1), dispatch.take(0)] == [[0], [1]]
    assert dispatch.again == 2


def test_a_unit_that_was_lost_on_its_own_is_named_and_counted_and_tried_again_at_once() -> None:
    dispatch = even(3, 1)
    dispatch.take(0)
    dispatch.lost(0)
    for times in (1, 2, 3):
        assert dispatch.take(0) == [0]
        assert dispatch.lost(0) == 0
        assert dispatch.losses(0) == times
    assert dispatch.take(0) == [0]
    assert dispatch.take(1) == [1]  # the others go on meanwhile
    dispatch.answered(1)
    assert dispatch.losses(1) == 0
    assert dispatch.open == {0, 2}


def test_a_machine_that_went_away_is_no_units_fault() -> None:
    dispatch = even(1, 1)
    dispatch.take(0)
    assert dispatch.lost(0, blameless=True) is None
    assert dispatch.losses(0) == 0
    assert dispatch.take(0) == [0]


def test_a_late_workers_units_are_given_to_a_second_one_from_the_end() -> None:
    dispatch = even(8, 2)
    assert dispatch.take(0) == [0, 1, 2]
    drained(dispatch, 1)
    assert dispatch.open == {0, 1, 2}
    assert dispatch.double(1, late=[]) == []
    assert dispatch.double(1, late=[0]) == [2]
    assert dispatch.double(5, late=[0]) == [1]
    assert dispatch.again == 2
    assert dispatch.answered(1) == [(0, 2)]
    assert dispatch.answered(0) == [(0, 0), (1, 1)]  # the first answer counted
    assert not dispatch.open
    assert dispatch.answered(5) == []


def test_a_doubled_unit_is_not_lost_with_one_of_its_two_workers() -> None:
    dispatch = even(3, 1)
    dispatch.take(0)
    assert dispatch.double(1, late=[0]) == [2]
    dispatch.lost(0)
    assert [dispatch.take(0), dispatch.answered(0)] == [[0], [(0, 0)]]
    assert [dispatch.take(0), dispatch.answered(0)] == [[1], [(0, 1)]]
    assert dispatch.take(0) == []
    assert dispatch.lost(1) == 2
    assert dispatch.take(0) == [2]


@settings(max_examples=100, deadline=None)
@given(
    costs=st.lists(st.integers(1, 50).map(float), min_size=1, max_size=40),
    workers=st.integers(0, 6),
    seed=st.integers(0, 2**32),
)
def test_every_unit_is_answered_once_whatever_happens(
    costs: list[float], workers: int, seed: int
) -> None:
    """Workers take, answer, die, dawdle and join in any order."""
    dispatch, rest = Dispatch(costs, list(range(workers))), random.Random(seed)  # noqa: S311
    answers: Counter[int] = Counter()
    busy: set[int] = set()
    for _ in range(400):
        slot = rest.randrange(8)
        event = rest.random()
        if slot not in busy:
            others = sorted(busy - {slot})
            if dispatch.take(slot) or (event < 0.3 and dispatch.double(slot, others)):
                busy.add(slot)
        elif event < 0.3:
            dispatch.lost(slot)
            busy.discard(slot)
        elif event < 0.8:
            answers.update(unit for _, unit in dispatch.answered(slot))
            busy.discard(slot)
    while dispatch.open:  # at last, one worker that lives is enough
        for slot in sorted(busy):
            dispatch.lost(slot)
        busy = set()
        assert dispatch.take(0)
        answers.update(unit for _, unit in dispatch.answered(0))
    assert answers == Counter(range(len(costs)))
