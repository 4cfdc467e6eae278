"""ActorPool on a real local Ray: the scorer contract, and what dies on the way."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import failing_actors
import families
import numpy as np
import pyarrow as pa
import pytest
import tiny
import torch
from clusters import Notes, make_pool, one_machine
from processes import alive, eventually
from scorer_contract import ScorerContract, journal_bytes, latents

from cliptune.config import Config
from cliptune.errors import ModelError, ScorerError
from cliptune.local import LocalScorer
from cliptune.loop import search
from cliptune.observer import Observer, Progress
from cliptune.synthetic import SyntheticScorer
from cliptune.task import load_task
from cliptune.types import Rewards
from cluster.pool import ActorPool

# Ray's waiting swallows what a signal's handler raises: only a thread can end a test that hangs.
pytestmark = pytest.mark.timeout(200, method="thread")


@pytest.fixture(scope="module", autouse=True)
def one_ray(home: Path) -> Iterator[None]:
    """Results are equal where actors are of one kind, so the reference has one thread as well."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with one_machine(cpus=6):  # the shared pool of 2 and the largest beside it
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def reference(model_dir: Path, task_dir: Path) -> LocalScorer:
    config = tiny.config(model_dir, task_dir)
    return LocalScorer(config, load_task(config.task))


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


def test_two_actors_give_the_rewards_of_a_local_scorer(
    pool: ActorPool, reference: LocalScorer
) -> None:
    assert pool.workers == 2
    assert np.array_equal(pool.score(latents()), reference.score(latents()))


def test_the_facts_of_the_model_are_a_local_scorers(
    pool: ActorPool, reference: LocalScorer
) -> None:
    assert pool.facts() == reference.facts()
    assert pool.canary() == reference.canary()
    assert pool.lengths == reference.lengths


def test_a_causal_models_rewards_do_not_depend_on_the_number_of_actors(
    task_dir: Path, tmp_path: Path
) -> None:
    """Its prompts are computed for the first micro-batch that an actor is given."""
    config = tiny.config(
        families.save("Llama", tmp_path),
        task_dir,
        task={"template": "{text} . it was {mask}"},
        prompt={"layers": 2},
        model={"micro_batch": 4},
    )
    some = np.random.default_rng(0).standard_normal((6, 2 * 5))
    with make_pool(config, 2) as pool:
        rewards = pool.score(some)
    assert np.array_equal(rewards, LocalScorer(config, load_task(config.task)).score(some))


def test_actor_killed_amid_a_unit_is_replaced_and_the_rewards_are_the_same(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    config = tiny.config(model_dir, task_dir, tmp_path / "run", model={"micro_batch": 4})
    with make_pool(config, 2, failing_actors.DiesAmidAUnit) as pool:
        before = pool.pids
        rewards = pool.score(latents())
        assert pool.usage.retries > 0
        assert len(set(before) & set(pool.pids)) == 1
    assert np.array_equal(rewards, LocalScorer(config, load_task(config.task)).score(latents()))


def test_memory_that_runs_out_in_an_actor_makes_all_micro_batches_smaller(
    model_dir: Path, task_dir: Path
) -> None:
    config = tiny.config(model_dir, task_dir, model={"micro_batch": 8})
    with make_pool(config, 2, failing_actors.HoldsTwoRows) as pool:
        rewards = pool.score(latents())
        assert pool.micro_batch == 2
    narrow = tiny.config(model_dir, task_dir, model={"micro_batch": 2})
    assert np.array_equal(rewards, LocalScorer(narrow, load_task(narrow.task)).score(latents()))


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


# Actors without a model


@pytest.fixture
def config(model_dir: Path, task_dir: Path, tmp_path: Path) -> Config:
    """Of a generation with several units for each of two actors."""
    return tiny.config(model_dir, task_dir, tmp_path / "run", model={"micro_batch": 4})


def expected(config: Config) -> Rewards:
    return synthetic(config).score(latents())


def synthetic(config: Config) -> SyntheticScorer:
    return SyntheticScorer(config, load_task(config.task))


@pytest.fixture
def journal(config: Config, tmp_path: Path) -> dict[str, bytes]:
    """Of a search without actors."""
    here = config.model_copy(update={"run_dir": str(tmp_path / "here")})
    search(here, synthetic(here))
    return journal_bytes(tmp_path / "here")


def test_more_actors_than_subnetworks_write_the_same_journal(
    config: Config, journal: dict[str, bytes], tmp_path: Path
) -> None:
    with make_pool(config, 4, failing_actors.Synthetic) as pool:
        assert len(set(pool.pids)) == pool.workers == 4
        assert np.array_equal(pool.score(latents()), expected(config))
        search(config, pool)
    assert journal_bytes(tmp_path / "run") == journal


class KillsBetweenGenerations(Observer):
    """Kills an actor after the first generation."""

    def __init__(self, pool: ActorPool) -> None:
        self._pool = pool

    def generation(self, progress: Progress) -> None:
        if progress.generation.number == 0:
            os.kill(self._pool.pids[0], signal.SIGKILL)


def test_killed_actor_is_replaced_and_the_journal_is_the_same(
    config: Config, journal: dict[str, bytes], tmp_path: Path
) -> None:
    with make_pool(config, 2, failing_actors.Synthetic) as pool:
        victim, survivor = pool.pids
        search(config, pool, KillsBetweenGenerations(pool))
        assert journal_bytes(tmp_path / "run") == journal
        assert eventually(lambda: pool.workers == 2 or not pool.score(latents()).size)
        assert victim not in pool.pids
        assert survivor in pool.pids
    first, second, _ = retries_by_generation(tmp_path / "run")
    assert first == 0
    assert second > 0


def retries_by_generation(run_dir: Path) -> list[int]:
    return [
        pa.ipc.open_file(pa.BufferReader(file.read_bytes())).read_all()["retries"][0].as_py()
        for file in sorted((run_dir / "telemetry").iterdir())
    ]


def test_a_prompt_is_told_by_another_actor_where_one_was_killed(config: Config) -> None:
    with make_pool(config, 2, failing_actors.Synthetic) as pool:
        os.kill(pool.pids[0], signal.SIGKILL)
        told = pool.prompt(latents()[0])
        assert pool.usage.retries == 1
    assert np.array_equal(told, synthetic(config).prompt(latents()[0]))


@pytest.mark.parametrize(
    ("actor", "why", "actors"),
    [
        (failing_actors.DiesBeforeReplying, "died", 1),
        (failing_actors.DiesBeforeReplying, "died", 2),
        (failing_actors.FailsOnce, "failed with RuntimeError: CUDA error", 1),
        (failing_actors.GivesNanOnce, "gave a result that is not finite", 1),
        (failing_actors.GivesInfinityOnce, "gave a result that is not finite", 1),
        (failing_actors.GivesAnotherShapeOnce, "gave a result that has not the shape", 1),
        (failing_actors.AnswersNothingOnce, "gave a result that has not the shape", 1),
    ],
)
def test_an_actor_that_fails_once_is_replaced_and_the_rewards_are_the_same(
    actor: Any, why: str, actors: int, config: Config
) -> None:
    notes = Notes()
    with make_pool(config, actors, actor, notes) as pool:
        before = pool.pids
        assert np.array_equal(pool.score(latents()), expected(config))
        assert np.array_equal(pool.score(latents()), expected(config))
        assert pool.usage.retries > 0
        assert len(set(before) & set(pool.pids)) == actors - 1
    (said,) = (warning for warning in notes.warnings if "replaced" in warning)  # others may wait
    assert why in said


def test_an_actor_that_hangs_is_ended_and_replaced(config: Config) -> None:
    notes = Notes()
    with make_pool(config, 1, failing_actors.HangsOnce, notes, unit_timeout=1) as pool:
        assert np.array_equal(pool.score(latents()), expected(config))  # shows the usual pace
        failing_actors.beside(config, "hang").touch()
        assert np.array_equal(pool.score(latents()), expected(config))
    hung = int(failing_actors.beside(config, "hanging").read_text())
    assert eventually(lambda: not alive(hung))
    assert "gave no answer" in notes.warnings[0]


def test_what_a_dawdling_actor_has_is_given_to_another_and_the_first_answer_counts(
    config: Config,
) -> None:
    with make_pool(config, 2, failing_actors.Dawdles) as pool:
        assert np.array_equal(pool.score(latents()), expected(config))  # shows the usual pace
        before, calm = pool.pids, pool.usage.retries
        failing_actors.beside(config, "dawdle").touch()
        for generation in range(3):  # all while it dawdles
            assert np.array_equal(pool.score(latents(), generation), expected(config))
        assert pool.usage.retries > calm
        failing_actors.beside(config, "go on").touch()
        for generation in range(3):
            assert np.array_equal(pool.score(latents(), generation), expected(config))
        assert pool.pids == before


def test_a_unit_that_kills_every_actor_is_found_and_named(config: Config) -> None:
    notes = Notes()
    with make_pool(config, 2, failing_actors.DiesOfOneUnit, notes, failures=2) as pool:
        with pytest.raises(ScorerError) as caught:
            pool.score(latents())
        message = str(caught.value)
        assert message.startswith("2 actors were lost over the same micro-batch (cluster.failures)")
        assert "candidates 0 to " in message
        assert "subnetwork 1." in message
        assert "The last one died" in message
        assert len(message.splitlines()) == 1


def test_actors_that_die_of_anything_end_the_search(config: Config) -> None:
    with (
        make_pool(config, 1, failing_actors.DiesOfAnyUnit, failures=2) as pool,
        pytest.raises(ScorerError, match=r"2 actors were lost .*cluster\.failures"),
    ):
        pool.score(latents())


def test_rewards_that_are_never_finite_are_the_models_fault(config: Config) -> None:
    with (
        make_pool(config, 2, failing_actors.AlwaysGivesNan) as pool,
        pytest.raises(ModelError, match="reward of candidate"),
    ):
        pool.score(latents())


def test_results_that_never_have_their_shape_end_the_search(config: Config) -> None:
    with (
        make_pool(config, 2, failing_actors.AlwaysGivesAnotherShape, failures=2) as pool,
        pytest.raises(ScorerError, match=r"2 actors were lost .* has not the shape"),
    ):
        pool.score(latents())


def test_closing_ends_the_actors_processes_even_after_an_error(config: Config) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        make_pool(config, 2, failing_actors.Synthetic) as pool,
    ):
        pids = pool.pids
        assert all(alive(pid) for pid in pids)
        _ = 1 // 0
    assert len(set(pids)) == 2
    assert eventually(lambda: not any(alive(pid) for pid in pids))
    assert pool.workers == 0
    pool.close()  # once more does no harm
