"""What a planned search takes of actors: the model's structure, and a measurement of its speed."""

from dataclasses import replace
from typing import Any

import torch
from rich.console import Console

from cliptune import probe
from cliptune.errors import ConfigError
from cliptune.local import LocalScorer
from cliptune.models.base import FrozenModel
from cliptune.models.load import load_structure
from cliptune.plan import Plan, plan
from cliptune.task import Task
from cluster.config import ClusterSearch
from cluster.plan import here, placed, timed
from jobs.plandisplay import Estimate, Measured, SplitSize


def of_actors(
    config: ClusterSearch,
    task: Task,
    recorded: tuple[dict[str, Any], Measured] | None,
    seconds: float | None,
) -> Estimate:
    """Count, and measure for so many `seconds` unless a speed is `recorded`; None: only count."""
    config, actors = placed(config, here())
    structure = load_structure(config, task)
    length = config.prompt.length
    encoded = {name: structure.encode(split, length) for name, split in task.splits.items()}
    lengths = {name: each.lengths for name, each in encoded.items()}
    shared = structure.shared_tokens(length)
    counted = plan(config, task, lengths, shared)
    speed = Measured()
    if recorded is not None:
        record, speed = recorded
        speed = replace(speed, source=speed.source + elsewhere(record, config))
    elif seconds is not None:
        scorer, process = loaded(config, task)
        if (
            scorer.model.shared_tokens(length) != shared
        ):  # tried out, it is not what its config says
            shared = scorer.model.shared_tokens(length)
            counted = plan(config, task, lengths, shared)
        speed = measured(scorer, counted, seconds, process)
    generations, parts = timed(counted, config, speed.tokens_per_second)
    return Estimate(
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
        shared=shared,
        memory=_memory(structure, config, speed),
        speed=speed,
    )


def elsewhere(record: dict[str, Any], config: ClusterSearch) -> str:
    """What a speed was measured with, where that is not what it is used for."""
    used = {
        "model": config.model.name,
        "device": config.model.device,
        "dtype": config.model.dtype,
        "quantize": config.model.quantize,
        "threads_per_actor": config.cluster.threads_per_actor,
    }
    other = [
        f"{name} {record[name]}" for name in used if record.get(name, used[name]) != used[name]
    ]
    return f", measured with another {' and '.join(other)}" if other else ""


def loaded(config: ClusterSearch, task: Task) -> tuple[LocalScorer, int | None]:
    """The model as an actor loads it, and what the process held in memory before."""
    gpu = config.model.device == "cuda"
    if gpu and not torch.cuda.is_available():
        raise ConfigError(
            "Actors have a GPU, and this machine has none to measure on: give a speed with "
            "--record FILE, or --no-measure."
        )
    torch.set_num_threads(config.cluster.threads_per_actor)
    with Console(stderr=True).status(f"Loading {config.model.name}"):
        process = None if gpu else probe.resident_bytes()
        return LocalScorer(config, task), process


def measured(scorer: LocalScorer, counted: Plan, seconds: float, process: int | None) -> Measured:
    """What it takes for so many seconds of scoring."""
    with Console(stderr=True).status("Measuring"):
        try:
            activations = probe.activation_bytes(scorer, counted.largest)
            rate = probe.tokens_per_second(scorer, counted.typical, seconds)
        except torch.OutOfMemoryError:
            raise ConfigError(
                f"A micro-batch of {scorer.config.model.micro_batch} rows does not fit into the "
                "GPU's memory; lower model.micro_batch."
            ) from None
    return Measured(rate, activations, process, "measured here, by one actor alone")


def _memory(
    structure: FrozenModel, config: ClusterSearch, speed: Measured
) -> dict[str, int | None]:
    dtype, fewer = getattr(torch, config.model.dtype), config.model.quantize
    return {
        "weights": probe.weight_bytes(structure.module, dtype, fewer),
        "thinned_copy": probe.thinned_bytes(structure.module, dtype, config.ensemble, fewer),
        "activations": speed.activations,
        "process": speed.process,
    }
