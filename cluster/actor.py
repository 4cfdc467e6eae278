"""What runs in a worker process: a LocalScorer that computes the units it is sent."""

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cliptune.config import Config
from cliptune.scorer import ModelFacts, Unit
from cliptune.task import Task
from cliptune.types import Latent, Latents, Neighbours, PromptArray
from cluster.wire import Results

if TYPE_CHECKING:
    from cliptune.local import LocalScorer
    from cliptune.synthetic import SyntheticScorer

    Computes = LocalScorer | SyntheticScorer

PACKAGE = "_ray_pkg_"  # begins the name of the folder that a job's package is unpacked into


@dataclass(frozen=True)
class Place:
    """Where an actor runs."""

    node: str  # Ray's id of the machine
    host: str
    pid: int
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Arrival:
    """What an actor says once it has the model."""

    lengths: Mapping[str, Sequence[int]]  # tokens of the examples, by split
    canary: str  # how it rounds; see UnitScorer.canary


class ScoringActor:
    """A plain class; the pool makes it remote.

    Loading is a call of its own, so that what goes wrong in it arrives as the error it is.
    """

    def hello(self) -> Place:
        """Answered as soon as the actor has a place on the cluster."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return Place(node, socket.gethostname(), os.getpid(), own_gpus())

    def load(self, config: Config, task: Task, threads: int) -> Arrival:
        """Load the model, to compute on so many CPU threads."""
        self._scorer = self.make_scorer(at_hand(config), task, threads)
        return Arrival(self._scorer.lengths, self._scorer.canary())

    def make_scorer(self, config: Config, task: Task, threads: int) -> "Computes":
        """What computes; imported here, since an actor that waits for its place needs no torch."""
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        import torch

        from cliptune.local import LocalScorer

        torch.set_num_threads(threads)
        return LocalScorer(config, task, gpus=len(own_gpus()))

    def run(
        self, units: Sequence[Unit], latents: Latents | bytes | None
    ) -> tuple[list[NDArray[Any]], float]:
        """The units' results in their order, and the seconds that they took.

        Bytes are the latents of the units' candidates alone; see `rows_of`.
        """
        if isinstance(latents, bytes):
            latents = placed(latents, units, self._scorer.config.prompt.latent_size)
        before = self._scorer.usage.device_seconds
        results = Results(self._scorer.run(units, latents))
        return results, self._scorer.usage.device_seconds - before

    def prompt(self, latent: Latent) -> PromptArray:
        return self._scorer.prompt(latent)

    def nearest(self, latent: Latent) -> Neighbours:
        return self._scorer.nearest(latent)

    def facts(self) -> ModelFacts:
        return self._scorer.facts()


def own_gpus() -> tuple[str, ...]:
    """Ray's ids of the GPUs that this actor was given; none outside of Ray."""
    import ray

    if not ray.is_initialized():
        return ()
    context = ray.get_runtime_context()
    return tuple(map(str, context.get_accelerator_ids().get("GPU", ())))


def span(units: Sequence[Unit]) -> tuple[int, int]:
    """The candidates of the units, [start, end), with those between them."""
    return min(unit.candidates[0] for unit in units), max(unit.candidates[1] for unit in units)


def rows_of(latents: Latents, units: Sequence[Unit]) -> bytes:
    """What the units need of the latents: Ray sends bytes faster than anything else."""
    return latents[slice(*span(units))].tobytes()


def placed(rows: bytes, units: Sequence[Unit], dimension: int) -> Latents:
    """Latents with those rows where the units look for them, and nothing elsewhere."""
    start, end = span(units)
    latents = np.full((end, dimension), np.nan)
    latents[start:] = np.frombuffer(rows).reshape(-1, dimension)
    return latents


def at_hand(config: Config) -> Config:
    """The config with paths into this machine's copy of the job's package.

    The driver's are into its own copy, and each machine unpacks one wherever its Ray has its files.
    """
    model, prompt = config.model, config.prompt
    model = model.model_copy(update={"name": _here(model.name), "readout": _here(model.readout)})
    if prompt.file is not None:
        prompt = prompt.model_copy(update={"file": Path(_here(str(prompt.file)))})
    search = config.search.model_copy(update={"loss": _here(config.search.loss)})
    return config.model_copy(update={"model": model, "prompt": prompt, "search": search})


def _here(path: str) -> str:
    package, parts = Path.cwd(), Path(path).parts
    if package.name.startswith(PACKAGE) and package.name in parts:
        return str(package.joinpath(*parts[parts.index(package.name) + 1 :]))
    return path
