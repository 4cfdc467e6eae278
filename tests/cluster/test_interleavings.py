"""What can come in what order between the driver and its actors, played through without Ray."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray.exceptions
import tiny
from clusters import Notes
from failing_actors import Synthetic
from fake_ray import FakeRay, Ref, fake_ray, pool_of
from ray.core.generated.common_pb2 import Address
from scorer_contract import latents

from cliptune.config import Config
from cliptune.errors import OutOfMemoryError, ScorerError
from cliptune.synthetic import SyntheticScorer
from cliptune.task import load_task
from cliptune.types import Rewards
from cluster.actor import Arrival


@pytest.fixture
def config(model_dir: Path, task_dir: Path, tmp_path: Path) -> Config:
    return tiny.config(model_dir, task_dir, tmp_path / "run", model={"micro_batch": 2})


@pytest.fixture
def world() -> Iterator[FakeRay]:
    with fake_ray() as world:
        yield world


def expected(config: Config) -> Rewards:
    return SyntheticScorer(config, load_task(config.task)).score(latents())


def test_a_search_without_faults(config: Config, world: FakeRay) -> None:
    notes = Notes()
    with pool_of(config, 3, Synthetic, notes) as pool:
        assert np.array_equal(pool.score(latents()), expected(config))
        assert pool.workers == 3
    assert world.living == []
    assert notes.warnings == []


@pytest.mark.parametrize("late", [2, 5, 8, 12, 20])
def test_an_actor_that_leaves_and_the_one_in_its_place_answer_for_their_own_units(
    late: int, config: Config, world: FakeRay
) -> None:
    """The leaving one still computes when the other has been given work."""
    notes = Notes()
    with pool_of(config, 2, Synthetic, notes) as pool:
        pool.score(latents())
        begun = world.looks
        world.held = lambda ref: (
            ref.method == "run"
            and (ref.actor.number == 0 or len(world.actors) == 2)
            and world.looks < begun + late
        )
        world.drained = {"node-0"}
        world.now += 10
        assert np.array_equal(pool.score(latents()), expected(config))
        world.held = lambda ref: False
        assert np.array_equal(pool.score(latents()), expected(config))
        assert len(world.actors) == 3
    assert len(notes.warnings) == 1


ERRORS = ray.exceptions


def test_whatever_ray_raises_has_one_parent() -> None:
    """For which the driver looks last: so one error stands below for all that it does not tell."""
    found = [each for each in vars(ERRORS).values() if isinstance(each, type)]
    raised = {each for each in found if issubclass(each, Exception)}
    assert {ERRORS.WorkerCrashedError, ERRORS.RuntimeEnvSetupError} < raised
    assert [each for each in raised if not issubclass(each, ERRORS.RayError)] == []


@pytest.mark.parametrize(
    "error",
    [
        ERRORS.GetTimeoutError("none in 60 seconds"),
        ERRORS.ObjectLostError("1" * 56, Address(), ""),
        ERRORS.NodeDiedError("gone"),
        ERRORS.ActorUnavailableError("not there", None),
        ERRORS.ActorDiedError(),
        ERRORS.OutOfMemoryError("the memory monitor killed it"),
        ERRORS.RaySystemError("a system error"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("method", ["hello", "load", "run"])
def test_whatever_ray_raises_once_costs_an_actor_and_changes_no_reward(
    method: str, error: Exception, config: Config, world: FakeRay
) -> None:
    world.wrong = lambda ref: error if (ref.method, ref.actor.number) == (method, 0) else None
    with pool_of(config, 2, Synthetic, Notes()) as pool:
        assert np.array_equal(pool.score(latents()), expected(config))
        assert world.actors[0].killed


@pytest.mark.parametrize(
    "error",
    [
        ERRORS.ActorDiedError(),
        ERRORS.OutOfMemoryError("the memory monitor killed it"),
        ERRORS.RaySystemError("a system error"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("method", ["hello", "load", "run"])
def test_what_goes_wrong_again_and_again_ends_the_search(
    method: str, error: Exception, config: Config, world: FakeRay
) -> None:
    world.wrong = lambda ref: error if ref.method == method else None
    with (
        pytest.raises(ScorerError, match=r"\(cluster\.failures\)") as caught,
        pool_of(config, 2, Synthetic, Notes()) as pool,
    ):
        pool.score(latents())
    assert len(str(caught.value).splitlines()) == 1
    assert world.living == []


def test_actors_that_can_never_be_reached_end_the_search(config: Config, world: FakeRay) -> None:
    """As behind a firewall that lets Ray's own ports pass, and not those of its workers."""
    world.wrong = lambda ref: ERRORS.ActorUnavailableError("not there", None)
    with pytest.raises(ScorerError, match="cannot be reached"):
        pool_of(config, 2, Synthetic, Notes())


def test_a_machine_on_which_none_can_start_does_not_end_a_search_that_others_are_about_to_begin(
    config: Config, world: FakeRay
) -> None:
    """There one fails at once, again and again, while the other one loads."""
    notes = Notes()
    died = ERRORS.ActorDiedError()
    world.wrong = lambda ref: died if ref.method == "load" and ref.actor.number else None
    world.held = lambda ref: ref.method == "load" and world.now < 30
    with pool_of(config, {"min": 1, "max": 2}, Synthetic, notes) as pool:
        assert np.array_equal(pool.score(latents()), expected(config))


def test_a_pause_after_failed_starts_does_not_keep_a_search_below_its_minimum(
    config: Config, world: FakeRay
) -> None:
    notes = Notes()
    died = ERRORS.ActorDiedError()
    bad = True
    world.wrong = lambda ref: died if bad and ref.method == "load" and ref.actor.number else None
    with pool_of(config, {"min": 1, "max": 2}, Synthetic, notes) as pool:
        while not notes.said("the next one is started in 64 seconds"):
            pool._fleet.outcomes()
        bad = False
        before = world.now
        killed = ERRORS.ActorDiedError()
        world.wrong = lambda ref: killed if ref.actor.number == 0 else None
        assert np.array_equal(pool.score(latents()), expected(config))
        assert world.now < before + 10


class Another(Synthetic):
    """The second one has another canary."""

    made = 0

    def load(self, config: Any, task: Any, threads: int) -> Arrival:
        arrival = super().load(config, task, threads)
        Another.made += 1
        return arrival if Another.made == 1 else Arrival(arrival.lengths, "another")


def test_two_kinds_of_machines_that_arrive_at_once_are_no_error_where_one_is_enough(
    config: Config, world: FakeRay
) -> None:
    Another.made = 0
    notes = Notes()
    with pool_of(config, {"min": 1, "max": 2}, Another, notes) as pool:
        assert np.array_equal(pool.score(latents()), expected(config))
        assert pool.workers == 1
    assert notes.said("It is not used.")


def test_answers_of_an_earlier_call_are_not_taken_for_those_of_a_later_one(
    config: Config, world: FakeRay
) -> None:
    """One runs out of memory; the other one's answer, of the larger micro-batches, comes later."""
    larger = tiny.config(
        Path(config.model.name), Path(str(config.task.data)), model={"micro_batch": 4}
    )
    pool = pool_of(larger, 2, Synthetic, Notes())
    world.wrong = lambda ref: (
        OutOfMemoryError("short") if ref.method == "run" and ref.arguments[0][0].rows > 2 else None
    ) if ref.actor.number == 0 else None  # fmt: skip
    world.held = lambda ref: ref.actor.number == 1 and ref.method == "run" and world.looks % 7 < 5
    assert np.array_equal(pool.score(latents()), expected(config))
    assert pool.micro_batch == 2
    pool.close()
    assert world.living == []


@pytest.mark.parametrize("moment", range(1, 12))
def test_control_c_at_any_look_leaves_no_actor(moment: int, config: Config, world: FakeRay) -> None:
    def interrupt() -> None:
        if world.looks == moment:
            raise KeyboardInterrupt

    world.script = interrupt
    with pytest.raises(KeyboardInterrupt), pool_of(config, 2, Synthetic, Notes()) as pool:
        while True:
            pool.score(latents())
    assert world.living == []


def test_a_hang_names_the_setting_that_says_when(config: Config, world: FakeRay) -> None:
    def held(ref: Ref) -> bool:
        return ref.method == "run"

    notes = Notes()
    world.held = held
    with (
        pool_of(config, 1, Synthetic, notes, unit_timeout=1) as pool,
        pytest.raises(ScorerError, match=r"no answer for \d+ seconds \(cluster\.unit_timeout\)"),
    ):
        pool.score(latents())
    assert notes.said("cluster.unit_timeout")


def test_a_search_for_which_only_refused_machines_are_left_says_so(
    config: Config, world: FakeRay
) -> None:
    Another.made = 0
    with pool_of(config, 1, Another, Notes(), wait_timeout=30) as pool:
        world.wrong = lambda ref: ERRORS.ActorDiedError() if ref.actor.number == 0 else None
        world.script = lambda: setattr(world, "room", 1 if len(world.actors) < 3 else 0)
        with pytest.raises(ScorerError, match=r"^0 of at least 1 .* otherwise: 1, see .*mixed_har"):
            pool.score(latents())
