"""What a plan takes on actors, worked out by hand and against the engine itself."""

from pathlib import Path
from typing import Any

import pytest
import tiny

from cliptune.config import merge, validate
from cliptune.errors import ConfigError
from cliptune.plan import MicroBatch, Plan, Work
from cliptune.scorer import Unit
from cliptune.subnetwork import FULL_NETWORK
from cluster.config import ClusterSearch
from cluster.placement import Node
from cluster.plan import awaited, here, placed, timed
from cluster.session import fit

TWO, FOUR, GPUS = Node(2, 0), Node(4, 0), Node(8, 2)


def config(**sections: Any) -> ClusterSearch:
    automatic = {"model": {"device": "auto", "micro_batch": "auto"}}
    tree = tiny.tree(Path("model"), Path("data"), **automatic)
    return validate(ClusterSearch, merge(tree, sections))


def chosen(config: ClusterSearch) -> tuple[Any, ...]:
    """Actors, GPUs each, and what the model runs on."""
    cluster, model = config.cluster, config.model
    return cluster.actors, cluster.gpus_per_actor, model.device, model.micro_batch


def unit(rows: int, length: int, padding: int = 0) -> MicroBatch:
    """One of so many rows."""
    examples = tuple(range(rows))
    return MicroBatch(Unit(FULL_NETWORK, "train", (0, 1), examples, length, True), True, padding)


def work(*calls: list[MicroBatch]) -> Work:
    return Work(tuple(map(tuple, calls)))


def a_plan(generations: int | None = 3) -> Plan:
    """A generation of 6 equal units, whatever that may be of."""
    return Plan(
        generation=work([unit(10, 10, 10)] * 6),
        validation=work([unit(5, 10)]),
        manual=work([unit(5, 4)]),
        evaluation=work([unit(5, 4)] * 2, [unit(5, 10)] * 2),
        generations=generations,
        typical=unit(1, 1),
        largest=unit(1, 1),
    )


# How many actors


@pytest.mark.parametrize("machine", [Node(1, 0), TWO, FOUR, GPUS])
def test_auto_is_what_a_search_on_this_machine_would_choose(machine: Node) -> None:
    found, why = placed(config(), machine)
    assert found == fit(config(), [machine])
    assert why == "auto, on this machine"


def test_two_actors_on_cpus_and_one_a_gpu() -> None:
    assert chosen(placed(config(), FOUR)[0]) == (2, 0, "cpu", 62)
    assert chosen(placed(config(), GPUS)[0]) == (2, 1, "cuda", 124)
    assert chosen(placed(config(), Node(8, 3))[0]) == (3, 1, "cuda", 124)


def test_a_given_number_need_not_fit_this_machine() -> None:
    found, why = placed(config(cluster={"actors": 64}), TWO)
    assert chosen(found) == (64, 0, "cpu", 62)
    assert why == "as given, this machine holds 2"
    assert placed(config(cluster={"actors": 2}), TWO)[1] == "as given"


def test_of_a_range_the_most_are_planned_with() -> None:
    found, why = placed(config(cluster={"actors": {"min": 2, "max": 8}}), FOUR)
    assert found.cluster.most == 8
    assert why == "the most of 2 to 8, this machine holds 4"


def test_threads_decide_how_many_fit() -> None:
    assert placed(config(cluster={"threads_per_actor": 3}), FOUR)[0].cluster.actors == 1
    given = config(cluster={"threads_per_actor": 3, "actors": 2})
    assert placed(given, FOUR)[1] == "as given, this machine holds 1"
    with pytest.raises(ConfigError, match="do not fit"):
        placed(config(cluster={"threads_per_actor": 3}), TWO)


@pytest.mark.parametrize(
    ("sections", "gpus"),
    [({"model": {"device": "cuda"}}, 1), ({"cluster": {"gpus_per_actor": 0.5}}, 0.5)],
)
def test_gpus_elsewhere_can_be_planned_for_with_a_number_of_actors(
    sections: dict[str, Any], gpus: float
) -> None:
    with pytest.raises(ConfigError, match=r"this machine has none\. .* cluster\.actors=4"):
        placed(config(**sections), FOUR)
    given = merge(sections, {"cluster": {"actors": 4}})
    assert chosen(placed(config(**given), FOUR)[0]) == (4, gpus, "cuda", 124)


@pytest.mark.parametrize(
    "sections", [{"model": {"device": "cpu"}}, {"cluster": {"gpus_per_actor": 0}}]
)
@pytest.mark.parametrize(("actors", "count"), [("auto", 2), (3, 3)])
def test_gpus_that_are_not_wanted_are_not_planned_with(
    sections: dict[str, Any], actors: object, count: int
) -> None:
    wanted = merge(sections, {"cluster": {"actors": actors}})
    assert chosen(placed(config(**wanted), GPUS)[0]) == (count, 0, "cpu", 62)


def test_this_machine_has_a_processor() -> None:
    assert here().cpus >= 1


# How long it takes


@pytest.mark.parametrize(
    ("actors", "tokens"), [(1, 600), (2, 300), (3, 200), (4, 200), (5, 200), (6, 100), (64, 100)]
)
def test_a_generation_waits_for_its_busiest_actor(actors: int, tokens: int) -> None:
    assert awaited(work([unit(10, 10, 10)] * 6), actors) == tokens


def test_units_are_shared_by_tokens_as_the_pool_does_whatever_their_passes() -> None:
    call = [unit(50, 2), unit(1, 100), unit(10, 10), unit(3, 100)]
    assert awaited(work(call), 2) == 300


def test_calls_are_waited_for_one_by_one() -> None:
    assert awaited(work([unit(1, 10)], [unit(1, 20)] * 3), 3) == 30


def test_the_parts_of_a_search_add_up() -> None:
    count, parts = timed(a_plan(), config(cluster={"actors": 2}), 10.0)
    assert count == 3
    assert {name: part.seconds for name, part in parts.items()} == {
        "generation": 30.0,
        "generation_validation": 5.0,
        "search": 90.0,
        "validation": 2 + 3 * 5.0,
        "evaluation": 2 + 5.0,
        "total": 90 + 17 + 7.0,
    }
    assert {name: part.forward_passes for name, part in parts.items()} == {
        "generation": 60,
        "generation_validation": 5,
        "search": 180,
        "validation": 20,
        "evaluation": 20,
        "total": 220,
    }
    assert (parts["search"].tokens, parts["search"].padding) == (3 * 540, 3 * 60)
    assert (parts["total"].tokens, parts["total"].padding) == (3 * 540 + 170 + 140, 3 * 60)


def test_without_a_speed_there_is_no_time_and_the_counts_are_the_same() -> None:
    resolved = config(cluster={"actors": 2})
    (count, parts), (_, with_time) = timed(a_plan(), resolved, None), timed(a_plan(), resolved, 1.0)
    assert count == 3
    assert all(part.seconds is None for part in parts.values())
    assert parts["total"].tokens == with_time["total"].tokens
    assert list(parts) == list(with_time)


def test_time_limits_a_search_once_a_speed_is_known() -> None:
    """2 s without a prompt, then 30 + 5 s a generation."""
    search = {"budget": None, "max_seconds": 70}
    resolved = config(cluster={"actors": 2}, search=search)
    count, parts = timed(a_plan(None), resolved, 10.0)
    assert count == 2
    assert parts["search"].seconds == 60
    count, parts = timed(a_plan(None), resolved, None)
    assert count is None
    assert set(parts) == {"generation", "generation_validation", "evaluation"}
    assert timed(a_plan(1), config(cluster={"actors": 2}, search=search), 10.0)[0] == 1
