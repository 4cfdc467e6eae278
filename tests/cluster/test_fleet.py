"""Actors that are started, proved and replaced, while machines come and go: on a real Ray."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import failing_actors
import numpy as np
import pytest
import ray
import tiny
from clusters import STORE, Notes, machines, make_pool, one_machine
from processes import alive, eventually
from scorer_contract import latents

from cliptune.config import Config
from cliptune.errors import ModelError, ScorerError
from cliptune.synthetic import SyntheticScorer
from cliptune.task import load_task
from cliptune.types import Rewards
from cluster.machines import give_notice
from cluster.pool import ActorPool

pytestmark = pytest.mark.timeout(200, method="thread")


@pytest.fixture
def config(model_dir: Path, task_dir: Path, tmp_path: Path) -> Config:
    return tiny.config(model_dir, task_dir, tmp_path / "run", model={"micro_batch": 4})


def expected(config: Config) -> Rewards:
    return SyntheticScorer(config, load_task(config.task)).score(latents())


def scores_as_ever(pool: ActorPool) -> bool:
    return np.array_equal(pool.score(latents()), expected(pool.config))


def scoring_until(pool: ActorPool, holds: Callable[[], bool]) -> None:
    """The pool looks around while it scores; go on until it has seen what is to be seen."""
    assert eventually(lambda: scores_as_ever(pool) and holds())


@pytest.fixture(scope="class")
def one_ray(home: Path) -> Iterator[None]:
    with one_machine(cpus=2):
        yield


@pytest.mark.usefixtures("one_ray")
class TestOnOneMachine:
    @pytest.mark.parametrize(
        "actor", [failing_actors.DiesLoadingOnce, failing_actors.FailsLoadingOnce]
    )
    def test_an_actor_that_cannot_load_once_is_replaced(self, actor: Any, config: Config) -> None:
        with make_pool(config, 1, actor) as pool:
            assert failing_actors.beside(config, "happened").exists()
            assert pool.workers == 1
            assert alive(pool.pids[0])
            assert scores_as_ever(pool)

    def test_actors_that_never_load_end_the_search_with_the_last_reason(
        self, config: Config
    ) -> None:
        with pytest.raises(ScorerError) as caught:
            make_pool(config, 2, failing_actors.DiesLoading, failures=2)
        message = str(caught.value)
        assert message.startswith(
            "2 starts of actors failed in a row (cluster.failures). The actor"
        )
        assert " died. What was scored before is in the journal." in message

    def test_a_mistake_is_said_at_once_and_not_tried_again(self, config: Config) -> None:
        failing_actors.beside(config, "happened").touch()
        with pytest.raises(ModelError, match=r"^model\.name: nothing there\.$"):
            make_pool(config, 1, failing_actors.LoadsForTheFirst)

    def test_a_model_that_not_all_can_load_ends_the_search_if_all_are_needed(
        self, config: Config
    ) -> None:
        with pytest.raises(ScorerError, match=r"could not load the model: model\.name: nothing"):
            make_pool(config, 2, failing_actors.LoadsForTheFirst, failures=1)

    def test_a_model_that_not_all_can_load_is_a_warning_if_enough_can(self, config: Config) -> None:
        notes, actors = Notes(), {"min": 1, "max": 2}
        with make_pool(config, actors, failing_actors.LoadsForTheFirst, notes, failures=1) as pool:
            scoring_until(pool, lambda: notes.said("could not load the model"))
            assert pool.workers == 1
        assert notes.said("the next one is started in 2 seconds")

    def test_actors_that_are_not_ready_in_time_end_the_search_with_the_setting_that_says_when(
        self, config: Config
    ) -> None:
        with pytest.raises(ScorerError, match=r"was not ready .*cluster\.start_timeout"):
            make_pool(config, 1, failing_actors.NeverLoads, start_timeout=1, failures=1)

    def test_an_actor_that_rounds_otherwise_is_refused(self, config: Config) -> None:
        with pytest.raises(ScorerError, match=r"rounds otherwise .*cluster\.mixed_hardware=true"):
            make_pool(config, 2, failing_actors.RoundsOtherwise)

    def test_an_actor_that_rounds_otherwise_is_taken_if_that_is_wanted(
        self, config: Config
    ) -> None:
        with make_pool(config, 2, failing_actors.RoundsOtherwise, mixed_hardware=True) as pool:
            assert pool.workers == 2

    def test_later_actors_that_round_otherwise_are_not_used(self, config: Config) -> None:
        class EnoughError(Exception):
            pass

        class UntilRefused(Notes):
            def warning(self, message: str) -> None:
                if message.endswith("It is not used."):
                    raise EnoughError

        with make_pool(config, 1, failing_actors.RoundsOtherwise, UntilRefused()) as pool:
            os.kill(pool.pids[0], signal.SIGKILL)
            with pytest.raises(EnoughError):
                pool.score(latents())
            assert pool.workers == 0

    def test_a_search_waits_for_room_and_says_so_until_its_time_is_over(
        self, config: Config, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cluster.fleet.SILENT", 0.5)
        notes, synthetic = Notes(), failing_actors.Synthetic
        with make_pool(config, 1, synthetic) as pool:
            with pytest.raises(ScorerError, match=r"^[01] of at least 2 .*cluster\.wait_timeout"):
                make_pool(config, 2, synthetic, notes, wait_timeout=2)
            assert notes.said(" of at least 2 actors have a place on the cluster, with 1 CPUs and")
            assert notes.said("(free there: 0 CPUs, 0 GPUs): the search waits for the rest.")
            assert scores_as_ever(pool)
        with make_pool(config, 2, synthetic) as pool:  # nothing was left behind
            assert scores_as_ever(pool)


ONE = {"num_cpus": 1}


@pytest.mark.slow
class TestOnSeveralMachines:
    @pytest.fixture(autouse=True)
    def quick_to_say(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cluster.fleet.SILENT", 0.5)

    def test_a_machine_that_dies_takes_nothing_with_it(self, config: Config, home: Path) -> None:
        notes = Notes()
        with (
            machines(ONE, ONE) as (cluster, (_, victim)),
            make_pool(config, 2, failing_actors.Synthetic, notes) as pool,
        ):
            assert scores_as_ever(pool)
            cluster.remove_node(victim, allow_graceful=False)
            scoring_until(pool, lambda: pool.workers == 1)
            assert scores_as_ever(pool)
        assert notes.said(": it is replaced.")

    def test_all_machines_die_and_come_back(self, config: Config, home: Path) -> None:
        class Returns(Notes):
            """Brings a machine back once the search has said that it waits."""

            def warning(self, message: str) -> None:
                super().warning(message)
                if "the search waits" in message:
                    cluster.add_node(**ONE, object_store_memory=STORE)

        notes = Returns()
        with (
            machines(ONE) as (cluster, (only,)),
            make_pool(config, 1, failing_actors.Synthetic, notes) as pool,
        ):
            assert scores_as_ever(pool)
            cluster.remove_node(only, allow_graceful=False)
            assert scores_as_ever(pool)
            assert pool.workers == 1
        assert notes.said("0 of at least 1 actors have a place")

    def test_below_the_minimum_the_search_waits_though_an_actor_is_left(
        self, config: Config, home: Path
    ) -> None:
        class Returns(Notes):
            def warning(self, message: str) -> None:
                super().warning(message)
                if "1 of at least 2 actors" in message:
                    cluster.add_node(**ONE, object_store_memory=STORE)

        notes, actors = Returns(), {"min": 2, "max": 3}
        with (
            machines(ONE, ONE) as (cluster, (_, victim)),
            make_pool(config, actors, failing_actors.Synthetic, notes) as pool,
        ):
            cluster.remove_node(victim, allow_graceful=False)
            scoring_until(pool, lambda: notes.said("it is replaced"))
            assert scores_as_ever(pool)
            assert pool.workers == 2
        assert notes.said("2 actors have their place now: the search goes on.")

    def test_a_machine_that_joins_is_put_to_work(self, config: Config, home: Path) -> None:
        notes = Notes()
        with machines(ONE) as (cluster, _):
            pool = make_pool(config, {"min": 1, "max": 2}, failing_actors.Synthetic, notes)
            with pool:
                assert pool.workers == 1
                cluster.add_node(**ONE, object_store_memory=STORE)
                scoring_until(pool, lambda: pool.workers == 2)
                assert scores_as_ever(pool)
        assert not notes.said("it is replaced")

    def test_fake_gpus_are_shared_out_one_an_actor(self, config: Config, home: Path) -> None:
        one_gpu = {"num_cpus": 1, "num_gpus": 1}
        with (
            machines(one_gpu, one_gpu, {"num_cpus": 4}),
            make_pool(config, 2, failing_actors.Synthetic, gpus_per_actor=1) as pool,
        ):
            places = [worker.place for worker in pool._fleet.ready]
            assert [place.gpus for place in places if place] == [("0",), ("0",)]
            assert len({place.node for place in places if place}) == 2

    def test_a_preemption_notice_moves_the_units_before_the_machine_goes(
        self, config: Config, home: Path
    ) -> None:
        """The actor there dawdles for as long as the test takes: its units must be moved."""
        notes = Notes()
        with (
            machines(ONE, ONE),
            make_pool(config, 2, failing_actors.Dawdles, notes) as pool,
        ):
            assert scores_as_ever(pool)
            failing_actors.beside(config, "dawdle").touch()
            for worker in pool._fleet.ready:
                fleet: Any = pool._fleet
                fleet.call(worker, "run", [], None, seconds=600)  # one of them hangs in it
            while len(pool._fleet.busy) > 1:
                fleet.outcomes()
            (stuck,) = pool._fleet.busy
            assert stuck.place is not None
            address = ray.get_runtime_context().gcs_address
            assert give_notice(address, stuck.place.node)
            scoring_until(pool, lambda: pool.workers == 1)
            assert stuck.leaving
            failing_actors.beside(config, "go on").touch()
            scoring_until(pool, lambda: stuck not in fleet._workers)
        assert notes.said("leaves: its machine is about to go")

    def test_a_small_object_store_is_enough(self, config: Config, home: Path) -> None:
        """Rewards of 400 generations and their latents are far more than it holds."""
        latents = np.random.default_rng(0).standard_normal((2_000, 5_000))  # 80 MB
        wide = config.model_copy(
            update={"prompt": config.prompt.model_copy(update={"dimension": 5_000})}
        )
        with (
            machines({"num_cpus": 2, "object_store_memory": 80 * 2**20}),
            make_pool(wide, 2, failing_actors.Synthetic) as pool,
        ):
            reference = SyntheticScorer(wide, load_task(wide.task)).score(latents)
            for generation in range(4):
                assert np.array_equal(pool.score(latents, generation), reference)
