"""What `cliptune plan` has found, for people and as JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from cluster.config import ClusterSearch
from cluster.plan import Part
from jobs.words import clock, plain_table

LIMITS = ("budget", "max_forward_passes", "max_seconds", "patience")
PARTS = {
    "generation": "a generation",
    "generation_validation": "its validation",
    "search": "search",
    "validation": "validation",
    "evaluation": "table at the end",
    "total": "total",
}
MEMORY = {
    "weights": ("weights", "computed"),
    "thinned_copy": ("second copy of the thinned layers", "computed"),
    "activations": ("activations of the largest micro-batch", "measured"),
    "process": ("Python and its libraries", "measured"),
}


@dataclass(frozen=True)
class SplitSize:
    """A split as the model reads it."""

    examples: int
    tokens: int  # without the prompt
    longest: int
    shortened: int  # examples that truncation made fit


@dataclass(frozen=True)
class Measured:
    """What one actor takes; None where it was not, or could not be, measured."""

    tokens_per_second: float | None = None  # computed, padding included
    activations: int | None = None  # bytes
    process: int | None = None  # bytes; None on a GPU, where it is not what counts
    source: str = "not measured"


@dataclass(frozen=True)
class Estimate:
    """All that is printed."""

    config: ClusterSearch  # resolved
    actors: str | None  # where their number is from; None for a model behind an API
    parameters: int
    splits: dict[str, SplitSize]
    units: int  # of a generation; more actors than that have nothing to do
    generations: int | None  # None where it takes a speed to know
    parts: dict[str, Part]
    shared: int  # tokens that a candidate's inputs begin with, and that are computed once
    memory: dict[str, int | None] | None  # bytes of an actor, on its GPU if it has one
    speed: Measured


def as_tree(estimate: Estimate) -> dict[str, Any]:
    """JSON values; what --record takes is among them."""
    config, ours = estimate.config, estimate.actors is not None
    return {
        "task": config.task.name,
        "model": config.model.name,
        "parameters": estimate.parameters,
        "device": config.model.device,
        "dtype": config.model.dtype,
        "quantize": config.model.quantize,
        "micro_batch": config.model.micro_batch,
        "scorer_url": config.scorer.url,
        "actors": config.cluster.most if ours else None,
        "threads_per_actor": config.cluster.threads_per_actor if ours else None,
        "gpus_per_actor": config.cluster.gpus_per_actor if ours else None,
        "splits": {name: asdict(size) for name, size in estimate.splits.items()},
        "units_a_generation": estimate.units,
        "generations": estimate.generations,
        "prompts": _prompts(estimate),
        "shared_tokens": estimate.shared,
        "parts": {name: asdict(part) for name, part in estimate.parts.items()},
        "memory_bytes": estimate.memory,
        "tokens_per_second": estimate.speed.tokens_per_second,
    }


def show(estimate: Estimate, console: Console) -> None:
    """Print it for people."""
    config, model = estimate.config, estimate.config.model
    fewer = f" with {model.quantize} weights" if model.quantize else ""
    console.print(
        f"{config.task.name} with {model.name} ({estimate.parameters:,} parameters) on "
        f"{model.device} in {model.dtype}{fewer}, micro-batches of {model.micro_batch} rows"
    )
    console.print(f"{_extent(estimate)}\n")
    console.print(_splits_table(estimate))
    console.print()
    console.print(_parts_table(estimate))
    once = f" The first {estimate.shared} of an input are computed once a candidate and network."
    console.print(
        f"Tokens of the parts are those of texts and prompts ({config.prompt.length} vectors)."
        f"{once if estimate.shared else ''}\n"
    )
    console.print(_scorers(estimate))
    if (rate := estimate.speed.tokens_per_second) is not None:
        by, source = (
            "the provider" if estimate.actors is None else "an actor",
            estimate.speed.source,
        )
        console.print(f"{rate:,.0f} tokens/s {by}, padding included, {source}")
    if estimate.memory is not None:
        console.print()
        console.print(_memory_table(estimate.memory))


def _scorers(estimate: Estimate) -> str:
    """Who computes it."""
    config = estimate.config
    if estimate.actors is None:
        return (
            f"The model is behind {config.scorer.url}: no actor is started here, and these tokens, "
            "padding included, are what its bill will say. It was asked for tokens alone; for the "
            f"time, give --record FILE. A generation is {estimate.units} micro-batches, up to "
            f"{config.scorer.units} a request."
        )
    actors, threads = config.cluster.most, config.cluster.threads_per_actor
    return (
        f"{actors} actor{'s'[: actors > 1]} ({estimate.actors}) of {threads} "
        f"thread{'s'[: threads > 1]}; a generation has work for {estimate.units} at most"
    )


def _extent(estimate: Estimate) -> str:
    """How long the search is, and what limits it."""
    search = estimate.config.search
    given = {name: getattr(search, name) for name in LIMITS}
    limits = ", ".join(f"search.{name}={v}" for name, v in given.items() if v is not None)
    if estimate.generations is None:
        return f"as many generations of {search.population} prompts as there is time for ({limits})"
    timed = search.max_seconds is not None and estimate.speed.tokens_per_second is not None
    return (
        f"{'about' if timed else 'at most'} {estimate.generations:,} generations of "
        f"{search.population} prompts, {_prompts(estimate):,} in all ({limits})"
    )


def _prompts(estimate: Estimate) -> int | None:
    population = estimate.config.search.population
    return None if estimate.generations is None else estimate.generations * population


def _splits_table(estimate: Estimate) -> Table:
    table = plain_table("split", "examples", "tokens", "longest", "shortened")
    for name, size in estimate.splits.items():
        table.add_row(name, *(f"{number:,}" for number in asdict(size).values()))
    return table


def _parts_table(estimate: Estimate) -> Table:
    timed = estimate.speed.tokens_per_second is not None
    table = plain_table("part", "forward passes", "tokens", "padding", *(["time"] if timed else []))
    for key, name in PARTS.items():
        if part := estimate.parts.get(key):
            cells = [f"{n:,}" for n in (part.forward_passes, part.tokens, part.padding)]
            cells += [] if part.seconds is None else [_time(part.seconds)]
            table.add_row(name, *cells)
    return table


def _memory_table(memory: Mapping[str, int | None]) -> Table:
    table = plain_table("memory of an actor", "MiB", "")
    for key, (name, how) in MEMORY.items():
        size = memory[key]
        if size is not None:
            table.add_row(name, f"{size / 2**20:,.0f}", how)
        elif key == "activations":
            table.add_row(name, "", "not measured")
    return table


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else clock(seconds)
