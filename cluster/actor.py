"""What runs in a worker process: a LocalScorer that computes the units it is sent."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from cliptune.config import Config
from cliptune.scorer import ModelFacts, Unit
from cliptune.task import Task
from cliptune.types import Latent, Latents, PromptArray


class ScoringActor:
    """A plain class; the pool makes it remote.

    Loading is a call of its own, so that what goes wrong in it arrives as the error it is.
    """

    def __init__(self, threads: int) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        import torch

        torch.set_num_threads(threads)

    def load(self, config: Config, task: Task) -> int:
        """Load the model; returns this process's id."""
        from cliptune.local import LocalScorer

        self._scorer = LocalScorer(config, task)
        return os.getpid()

    def run(
        self, units: Sequence[Unit], latents: Latents | None
    ) -> tuple[list[NDArray[Any]], float]:
        """The units' results in their order, and the seconds that they took."""
        before = self._scorer.usage.device_seconds
        results = self._scorer.run(units, latents)
        return results, self._scorer.usage.device_seconds - before

    def prompt(self, latent: Latent) -> PromptArray:
        return self._scorer.prompt(latent)

    def facts(self) -> ModelFacts:
        return self._scorer.facts()

    def lengths(self) -> Mapping[str, Sequence[int]]:
        return self._scorer.lengths
