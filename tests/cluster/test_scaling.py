"""Synthetic actors behind the real pool, on a real Ray; how long it takes is nobody's business."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from clusters import Notes, one_machine

from cliptune.synthetic import SyntheticScorer
from cluster import scaling
from cluster.scaling import Row
from cluster.synthetic import own_memory

pytestmark = pytest.mark.timeout(200, method="thread")


@pytest.fixture(scope="module")
def one_ray(home: Path) -> Iterator[None]:
    with one_machine(cpus=2):
        yield


def row(actors: int, overhead: float, driver: float) -> Row:
    return Row(actors, 256, 1.0, overhead, overhead, 0.0, float(actors), driver, driver, 0)


@pytest.mark.parametrize("actors", [1, 2, 3, 8, 32, 64, 100, 1_000])
def test_each_actor_has_a_whole_number_of_equal_units(actors: int) -> None:
    config = scaling.settings(actors)
    scorer = SyntheticScorer(config, scaling.made_up_task())
    scored = np.zeros((config.search.population, config.prompt.dimension))
    counted = []
    scorer.run = lambda units, latents: (
        counted.extend(units)
        or [  # type: ignore[method-assign]
            np.zeros(unit.shape(2)) for unit in units
        ]
    )
    scorer.score(scored)
    assert len({unit.tokens for unit in counted}) == 1
    assert len(counted) == scaling.units_a_generation(config) >= 256
    assert len(counted) % actors == 0


def test_a_measurement_says_what_was_done(one_ray: None) -> None:
    notes = Notes()
    found = scaling.measure(2, 0.001, 2, notes)
    assert (found.actors, found.units) == (2, 256)
    assert found.work == pytest.approx(0.128)
    assert 2 <= found.calls <= 6 + found.retries
    assert found.overhead >= found.least
    assert 0 < found.driver_main <= found.driver
    assert notes.warnings == []


def test_synthetic_actors_score_as_a_synthetic_scorer_and_without_torch(one_ray: None) -> None:
    with scaling.synthetic_pool(2, 0.0, Notes()) as pool:
        latents = scaling.latents(pool.config)()
        expected = SyntheticScorer(pool.config, pool.task).score(latents)
        assert np.array_equal(pool.score(latents), expected)
        assert not any(one.torch for one in scaling.told(pool))


def test_the_driver_needs_no_torch_either() -> None:
    code = "import sys, jobs.scaling; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_memory_is_looked_at_after_some_generations(one_ray: None) -> None:
    first, last = scaling.growth(3, [1, 3], Notes())
    assert (first.generation, last.generation) == (1, 3)
    assert len(last.actors) == 2
    assert min(last.driver, *last.actors) > 2**20


def test_memory_is_without_what_is_shared(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nVmRSS:\t     300 kB\nRssShmem:\t     100 kB\n")
    assert own_memory(status) == 200 * 1024


def test_the_model_is_a_line_through_what_was_measured() -> None:
    rows = [row(2, 0.012, 0.003), row(10, 0.020, 0.011), row(50, 0.060, 0.051)]
    (modelled,) = scaling.model(rows, [1_000])
    assert modelled.actors == 1_000
    assert modelled.here == pytest.approx(1.01)
    assert modelled.elsewhere == pytest.approx(1.001)


def test_one_measurement_makes_no_model() -> None:
    assert scaling.model([row(2, 0.012, 0.003)], [1_000]) == []
