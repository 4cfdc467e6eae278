"""What the engine adds to a generation, measured with actors that only take time.

The pool is the one of every search, and its actors are processes of a local Ray, with as many
virtual CPUs as it takes: an actor that sleeps needs none. Nothing here needs torch.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from cliptune.config import validate
from cliptune.observer import Observer
from cliptune.randomness import generator
from cliptune.scorer import CANDIDATES
from cliptune.task import SPLITS, Split, Task, Template
from cliptune.types import Latents
from cluster import nodes
from cluster.config import ClusterSearch
from cluster.pool import ActorPool
from cluster.session import connected, fit
from cluster.synthetic import Told, own_memory, synthetic

SUBNETWORKS = 4
EXAMPLES, EXAMPLES_A_UNIT = 32, 8
UNITS_A_SPAN = SUBNETWORKS * EXAMPLES // EXAMPLES_A_UNIT  # CANDIDATES of them are a span
SPANS = 16  # of a generation, at least: 256 units
WARM_UP = 3  # generations that do not count
REST = 0.2  # seconds at most that a bare call takes; its overhead does not depend on them
LABEL_WORDS = ("bad", "good")


@dataclass(frozen=True)
class Row:
    """Generations on so many actors; seconds are those of one generation."""

    actors: int
    units: int
    work: float  # what it would take if nothing but the units took time
    overhead: float  # beyond that: median
    least: float  # of all generations
    bare: float  # overhead of one bare call to each actor at once: median
    calls: float  # to actors
    driver: float  # CPU seconds of the driver's process
    driver_main: float  # of its main thread alone
    retries: int  # units that were given to a second actor, in all generations


@dataclass(frozen=True)
class Modelled:
    """What a generation on so many actors would add, in seconds."""

    actors: int
    here: float  # all of them processes of this machine
    elsewhere: float  # on machines of their own, the driver on one like this


@dataclass(frozen=True)
class Memory:
    """Bytes that a process holds and shares with none, after so many generations."""

    generation: int
    driver: int
    actors: tuple[int, ...]


def settings(actors: int) -> ClusterSearch:
    """A search whose generations have as many units for each actor, all of one size."""
    step = actors // math.gcd(actors, UNITS_A_SPAN)
    population = CANDIDATES * step * -(-SPANS // step)
    tree = {
        "task": {"name": "scaling", "template": "{text} {mask}", "label_words": list(LABEL_WORDS)},
        "model": {
            "name": "synthetic",
            "dtype": "float32",
            "device": "cpu",
            "micro_batch": CANDIDATES * EXAMPLES_A_UNIT,
        },
        "ensemble": {"subnetworks": SUBNETWORKS},
        "search": {"population": population, "budget": population},
        "cluster": {"actors": actors, "gpus_per_actor": 0},
    }
    return validate(ClusterSearch, tree)


def made_up_task() -> Task:
    """As many examples as it takes, which nobody reads."""
    texts = tuple(f"example {number}" for number in range(EXAMPLES))
    split = Split(texts, None, np.arange(EXAMPLES) % len(LABEL_WORDS))
    return Task("scaling", Template("{text} {mask}"), LABEL_WORDS, dict.fromkeys(SPLITS, split))


def units_a_generation(config: ClusterSearch) -> int:
    return config.search.population // CANDIDATES * UNITS_A_SPAN


@contextmanager
def synthetic_pool(actors: int, seconds: float, observer: Observer) -> Iterator[ActorPool]:
    """So many synthetic actors, on a Ray of their own."""
    observer.phase(f"Starting Ray with {actors} actors")
    with connected("local", cpus=actors):
        config = fit(settings(actors), nodes.present())
        with ActorPool(config, made_up_task(), observer, synthetic(seconds)) as pool:
            yield pool


def measure(actors: int, seconds: float, generations: int, observer: Observer) -> Row:
    """Overheads of that many generations."""
    with synthetic_pool(actors, seconds, observer) as pool:
        observer.phase(f"Measuring {generations} generations on {actors} actors")
        draw = latents(pool.config)
        units = units_a_generation(pool.config)
        work = units / actors * seconds
        for _ in range(WARM_UP):
            pool.score(draw())
        before, retries = told(pool), pool.usage.retries
        watches = [Watch.of(lambda: pool.score(draw())) for _ in range(generations)]
        calls = sum(after.calls - one.calls for after, one in zip(told(pool), before, strict=True))
        retries = pool.usage.retries - retries
        pause = min(work, REST)
        bare = [Watch.of(lambda: rest(pool, pause, observer)) for _ in range(generations)]
    return Row(
        actors=actors,
        units=units,
        work=work,
        overhead=statistics.median(one.wall for one in watches) - work,
        least=min(one.wall for one in watches) - work,
        bare=statistics.median(one.wall for one in bare) - pause,
        calls=calls / generations,
        driver=statistics.median(one.process for one in watches),
        driver_main=statistics.median(one.thread for one in watches),
        retries=retries,
    )


def model(rows: Sequence[Row], actors: Sequence[int]) -> list[Modelled]:
    """Other numbers of actors, by straight lines through the measured ones (least squares).

    Here: overhead by actors. Elsewhere: the CPU seconds of the driver's main thread by calls, with
    one call an actor; what actors and a network take is not in it.
    """
    if len({row.actors for row in rows}) < 2:
        return []
    here = np.polyfit([row.actors for row in rows], [row.overhead for row in rows], 1)
    main = np.polyfit([row.calls for row in rows], [row.driver_main for row in rows], 1)
    return [Modelled(n, float(np.polyval(here, n)), float(np.polyval(main, n))) for n in actors]


def growth(
    generations: int, marks: Sequence[int], observer: Observer, actors: int = 2
) -> list[Memory]:
    """What driver and actors hold after so many generations of units that take no time."""
    found = []
    with synthetic_pool(actors, 0.0, observer) as pool:
        draw = latents(pool.config)
        observer.phase(f"Scoring {generations:,} generations on {actors} actors")
        for generation in range(1, generations + 1):
            pool.score(draw())
            if generation in marks:
                each = tuple(one.memory for one in told(pool))
                found.append(Memory(generation, own_memory(), each))
    return found


def latents(config: ClusterSearch) -> Callable[[], Latents]:
    """Draws a population."""
    draw = generator("scaling")
    shape = config.search.population, config.prompt.latent_size
    return lambda: draw.standard_normal(shape)


def rest(pool: ActorPool, seconds: float, observer: Observer) -> None:
    """One bare call an actor, of so many seconds: what Ray and the machine take by themselves."""
    observer.waiting()
    ray.get([handle.rest.remote(seconds) for handle in pool.handles])


def told(pool: ActorPool) -> list[Told]:
    """What the actors say of themselves, by slot."""
    answers: list[Told] = ray.get([handle.told.remote() for handle in pool.handles])
    return answers


@dataclass(frozen=True)
class Watch:
    """Seconds that something took."""

    wall: float
    process: float
    thread: float

    @classmethod
    def of(cls, work: Callable[[], Any]) -> "Watch":
        clocks = time.perf_counter, time.process_time, time.thread_time
        before = [clock() for clock in clocks]
        work()
        return cls(*(clock() - start for clock, start in zip(clocks, before, strict=True)))
