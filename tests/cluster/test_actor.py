"""ScoringActor is a plain class: here it is used without Ray."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from scorer_contract import latents

from cliptune.config import Config
from cliptune.errors import ModelError
from cliptune.local import LocalScorer
from cliptune.scorer import Unit
from cliptune.subnetwork import FULL_NETWORK, ensemble
from cliptune.task import load_task
from cluster.actor import ScoringActor, at_hand


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """An actor sets its process's threads; here that process is the tests'."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def config(model_dir: Path, task_dir: Path) -> Config:
    return tiny.config(model_dir, task_dir)


@pytest.fixture
def actor(config: Config) -> ScoringActor:
    actor = ScoringActor()
    actor.load(config, load_task(config.task), 1)
    return actor


@pytest.fixture
def local(config: Config, actor: ScoringActor) -> LocalScorer:
    return LocalScorer(config, load_task(config.task))


def test_loading_tells_what_the_pool_needs_to_know(config: Config) -> None:
    arrival = ScoringActor().load(config, load_task(config.task), 1)
    local = LocalScorer(config, load_task(config.task))
    assert arrival.lengths == local.lengths
    assert arrival.canary == local.canary()


def test_it_computes_on_the_threads_that_it_is_given(config: Config) -> None:
    count = torch.get_num_threads() + 1
    ScoringActor().load(config, load_task(config.task), count)
    assert torch.get_num_threads() == count


def test_rewards_equal_a_local_scorers(
    config: Config, actor: ScoringActor, local: LocalScorer
) -> None:
    units = [
        unit
        for network in ensemble(config.ensemble, 0)
        for unit in local.units(network, "train", 6, reduce=True)
    ]
    results, seconds = actor.run(units, latents())
    expected = local.run(units, latents())
    assert [result.tolist() for result in results] == [result.tolist() for result in expected]
    assert seconds > 0


def test_class_scores_equal_a_local_scorers(actor: ScoringActor, local: LocalScorer) -> None:
    for population, given in ((None, None), (2, latents(2))):
        for split in ("test", "train"):
            units = local.units(FULL_NETWORK, split, population, reduce=False)
            results, _ = actor.run(units, given)
            for unit, result, expected in zip(units, results, local.run(units, given), strict=True):
                assert result.shape == unit.shape(2)
                assert np.array_equal(result, expected)


def test_results_stand_in_the_order_of_the_units(config: Config, actor: ScoringActor) -> None:
    units = [
        Unit(network, "train", (i, i + 1), (0, 3, 5), 20, reduce=True)
        for network in ensemble(config.ensemble, 0)
        for i in range(3)
    ]
    forth, _ = actor.run(units, latents())
    back, _ = actor.run(units[::-1], latents())
    assert [result.tolist() for result in forth] == [result.tolist() for result in back[::-1]]
    assert len({float(result.sum()) for result in forth}) == len(units)


def test_seconds_are_those_of_this_call_alone(config: Config, actor: ScoringActor) -> None:
    unit = Unit(FULL_NETWORK, "train", (0, 1), (0, 3, 5), 20, reduce=True)
    calls = [actor.run([unit], latents())[1] for _ in range(3)]
    assert sum(calls) == pytest.approx(actor._scorer.usage.device_seconds)


def test_no_units_take_no_results(actor: ScoringActor) -> None:
    assert actor.run([], latents())[0] == []


def test_what_it_tells_equals_a_local_scorers(actor: ScoringActor, local: LocalScorer) -> None:
    assert np.array_equal(actor.prompt(latents()[0]), local.prompt(latents()[0]))
    assert actor.facts() == local.facts()


@pytest.mark.parametrize("readout", ["auto", "masked-lm", "encoder"])
def test_a_model_that_is_not_there_is_an_error_of_ours(
    readout: str, task_dir: Path, tmp_path: Path
) -> None:
    config = tiny.config(tmp_path / "nothing", task_dir, model={"readout": readout})
    with pytest.raises(ModelError, match="nothing"):
        ScoringActor().load(config, load_task(config.task), 1)


def test_paths_into_the_jobs_package_are_those_of_this_machines_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "_ray_pkg_abc"
    here.mkdir()
    monkeypatch.chdir(here)
    config = tiny.config(Path("/head/files/_ray_pkg_abc/model"), Path("/data"))
    assert at_hand(config).model.name == str(here / "model")
    own = {"readout": "/head/files/_ray_pkg_abc/mine.py:Milder"}
    assert at_hand(tiny.config(Path("m"), Path("d"), model=own)).model.readout == str(
        here / "mine.py:Milder"
    )
    for other in ("/models/_ray_pkg_other/model", "org/model"):
        assert at_hand(tiny.config(Path(other), Path("/data"))).model.name == other
