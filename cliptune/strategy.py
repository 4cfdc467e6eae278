"""Ask and tell: who proposes the next latents. CMA-ES (Hansen, arXiv 1604.00772), random search."""

import warnings
from typing import Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from cliptune.config import Config
from cliptune.errors import StrategyError
from cliptune.randomness import generator
from cliptune.types import Fitness, Latents


class Strategy(Protocol):
    """Proposes latents and learns from their fitness; higher fitness is better."""

    @property
    def step_size(self) -> float:
        """Standard deviation of the proposals along an average axis."""

    def ask(self) -> Latents:
        """The next `(population, d)` candidates."""

    def tell(self, latents: Latents, fitness: Fitness) -> None:
        """Learn the fitness of the candidates that were asked for last."""


class RandomSearch:
    """Draws every latent from N(0, sigma^2 I): the strong baseline of the paper."""

    def __init__(self, dimension: int, population: int, sigma: float, seed: int) -> None:
        self._shape = (population, dimension)
        self._sigma = sigma
        self._rng = generator("strategy", seed)
        self._turn = _Turn()

    @property
    def step_size(self) -> float:
        return self._sigma

    def ask(self) -> Latents:
        return self._turn.asked(self._sigma * self._rng.standard_normal(self._shape))

    def tell(self, latents: Latents, fitness: Fitness) -> None:
        self._turn.told(latents, fitness)


class CMAES:
    """CMA-ES from pycma, with a random generator of its own and on one thread.

    pycma draws from numpy's global generator unless told otherwise, and with two threads LAPACK
    returns the same eigenvectors in other bits: either would make two equal searches differ.
    """

    def __init__(self, dimension: int, population: int, sigma: float, seed: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # pycma misses matplotlib, which nothing here plots with
            import cma

        rng = generator("strategy", seed)
        options = {
            "popsize": population,
            "randn": lambda *shape: rng.standard_normal(shape),
            "seed": np.nan,
            "verbose": -9,
        }
        with threadpool_limits(1):
            self._cma = cma.CMAEvolutionStrategy(np.zeros(dimension), sigma, options)
        self._turn = _Turn()

    @property
    def step_size(self) -> float:
        return float(self._cma.sigma)

    def ask(self) -> Latents:
        with threadpool_limits(1):
            return self._turn.asked(np.asarray(self._cma.ask(), dtype=np.float64))

    def tell(self, latents: Latents, fitness: Fitness) -> None:
        self._turn.told(latents, fitness)
        with threadpool_limits(1):
            self._cma.tell(list(latents), (-fitness).tolist())  # pycma minimises


class _Turn:
    """Whose turn it is, and that what is told is what was asked."""

    def __init__(self) -> None:
        self._asked: Latents | None = None

    def asked(self, latents: Latents) -> Latents:
        if self._asked is not None:
            raise StrategyError("ask() was called twice; call tell() with the fitness in between.")
        self._asked = latents.copy()
        return latents

    def told(self, latents: Latents, fitness: Fitness) -> None:
        if self._asked is None:
            raise StrategyError("tell() was called before ask(); ask for candidates first.")
        if not np.array_equal(latents, self._asked):
            raise StrategyError("tell() expects the very latents that ask() returned last.")
        if fitness.shape != (len(latents),) or not np.isfinite(fitness).all():
            broken = np.count_nonzero(~np.isfinite(fitness))
            raise StrategyError(
                f"tell() expects one finite fitness a candidate, shape ({len(latents)},); "
                f"found shape {fitness.shape} with {broken} not finite."
            )
        self._asked = None


def make_strategy(config: Config) -> Strategy:
    """The strategy that `search.method` names."""
    search = config.search
    kind = CMAES if search.method == "cma-es" else RandomSearch
    return kind(config.prompt.dimension, search.population, search.sigma, search.seed)
