"""Which actor scores what, and how many fit."""

from itertools import chain, pairwise

import numpy as np
import pytest

from cluster.placement import Need, Node, capacity, shares

EVEN = [6.0] * 20
UNEVEN = [1.0, 30.0, 2.0, 2.0, 9.0, 1.0, 1.0, 25.0, 4.0, 4.0, 4.0]
RANDOM = np.random.default_rng(0).integers(1, 100, 57).tolist()

costs_and_actors = pytest.mark.parametrize(
    ("costs", "actors"),
    [(costs, actors) for costs in (EVEN, UNEVEN, RANDOM) for actors in (1, 2, 3, 7, 20, 64)],
)


@costs_and_actors
def test_every_unit_has_one_actor_and_stays_in_its_order(costs: list[float], actors: int) -> None:
    result = shares(costs, actors)
    assert len(result) == actors
    assert list(chain(*result)) == list(range(len(costs)))


@costs_and_actors
def test_no_share_is_more_than_a_unit_off_the_even_one(costs: list[float], actors: int) -> None:
    even = sum(costs) / actors
    for share in shares(costs, actors):
        assert abs(sum(costs[unit] for unit in share) - even) <= max(costs)


def test_equal_units_are_dealt_out_equally() -> None:
    assert [len(share) for share in shares(EVEN, 4)] == [5, 5, 5, 5]


def test_a_costly_unit_counts_for_many_cheap_ones() -> None:
    assert shares([1.0, 1.0, 1.0, 3.0], 2) == [[0, 1, 2], [3]]


def test_one_actor_has_everything() -> None:
    assert shares(UNEVEN, 1) == [list(range(len(UNEVEN)))]


@pytest.mark.parametrize("units", [1, 2, 5])
def test_actors_beyond_the_units_have_nothing_and_the_others_one_each(units: int) -> None:
    sizes = [len(share) for share in shares([3.0] * units, 8)]
    assert sorted(sizes) == [0] * (8 - units) + [1] * units


def test_no_units_make_empty_shares() -> None:
    assert shares([], 3) == [[], [], []]


@pytest.mark.parametrize("parts", [1, 4, 7])
@pytest.mark.parametrize("actors", [1, 2, 3, 4, 5, 8])
def test_an_actor_has_neighbouring_subnetworks(parts: int, actors: int) -> None:
    """Units of 5 subnetworks, ordered by subnetwork, some parts each."""
    owners = [unit // parts for unit in range(5 * parts)]
    for share in shares([2.0] * len(owners), actors):
        mine = sorted({owners[unit] for unit in share})
        assert all(right - left == 1 for left, right in pairwise(mine))


@pytest.mark.parametrize("actors", [1, 2, 3, 4, 5])
def test_with_fewer_actors_than_subnetworks_at_most_two_are_parts(actors: int) -> None:
    parts = 4
    for share in shares([1.0] * 5 * parts, actors):
        counts = np.bincount([unit // parts for unit in share], minlength=5)
        assert np.count_nonzero((counts > 0) & (counts < parts)) <= 2


@pytest.mark.parametrize(
    ("node", "need", "fit"),
    [
        (Node(8, 0), Need(1, 0), 8),
        (Node(8, 0), Need(3, 0), 2),
        (Node(2, 0), Need(3, 0), 0),
        (Node(8, 2), Need(1, 1), 2),
        (Node(2, 8), Need(1, 1), 2),
        (Node(64, 0), Need(1, 1), 0),
        (Node(64, 1), Need(1, 0.5), 2),
        (Node(64, 1), Need(1, 0.4), 2),
        (Node(1, 1), Need(1, 0.25), 1),
        (Node(64, 3), Need(1, 2), 1),
        (Node(0, 4), Need(1, 1), 0),
    ],
)
def test_a_machine_holds_what_its_cpus_and_gpus_allow(node: Node, need: Need, fit: int) -> None:
    assert node.holds(need) == capacity([node], need) == fit


@pytest.mark.parametrize(
    ("gpus", "each", "fit"),
    [
        (0.3, 0.1, 3),  # 0.3 // 0.1 is 2 in floating point
        (0.1 * 3, 0.1, 3),
        (0.3, 0.1 * 3, 1),  # 0.1 * 3 is more than 0.3
        (1.0, 0.2, 5),
        (0.7, 0.1, 7),
        (8.0, 0.1, 80),
        (1.0, 1 / 3, 3),
    ],
)
def test_rounding_costs_no_actor(gpus: float, each: float, fit: int) -> None:
    assert capacity([Node(1000, gpus)], Need(1, each)) == fit


def test_a_gpu_cut_into_equal_parts_holds_as_many_actors() -> None:
    parts = range(1, 101)
    assert [capacity([Node(1000, 1)], Need(1, 1 / each)) for each in parts] == list(parts)


def test_an_actor_never_spans_machines() -> None:
    machines = [Node(3, 1.5), Node(3, 1.5)]
    assert capacity(machines, Need(2, 0)) == 2
    assert capacity(machines, Need(4, 0)) == 0
    assert capacity(machines, Need(1, 1)) == 2


def test_cpus_of_one_machine_do_not_help_gpus_of_another() -> None:
    assert capacity([Node(64, 0), Node(1, 8)], Need(1, 1)) == 1


def test_no_machines_hold_nothing() -> None:
    assert capacity([], Need(1, 0)) == 0
