"""Ask and tell: who proposes the next latents. CMA-ES (Hansen, arXiv 1604.00772), random search."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from cliptune.config import Config
from cliptune.errors import StrategyError
from cliptune.randomness import generator
from cliptune.task import Task
from cliptune.types import Fitness, Latent, Latents

STRATEGY_ENDED = "CMA-ES ended the search"
TERMINATIONS = {  # pycma's names, in words
    "tolx": "its steps have become too small to matter",
    "tolxstagnation": "its mean no longer moves",
    "tolfunrel": "the fitness values have come very close to each other",
    "tolflatfitness": "all candidates score the same; a larger search.sigma or prompt.scale, or "
    "search.loss cross-entropy, gives it something to tell apart",
    "tolstagnation": "the fitness no longer improves",
    "tolfacupx": "its steps grow without bound; search.sigma was far too small",
    "tolupsigma": "its step size grows without bound",
    "tolconditioncov": "its covariance matrix has become too ill-conditioned",
    "noeffectcoord": "its steps are lost in rounding",
    "noeffectaxis": "its steps are lost in rounding",
    "maxiter": "it has reached its largest number of iterations",
}


class Strategy(Protocol):
    """Proposes latents and learns from their fitness; higher fitness is better."""

    exact: bool  # whether it asks for the same bits wherever numpy, BLAS and cma are the same

    @property
    def step_size(self) -> float:
        """Standard deviation of the proposals along an average axis."""

    @property
    def termination(self) -> str | None:
        """Why the strategy itself sees no sense in going on, in words."""

    @property
    def mean(self) -> Latent | None:
        """What the proposals are drawn around, `(d,)`; None where that is never learnt."""

    def ask(self) -> Latents:
        """The next `(population, d)` candidates."""

    def tell(self, latents: Latents, fitness: Fitness, *, replayed: bool = False) -> None:
        """Learn the fitness of the candidates that were asked for last.

        If `replayed`, they are a journal's, which another machine may have rounded otherwise.
        """


class RandomSearch:
    """Draws every latent from N(0, sigma^2 I): the strong baseline of the paper."""

    termination = None
    mean = None
    exact = True

    def __init__(
        self, dimension: int, population: int, sigma: float, seed: int, layer: int = 0
    ) -> None:
        self._shape = (population, dimension)
        self._sigma = sigma
        self._rng = _draws(seed, layer)
        self._turn = Turn()

    @property
    def step_size(self) -> float:
        return self._sigma

    def ask(self) -> Latents:
        return self._turn.asked(self._sigma * self._rng.standard_normal(self._shape))

    def tell(self, latents: Latents, fitness: Fitness, *, replayed: bool = False) -> None:
        self._turn.told(latents, fitness, replayed)


class CMAES:
    """CMA-ES from pycma, with a random generator of its own and on one thread.

    pycma draws from numpy's global generator unless told otherwise, and with two threads LAPACK
    returns the same eigenvectors in other bits: either would make two equal searches differ.
    """

    diagonal = False
    exact = True

    def __init__(
        self, dimension: int, population: int, sigma: float, seed: int, layer: int = 0
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # pycma misses matplotlib, which nothing here plots with
            import cma

        rng = _draws(seed, layer)
        options = {
            "popsize": population,
            "randn": lambda *shape: rng.standard_normal(shape),
            "seed": np.nan,
            "verbose": -9,
            # Rewards such as accuracy have few values: that all are equal in one generation, or the
            # best in several, is no reason to end; that they are in more than ten generations is.
            "tolflatfitness": 10,
            "tolfun": 0,
            "tolfunhist": 0,
            "CMA_diagonal": self.diagonal,
            "signals_filename": "",  # else pycma takes orders from a file in the user's folder
        }
        with threadpool_limits(1):
            self._cma = cma.CMAEvolutionStrategy(np.zeros(dimension), sigma, options)
        self._turn = Turn()
        self.termination: str | None = None

    @property
    def step_size(self) -> float:
        return float(self._cma.sigma)

    @property
    def mean(self) -> Latent | None:
        return np.array(self._cma.mean, dtype=np.float64)

    def ask(self) -> Latents:
        with threadpool_limits(1):
            return self._turn.asked(np.asarray(self._cma.ask(), dtype=np.float64))

    def tell(self, latents: Latents, fitness: Fitness, *, replayed: bool = False) -> None:
        self._turn.told(latents, fitness, replayed)
        with threadpool_limits(1):
            # pycma minimises; it would clip candidates that it did not draw, bit for bit, itself
            self._cma.tell(list(latents), (-fitness).tolist(), check_points=False)
            self.termination = _in_words(self._cma.stop())


class LayerByLayer:
    """Deep prompts: a strategy a layer, from the model's input up, a generation each in turn.

    The other layers keep the latents of the best candidate so far, as in BBTv2 (Sun et al., EMNLP
    2022): its fitness is that of all layers together, whichever was searched when it was found.
    With dynamic clipping it comes from other masks each generation: a lucky one may stay. A layer
    whose strategy sees no sense in going on has no further turn.
    """

    exact = True

    def __init__(self, parts: Sequence[Strategy]) -> None:
        self._parts = parts
        self._turn = 0
        self._last: str | None = None  # why the layer that was searched last has ended
        self._best: Latent | None = None
        self._fitness = -np.inf

    @property
    def step_size(self) -> float:
        return self._parts[self._turn].step_size

    @property
    def termination(self) -> str | None:
        """Of the layer that went on longest, once all have ended."""
        ended = [part.termination for part in self._parts]
        return None if None in ended else self._last

    @property
    def mean(self) -> Latent | None:
        """Of the layer whose turn it is, among the others' best."""
        own = self._parts[self._turn].mean
        return None if own is None else self._among_the_others(own[None])[0]

    def ask(self) -> Latents:
        return self._among_the_others(self._parts[self._turn].ask())

    def _among_the_others(self, own: Latents) -> Latents:
        population, dimension = own.shape
        rest = np.zeros(len(self._parts) * dimension) if self._best is None else self._best
        latents = np.tile(rest, (population, 1))
        latents[:, self._searched(dimension)] = own
        return latents

    def tell(self, latents: Latents, fitness: Fitness, *, replayed: bool = False) -> None:
        own = latents[:, self._searched(latents.shape[1] // len(self._parts))]
        self._parts[self._turn].tell(own, fitness, replayed=replayed)
        best = int(fitness.argmax())
        if fitness[best] > self._fitness:
            self._best, self._fitness = latents[best].copy(), float(fitness[best])
        self._last = self._parts[self._turn].termination
        turns = [(self._turn + n) % len(self._parts) for n in range(1, len(self._parts) + 1)]
        self._turn = next((n for n in turns if self._parts[n].termination is None), self._turn)

    def _searched(self, dimension: int) -> slice:
        return slice(self._turn * dimension, (self._turn + 1) * dimension)


class SeparableCMAES(CMAES):
    """CMA-ES whose covariance matrix is diagonal (Ros and Hansen, PPSN 2008): linear in d."""

    diagonal = True


KINDS: Mapping[str, Callable[..., Strategy]] = {
    "cma-es": CMAES,
    "sep-cma-es": SeparableCMAES,
    "random": RandomSearch,
}


def _in_words(conditions: Mapping[str, object]) -> str | None:
    if not conditions:
        return None
    name = next(iter(conditions))
    return f"{STRATEGY_ENDED}: {TERMINATIONS.get(name, name)} ({name})"


class Turn:
    """Whose turn it is, and that what is told is what was asked."""

    def __init__(self) -> None:
        self._asked: Latents | None = None

    def asked(self, latents: Latents) -> Latents:
        if self._asked is not None:
            raise StrategyError("ask() was called twice; call tell() with the fitness in between.")
        self._asked = latents.copy()
        return latents

    def told(self, latents: Latents, fitness: Fitness, replayed: bool) -> None:
        if self._asked is None:
            raise StrategyError("tell() was called before ask(); ask for candidates first.")
        if latents.shape != self._asked.shape or not (
            replayed or np.array_equal(latents, self._asked)
        ):
            raise StrategyError(
                "tell() expects the very latents that ask() returned last, shape "
                f"{self._asked.shape}; found others, of shape {latents.shape}."
            )
        if fitness.shape != (len(latents),) or not np.isfinite(fitness).all():
            broken = np.count_nonzero(~np.isfinite(fitness))
            raise StrategyError(
                f"tell() expects one finite fitness a candidate, shape ({len(latents)},); "
                f"found shape {fitness.shape} with {broken} not finite."
            )
        self._asked = None


def replay(strategy: Strategy, latents: Latents, fitness: Fitness) -> float:
    """Relive a generation; returns how far its latents lie from those that this machine asks for.

    0 means the same bits. Whatever it is, the strategy learns what the journal says.
    """
    asked = strategy.ask()
    if asked.shape != latents.shape:
        raise StrategyError(
            f"A generation of shape {latents.shape} cannot be replayed; expected {asked.shape}."
        )
    strategy.tell(latents, fitness, replayed=True)
    return float(np.abs(asked - latents).max())


def make_strategy(config: Config, task: Task) -> Strategy:
    """The strategy that `search.method` names."""
    search, prompt = config.search, config.prompt
    if search.method == "gradient":
        from cliptune.gradient import prompt_tuning

        return prompt_tuning(config, task)
    kind = KINDS[search.method]
    size = prompt.dimension, search.population, search.sigma
    layers = [kind(*size, search.seed, layer) for layer in range(prompt.layers)]
    return layers[0] if len(layers) == 1 else LayerByLayer(layers)


def _draws(seed: int, layer: int) -> np.random.Generator:
    return generator("strategy", seed, layer) if layer else generator("strategy", seed)
