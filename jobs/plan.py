"""`cliptune plan`: what a search will cost, without starting it, and without Ray."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from cliptune import probe
from cliptune.errors import ConfigError
from cliptune.functions import refuse_missing
from cliptune.local import LocalScorer
from cliptune.models.base import FrozenModel
from cliptune.models.load import load_structure
from cliptune.plan import Plan, plan
from cliptune.task import Task, load_task
from cluster.config import ClusterSearch
from cluster.plan import Part, here, placed, timed
from jobs.words import clock, make_console

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
    actors: str  # where their number is from
    parameters: int
    splits: dict[str, SplitSize]
    units: int  # of a generation; more actors than that have nothing to do
    generations: int | None  # None where it takes a speed to know
    parts: dict[str, Part]
    memory: dict[str, int | None]  # bytes of an actor, on its GPU if it has one
    speed: Measured


def main(
    config: ClusterSearch, *, seconds: float, record: Path | None, measure: bool, as_json: bool
) -> None:
    """Count, measure for some seconds unless there is a record of that, and print."""
    if record is not None and not measure:
        raise ConfigError("--record and --no-measure cannot go together; leave one of them out.")
    recorded = None if record is None else read_record(record)
    refuse_missing(config)  # what a search refuses is refused here
    task = load_task(config.task)
    config, actors = placed(config, here())
    structure = load_structure(config, task)
    encoded = {name: structure.encode(s, config.prompt.length) for name, s in task.splits.items()}
    counted = plan(config, task, {name: each.lengths for name, each in encoded.items()})
    if recorded is not None:
        source = f"from {record}{_elsewhere(recorded, config)}"
        speed = Measured(recorded["tokens_per_second"], source=source)
    else:
        speed = measured(config, task, counted, seconds) if measure else Measured()
    generations, parts = timed(counted, config, speed.tokens_per_second)
    estimate = Estimate(
        config=config,
        actors=actors,
        parameters=sum(weight.numel() for weight in structure.module.parameters()),
        splits={
            name: SplitSize(len(e.ids), sum(e.lengths), max(e.lengths), e.truncated)
            for name, e in encoded.items()
        },
        units=max(map(len, counted.generation.calls)),
        generations=generations,
        parts=parts,
        memory=_memory(structure, config, speed),
        speed=speed,
    )
    if as_json:
        print(json.dumps(as_tree(estimate), indent=2, ensure_ascii=False))
    else:
        show(estimate, make_console())


def read_record(path: Path) -> dict[str, Any]:
    """A JSON object with `tokens_per_second`, such as `cliptune plan --json` prints."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_int=float)
    except OSError as error:
        raise ConfigError(f"--record: {path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise ConfigError(
            f"--record: {path} is not one JSON value; expected what cliptune plan --json prints."
        ) from None
    rate = record.get("tokens_per_second") if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(rate, float) or not 0 < rate < math.inf:
        raise ConfigError(
            f"--record: {path} must be a JSON object whose tokens_per_second is a number above 0, "
            f"as cliptune plan --json prints it when it measures; found {rate!r:.60}."
        )
    return record


def _elsewhere(record: dict[str, Any], config: ClusterSearch) -> str:
    """What a speed was measured with, where that is not what it is used for."""
    used = {
        "model": config.model.name,
        "device": config.model.device,
        "dtype": config.model.dtype,
        "threads_per_actor": config.cluster.threads_per_actor,
    }
    other = [
        f"{name} {record[name]}" for name in used if record.get(name, used[name]) != used[name]
    ]
    return f", measured with another {' and '.join(other)}" if other else ""


def measured(config: ClusterSearch, task: Task, counted: Plan, seconds: float) -> Measured:
    """Load the model as an actor does, and time it."""
    gpu = config.model.device == "cuda"
    if gpu and not torch.cuda.is_available():
        raise ConfigError(
            "Actors have a GPU, and this machine has none to measure on: give a speed with "
            "--record FILE, or --no-measure."
        )
    torch.set_num_threads(config.cluster.threads_per_actor)
    with Console(stderr=True).status(f"Loading {config.model.name}") as status:
        process = None if gpu else probe.resident_bytes()
        scorer = LocalScorer(config, task)
        status.update("Measuring")
        try:
            activations = probe.activation_bytes(scorer, counted.largest)
            rate = probe.tokens_per_second(scorer, counted.typical, seconds)
        except torch.OutOfMemoryError:
            raise ConfigError(
                f"A micro-batch of {config.model.micro_batch} rows does not fit into the GPU's "
                "memory; lower model.micro_batch."
            ) from None
    return Measured(rate, activations, process, "measured here, by one actor alone")


def _memory(
    structure: FrozenModel, config: ClusterSearch, speed: Measured
) -> dict[str, int | None]:
    dtype = getattr(torch, config.model.dtype)
    return {
        "weights": probe.weight_bytes(structure.module, dtype),
        "thinned_copy": probe.thinned_bytes(structure.module, dtype, config.ensemble),
        "activations": speed.activations,
        "process": speed.process,
    }


def as_tree(estimate: Estimate) -> dict[str, Any]:
    """JSON values; what --record takes is among them."""
    config = estimate.config
    return {
        "task": config.task.name,
        "model": config.model.name,
        "parameters": estimate.parameters,
        "device": config.model.device,
        "dtype": config.model.dtype,
        "micro_batch": config.model.micro_batch,
        "actors": config.cluster.most,
        "threads_per_actor": config.cluster.threads_per_actor,
        "gpus_per_actor": config.cluster.gpus_per_actor,
        "splits": {name: asdict(size) for name, size in estimate.splits.items()},
        "units_a_generation": estimate.units,
        "generations": estimate.generations,
        "prompts": _prompts(estimate),
        "parts": {name: asdict(part) for name, part in estimate.parts.items()},
        "memory_bytes": estimate.memory,
        "tokens_per_second": estimate.speed.tokens_per_second,
    }


def show(estimate: Estimate, console: Console) -> None:
    """Print it for people."""
    config, model = estimate.config, estimate.config.model
    actors, threads = config.cluster.most, config.cluster.threads_per_actor
    console.print(
        f"{config.task.name} with {model.name} ({estimate.parameters:,} parameters) on "
        f"{model.device} in {model.dtype}, micro-batches of {model.micro_batch} rows"
    )
    console.print(f"{_extent(estimate)}\n")
    console.print(_splits_table(estimate))
    console.print()
    console.print(_parts_table(estimate))
    console.print(
        f"Tokens of the parts are those of texts and prompts ({config.prompt.length} vectors).\n"
    )
    console.print(
        f"{actors} actor{'s'[: actors > 1]} ({estimate.actors}) of {threads} "
        f"thread{'s'[: threads > 1]}; a generation has work for {estimate.units} at most"
    )
    if (rate := estimate.speed.tokens_per_second) is not None:
        source = estimate.speed.source
        console.print(f"{rate:,.0f} tokens/s an actor, padding included, {source}")
    console.print()
    console.print(_memory_table(estimate))


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
    table = _table("split", "examples", "tokens", "longest", "shortened")
    for name, size in estimate.splits.items():
        table.add_row(name, *(f"{number:,}" for number in asdict(size).values()))
    return table


def _parts_table(estimate: Estimate) -> Table:
    timed = estimate.speed.tokens_per_second is not None
    table = _table("part", "forward passes", "tokens", "padding", *(["time"] if timed else []))
    for key, name in PARTS.items():
        if part := estimate.parts.get(key):
            cells = [f"{n:,}" for n in (part.forward_passes, part.tokens, part.padding)]
            cells += [] if part.seconds is None else [_time(part.seconds)]
            table.add_row(name, *cells)
    return table


def _memory_table(estimate: Estimate) -> Table:
    table = _table("memory of an actor", "MiB", "")
    for key, (name, how) in MEMORY.items():
        size = estimate.memory[key]
        if size is not None:
            table.add_row(name, f"{size / 2**20:,.0f}", how)
        elif key == "activations":
            table.add_row(name, "", "not measured")
    return table


def _table(first: str, *numbers: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(first)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else clock(seconds)
