"""Ask and tell: CMA-ES and random search propose the same from the same seed, come what may."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from threadpoolctl import threadpool_limits

from cliptune.errors import StrategyError
from cliptune.strategy import (
    CMAES,
    TERMINATIONS,
    RandomSearch,
    SeparableCMAES,
    Strategy,
    make_strategy,
)
from cliptune.types import Fitness, Latents

Make = Callable[..., Strategy]
BOTH = pytest.mark.parametrize("kind", [CMAES, RandomSearch])


def quadratic(latents: Latents) -> Fitness:
    """Best at (1, 1, ...), where it is 0."""
    return np.asarray(-((latents - 1) ** 2).sum(axis=1))


def proposals(
    strategy: Strategy,
    generations: int = 12,
    between: Callable[[], Any] = lambda: None,
    fitness: Callable[[Latents], Fitness] = quadratic,
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """All that a strategy asks for, `(generations, population, d)`."""
    asked = []
    for _ in range(generations):
        between()
        latents = strategy.ask()
        asked.append(latents.copy())
        between()
        strategy.tell(latents, fitness(latents))
    return np.stack(asked)


@BOTH
def test_proposals_have_a_row_a_candidate(kind: Make) -> None:
    latents = kind(5, 4, 1.0, 0).ask()
    assert latents.shape == (4, 5)
    assert latents.dtype == np.float64


@BOTH
def test_the_first_proposals_are_drawn_around_zero_with_sigma(kind: Make) -> None:
    strategy = kind(300, 40, 0.5, 0)
    latents = strategy.ask()
    assert strategy.step_size == 0.5
    assert latents.std() == pytest.approx(0.5, rel=0.03)
    assert abs(latents.mean()) < 0.02


@BOTH
def test_the_same_seed_proposes_the_same_and_another_seed_others(kind: Make) -> None:
    first, again, other = (proposals(kind(5, 6, 1.0, seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.isin(first, other).any()


@BOTH
def test_draws_of_others_from_numpys_generator_change_no_proposal(kind: Make) -> None:
    quiet = proposals(kind(5, 6, 1.0, 0))
    disturbed = proposals(kind(5, 6, 1.0, 0), between=lambda: np.random.seed(1))
    assert np.array_equal(quiet, disturbed)


@BOTH
def test_numpys_own_generator_is_left_as_it_was(kind: Make) -> None:
    np.random.seed(5)
    before = np.random.get_state()
    proposals(kind(5, 6, 1.0, 0))
    after = np.random.get_state()
    assert all(np.array_equal(b, a) for b, a in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("dimension", "population", "generations"),
    [(150, 12, 40), (300, 20, 10)],
    ids=["eigenvectors", "rank-mu update"],  # where two threads give other bits, at these sizes
)
def test_proposals_do_not_depend_on_the_threads_of_linear_algebra(
    dimension: int, population: int, generations: int
) -> None:
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(proposals(CMAES(dimension, population, 1.0, 0), generations))
    assert np.array_equal(*found)


@BOTH
def test_the_callers_threads_are_given_back(kind: Make) -> None:
    from threadpoolctl import threadpool_info

    with threadpool_limits(2, user_api="blas"):
        before = threadpool_info()
        proposals(kind(5, 6, 1.0, 0), 1)
        assert threadpool_info() == before


def test_cma_es_climbs_a_quadratic() -> None:
    asked = proposals(CMAES(6, 10, 1.0, 0), 60)
    assert quadratic(asked[0]).max() < -1
    assert quadratic(asked[-1]).max() > -1e-3


def test_cma_es_goes_where_fitness_is_higher() -> None:
    up = proposals(CMAES(4, 8, 1.0, 0), 20, fitness=lambda z: z[:, 0])
    down = proposals(CMAES(4, 8, 1.0, 0), 20, fitness=lambda z: -z[:, 0])
    assert up[-1, :, 0].min() > 1
    assert down[-1, :, 0].max() < -1


def test_the_step_size_of_cma_es_shrinks_towards_the_best() -> None:
    strategy = CMAES(4, 8, 1.0, 0)
    proposals(strategy, 40)
    assert 0 < strategy.step_size < 0.1


@pytest.mark.parametrize(("dimension", "population"), [(1, 2), (1, 5), (3, 2)])
def test_cma_es_takes_the_smallest_settings_that_are_allowed(
    dimension: int, population: int
) -> None:
    asked = proposals(CMAES(dimension, population, 1.0, 0), 40)
    assert asked.shape == (40, population, dimension)
    assert np.isfinite(asked).all()


def test_cma_es_survives_candidates_that_are_all_the_same() -> None:
    asked = proposals(CMAES(4, 6, 1.0, 0), 100, fitness=lambda z: np.zeros(len(z)))
    assert np.isfinite(asked).all()


def test_random_search_draws_normal_latents_of_standard_deviation_sigma() -> None:
    asked = proposals(RandomSearch(50, 20, 2.0, 0), 20)
    assert asked.std() == pytest.approx(2.0, rel=0.02)
    assert abs(asked.mean()) < 0.05
    assert (np.abs(asked) < 4.0).mean() == pytest.approx(0.954, abs=0.01)  # within two sigma
    assert len(np.unique(asked)) == asked.size  # no generation comes twice


def test_random_search_learns_nothing() -> None:
    blind = proposals(RandomSearch(5, 6, 1.0, 0), fitness=lambda z: np.zeros(len(z)))
    assert np.array_equal(proposals(RandomSearch(5, 6, 1.0, 0)), blind)


@BOTH
def test_telling_before_asking_is_refused(kind: Make) -> None:
    with pytest.raises(StrategyError, match=r"tell\(\) was called before ask\(\); ask"):
        kind(5, 4, 1.0, 0).tell(np.zeros((4, 5)), np.zeros(4))


@BOTH
def test_telling_twice_is_refused(kind: Make) -> None:
    strategy = kind(5, 4, 1.0, 0)
    latents = strategy.ask()
    strategy.tell(latents, quadratic(latents))
    with pytest.raises(StrategyError, match=r"tell\(\) was called before ask\(\)"):
        strategy.tell(latents, quadratic(latents))


@BOTH
def test_asking_twice_is_refused(kind: Make) -> None:
    strategy = kind(5, 4, 1.0, 0)
    strategy.ask()
    with pytest.raises(StrategyError, match=r"ask\(\) was called twice; call tell\(\)"):
        strategy.ask()


@BOTH
def test_latents_that_were_not_asked_for_are_refused(kind: Make) -> None:
    strategy = kind(5, 4, 1.0, 0)
    latents = strategy.ask()
    latents[0, 0] += 1e-9  # in place: the strategy must hold a copy of its own
    with pytest.raises(StrategyError, match=r"the very latents that ask\(\) returned"):
        strategy.tell(latents, np.zeros(4))


@BOTH
@pytest.mark.parametrize(
    ("fitness", "message"),
    [
        (np.zeros(3), r"shape \(4,\); found shape \(3,\)"),
        (np.zeros((4, 2)), r"shape \(4,\); found shape \(4, 2\)"),
        (np.array([0, np.nan, np.inf, 0]), "found shape .* with 2 not finite"),
    ],
)
def test_fitness_must_be_one_finite_number_a_candidate(
    kind: Make, fitness: Fitness, message: str
) -> None:
    strategy = kind(5, 4, 1.0, 0)
    latents = strategy.ask()
    with pytest.raises(StrategyError, match=message):
        strategy.tell(latents, fitness)


@BOTH
def test_a_refused_telling_can_be_made_good(kind: Make) -> None:
    strategy, other = kind(5, 4, 1.0, 0), kind(5, 4, 1.0, 0)
    latents = strategy.ask()
    with pytest.raises(StrategyError):
        strategy.tell(latents, np.full(4, np.nan))
    strategy.tell(latents, quadratic(latents))
    assert np.array_equal(strategy.ask(), proposals(other, 2)[1])


@pytest.mark.parametrize(
    ("method", "kind"),
    [("cma-es", CMAES), ("sep-cma-es", SeparableCMAES), ("random", RandomSearch)],
)
def test_the_config_chooses_the_strategy(method: str, kind: type) -> None:
    settings = {"method": method, "population": 7, "sigma": 0.25, "seed": 6}
    config = tiny.config(Path("model"), Path("data"), search=settings)
    strategy = make_strategy(config, tiny.PlainScorer(config).task)
    assert isinstance(strategy, kind)
    assert np.array_equal(strategy.ask(), kind(5, 7, 0.25, 6).ask())


def test_a_diagonal_covariance_learns_the_scales_of_coordinates_sooner() -> None:
    def ellipsoid(latents: Latents) -> Fitness:
        scales = 10.0 ** np.linspace(0, 4, latents.shape[1])
        return np.asarray(-(scales * (latents - 1) ** 2).sum(axis=1))

    full, diagonal = (
        ellipsoid(proposals(kind(30, 14, 0.5, 0), 150, fitness=ellipsoid)[-1]).max()
        for kind in (CMAES, SeparableCMAES)
    )
    assert diagonal > full / 10  # both are negative


def test_the_mean_is_what_the_next_proposals_are_drawn_around() -> None:
    strategy = CMAES(5, 400, 0.5, 0)
    assert np.array_equal(strategy.mean, np.zeros(5))  # type: ignore[arg-type]
    for _ in range(3):
        latents = strategy.ask()
        strategy.tell(latents, quadratic(latents))
    center, step = strategy.mean, strategy.step_size
    assert center is not None
    assert np.abs(strategy.ask().mean(axis=0) - center).max() < 5 * step / 20
    assert RandomSearch(5, 4, 1.0, 0).mean is None


# Its own end


def termination(strategy: Strategy, generations: int, fitness: Callable[[Latents], Fitness]) -> str:
    """Why the strategy ends itself within so many generations."""
    for _ in range(generations):
        latents = strategy.ask()
        strategy.tell(latents, fitness(latents))
        if strategy.termination:
            return strategy.termination
    return "it goes on"


def flat(latents: Latents) -> Fitness:
    return np.zeros(len(latents))


@BOTH
def test_no_strategy_is_at_its_end_before_it_began(kind: Make) -> None:
    assert kind(5, 4, 1.0, 0).termination is None


def test_random_search_never_ends_itself() -> None:
    assert termination(RandomSearch(5, 4, 1e-30, 0), 50, flat) == "it goes on"


def test_cma_es_goes_on_while_it_learns() -> None:
    assert termination(CMAES(5, 6, 1.0, 0), 30, quadratic) == "it goes on"


def test_cma_es_ends_where_all_candidates_score_the_same_for_long() -> None:
    found = termination(CMAES(5, 6, 1.0, 0), 11, flat)
    assert found.startswith("CMA-ES ended the search: all candidates score the same; a larger ")
    assert found.endswith("(tolflatfitness)")


def test_cma_es_bears_a_few_generations_without_any_difference() -> None:
    """Rewards such as accuracy have few values."""
    assert termination(CMAES(5, 6, 1.0, 0), 10, flat) == "it goes on"
    strategy = CMAES(5, 6, 1.0, 0)
    assert termination(strategy, 9, flat) == "it goes on"
    assert termination(strategy, 1, quadratic) == "it goes on"
    assert termination(strategy, 10, flat) == "it goes on"


def test_cma_es_bears_that_the_best_stays_as_good_as_it_is() -> None:
    best_is_always_one = lambda z: np.argsort(z[:, 0]) / (len(z) - 1)  # noqa: E731
    assert termination(CMAES(5, 6, 1.0, 0), 20, best_is_always_one) == "it goes on"


def test_cma_es_ends_with_a_step_size_that_is_far_too_small() -> None:
    found = termination(CMAES(5, 6, 1e-13, 0), 5, quadratic)
    assert found == "CMA-ES ended the search: its steps have become too small to matter (tolx)"


def test_cma_es_ends_at_the_optimum() -> None:
    found = termination(CMAES(3, 6, 1.0, 0), 1000, quadratic)
    assert found.startswith("CMA-ES ended the search: ")
    assert "(tol" in found


def test_cma_es_ends_where_there_is_no_optimum() -> None:
    found = termination(CMAES(3, 6, 1e-3, 0), 1000, lambda z: z[:, 0])
    assert "without bound" in found


def test_pycmas_reasons_have_their_words() -> None:
    """Those that its own source adds, but for what is never set here."""
    import inspect
    import re

    import cma

    source = inspect.getsource(cma.evolution_strategy._CMAStopDict._update)
    known = set(re.findall(r"_addstop\('(\w+)'", source))
    assert known - set(TERMINATIONS) == {
        *("ftarget", "maxfevals", "timeout", "callback"),
        *("tolfun", "tolfunhist"),  # switched off
    }
    assert set(TERMINATIONS) <= known


def test_a_signals_file_in_the_users_folder_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pycma would read orders from it, to stop among others."""
    monkeypatch.chdir(tmp_path)
    undisturbed = proposals(CMAES(5, 6, 1.0, 0))
    (tmp_path / "cma_signals.in").write_text("{'maxiter': 1, 'tolx': 1e9, 'CSA_dampfac': 9.0}")
    assert termination(CMAES(5, 6, 1.0, 0), 12, quadratic) == "it goes on"
    assert np.array_equal(proposals(CMAES(5, 6, 1.0, 0)), undisturbed)
