"""Synthetic actors behind the real pool, on a real Ray; how long it takes is nobody's business."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from clusters import Notes, one_machine

from cliptune.synthetic import SyntheticScorer
from cluster import scaling
from cluster.scaling import Row, Watch
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


def test_a_measurement_says_what_was_done_and_takes_medians_without_the_work(
    one_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = Watch(0.9, 0.03, 0.01), Watch(0.2, 0.02, 0.02), Watch(0.3, 0.07, 0.04)
    rested = Watch(0.15, 1.0, 1.0), Watch(0.8, 1.0, 1.0), Watch(0.14, 1.0, 1.0)
    watches = iter((*scored, *rested))
    monkeypatch.setattr(Watch, "of", lambda work: (work(), next(watches))[1])
    notes = Notes()
    found = scaling.measure(2, 0.001, 3, notes)
    assert (found.actors, found.units) == (2, 256)
    assert found.work == pytest.approx(0.128)
    assert 2 <= found.calls <= 6 + found.retries
    seconds = found.overhead, found.least, found.bare, found.driver, found.driver_main
    assert seconds == pytest.approx((0.172, 0.072, 0.022, 0.03, 0.02))
    assert notes.warnings == []


def test_a_watch_tells_other_threads_from_this_one() -> None:
    busy = 0.05

    def spin() -> None:
        while time.thread_time() < busy:
            pass

    def work() -> None:
        other = threading.Thread(target=spin)
        other.start()
        other.join()

    watch = Watch.of(work)
    assert watch.wall >= busy
    assert watch.process - watch.thread > busy / 2


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
