"""ActorPool on a real local Ray: the scorer contract, and what dies on the way."""

import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import failing_actors
import numpy as np
import pyarrow as pa
import pytest
import ray
import tiny
import torch
from processes import alive, eventually
from scorer_contract import ScorerContract, journal_bytes, latents

from cliptune.config import Config, validate
from cliptune.errors import ModelError, ScorerError
from cliptune.local import LocalScorer
from cliptune.loop import Observer, Progress, search
from cliptune.task import load_task
from cliptune.types import Rewards
from cluster.config import ClusterSearch
from cluster.pool import ActorPool
from cluster.session import fit, nodes

# Ray's waiting swallows what a signal's handler raises: only a thread can end a test that hangs.
pytestmark = pytest.mark.timeout(200, method="thread")


@pytest.fixture(scope="module", autouse=True)
def one_ray(home: Path) -> Iterator[None]:
    """Results are equal where actors are of one kind, so the reference has one thread as well."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        support = str(Path(failing_actors.__file__).parent)
        patch.setenv("PYTHONPATH", support, prepend=os.pathsep)
        ray.init(
            address="local",
            num_cpus=6,  # the shared pool of 2 and the largest beside it
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        yield
        ray.shutdown()
    torch.set_num_threads(threads)


def fitted(config: Config, actors: int, **cluster: Any) -> ClusterSearch:
    cluster = {"actors": actors, "start_timeout": 100, **cluster}
    tree = {**config.model_dump(mode="json"), "cluster": cluster}
    return fit(validate(ClusterSearch, tree), nodes())


def make_pool(config: Config, actors: int, **cluster: Any) -> ActorPool:
    return ActorPool(fitted(config, actors, **cluster), load_task(config.task))


@dataclass(frozen=True)
class Reference:
    """What a LocalScorer says."""

    rewards: Rewards
    journal: dict[str, bytes]
    scorer: LocalScorer


@pytest.fixture(scope="module")
def reference(
    model_dir: Path, task_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Reference:
    run_dir = tmp_path_factory.mktemp("reference") / "run"
    config = tiny.config(model_dir, task_dir, run_dir)
    scorer = LocalScorer(config, load_task(config.task))
    rewards = scorer.score(latents())
    search(config, scorer)
    return Reference(rewards, journal_bytes(run_dir), scorer)


@pytest.fixture(scope="module")
def pool(model_dir: Path, task_dir: Path) -> Iterator[ActorPool]:
    """Two actors for all tests that leave them as good as they were."""
    with make_pool(tiny.config(model_dir, task_dir), 2) as pool:
        yield pool


class TestActorPool(ScorerContract):
    @pytest.fixture
    def scorer(self, pool: ActorPool) -> ActorPool:
        return pool

    def make(self, config: Config) -> ActorPool:
        return make_pool(config, 1)

    def end(self, scorer: ActorPool) -> None:
        scorer.close()


@pytest.mark.parametrize("actors", [1, 4])  # fewer than subnetworks, and more
def test_rewards_do_not_depend_on_the_number_of_actors(
    actors: int, model_dir: Path, task_dir: Path, tmp_path: Path, reference: Reference
) -> None:
    config = tiny.config(model_dir, task_dir, tmp_path / "run")
    with make_pool(config, actors) as pool:
        assert len(set(pool.pids)) == pool.workers == actors
        assert np.array_equal(pool.score(latents()), reference.rewards)
        search(config, pool)
    assert journal_bytes(tmp_path / "run") == reference.journal


def test_two_actors_give_the_rewards_of_a_local_scorer(
    pool: ActorPool, reference: Reference
) -> None:
    assert pool.workers == 2
    assert np.array_equal(pool.score(latents()), reference.rewards)


def test_the_facts_of_the_model_are_a_local_scorers(pool: ActorPool, reference: Reference) -> None:
    assert pool.facts() == reference.scorer.facts()


class KillsBetweenGenerations(Observer):
    """Kills an actor after the first generation."""

    def __init__(self, pool: ActorPool) -> None:
        self._pool = pool

    def generation(self, progress: Progress) -> None:
        if progress.generation.number == 0:
            os.kill(self._pool.pids[0], signal.SIGKILL)


def test_killed_actor_is_replaced_and_the_journal_is_the_same(
    model_dir: Path, task_dir: Path, tmp_path: Path, reference: Reference
) -> None:
    config = tiny.config(model_dir, task_dir, tmp_path / "run")
    with make_pool(config, 2) as pool:
        victim, survivor = pool.pids
        search(config, pool, KillsBetweenGenerations(pool))
        assert journal_bytes(tmp_path / "run") == reference.journal
        assert pool.pids[0] != victim
        assert pool.pids[1] == survivor
        assert pool.usage.retries == 1
    assert retries_by_generation(tmp_path / "run") == [0, 1, 0]


def retries_by_generation(run_dir: Path) -> list[int]:
    return [
        pa.ipc.open_file(pa.BufferReader(file.read_bytes())).read_all()["retries"][0].as_py()
        for file in sorted((run_dir / "telemetry").iterdir())
    ]


def test_actor_killed_amid_a_unit_is_replaced_and_the_rewards_are_the_same(
    model_dir: Path, task_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.config(model_dir, task_dir, tmp_path / "run")
    monkeypatch.setattr("cluster.pool.ScoringActor", failing_actors.DiesAmidAUnit)
    with make_pool(config, 2) as pool:
        before = pool.pids
        rewards = pool.score(latents())
        assert pool.usage.retries == 1
        assert len(set(before) & set(pool.pids)) == 1
    assert np.array_equal(rewards, LocalScorer(config, load_task(config.task)).score(latents()))


def test_memory_that_runs_out_in_an_actor_makes_all_micro_batches_smaller(
    model_dir: Path, task_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.config(model_dir, task_dir, model={"micro_batch": 8})
    monkeypatch.setattr("cluster.pool.ScoringActor", failing_actors.HoldsTwoRows)
    with make_pool(config, 2) as pool:
        rewards = pool.score(latents())
        assert pool.micro_batch == 2
    narrow = tiny.config(model_dir, task_dir, model={"micro_batch": 2})
    assert np.array_equal(rewards, LocalScorer(narrow, load_task(narrow.task)).score(latents()))


def test_a_prompt_is_told_by_the_replacement_of_a_killed_actor(
    pool: ActorPool, reference: Reference
) -> None:
    before = pool.usage.retries
    os.kill(pool.pids[0], signal.SIGKILL)
    assert np.array_equal(pool.prompt(latents()[0]), reference.scorer.prompt(latents()[0]))
    assert pool.usage.retries == before + 1


def test_a_unit_that_kills_every_actor_ends_the_search_with_the_setting_that_says_when(
    model_dir: Path, task_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.pool.ScoringActor", failing_actors.DiesOfAnyUnit)
    with make_pool(tiny.config(model_dir, task_dir), 1, failures=2) as pool:
        with pytest.raises(ScorerError, match=r"2 actors died .*cluster\.failures"):
            pool.score(latents())
        assert pool.usage.retries == 2


def test_an_actor_that_dies_while_loading_is_replaced(
    model_dir: Path, task_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.config(model_dir, task_dir, tmp_path / "run")
    monkeypatch.setattr("cluster.pool.ScoringActor", failing_actors.DiesLoadingOnce)
    with make_pool(config, 1) as pool:
        assert (tmp_path / "died").exists()
        assert pool.workers == 1
        assert alive(pool.pids[0])


def test_actors_that_all_die_while_loading_end_the_search(
    model_dir: Path, task_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.pool.ScoringActor", failing_actors.DiesLoading)
    with pytest.raises(ScorerError, match=r"2 actors died .*cluster\.failures"):
        make_pool(tiny.config(model_dir, task_dir), 1, failures=2)


def test_actors_that_are_not_ready_in_time_end_the_search_with_the_setting_that_says_when(
    model_dir: Path, task_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.pool.ScoringActor", failing_actors.NeverLoads)
    with pytest.raises(ScorerError, match=r"^1 of 1 actors .*cluster\.start_timeout"):
        make_pool(tiny.config(model_dir, task_dir), 1, start_timeout=1)


def test_a_model_that_cannot_be_loaded_is_said_in_one_sentence(
    task_dir: Path, tmp_path: Path
) -> None:
    config = tiny.config(tmp_path / "nothing", task_dir)
    with pytest.raises(ModelError) as caught:
        make_pool(config, 1)
    message = str(caught.value)
    assert type(caught.value) is ModelError
    assert str(tmp_path / "nothing") in message
    assert len(message.splitlines()) == 1
    assert "ray" not in message.lower()
    assert "traceback" not in message.lower()


def test_closing_ends_the_actors_processes_even_after_an_error(
    model_dir: Path, task_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.pool.ScoringActor", failing_actors.Idle)
    with (
        pytest.raises(ZeroDivisionError),
        make_pool(tiny.config(model_dir, task_dir), 2) as pool,
    ):
        pids = pool.pids
        assert all(alive(pid) for pid in pids)
        _ = 1 // 0
    assert len(set(pids)) == 2
    assert eventually(lambda: not any(alive(pid) for pid in pids))
    assert pool.workers == 0
    pool.close()  # once more does no harm
