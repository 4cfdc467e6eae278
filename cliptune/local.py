"""LocalScorer: one frozen model in this process, turned into one subnetwork after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliptune.device import is_out_of_memory, keep_freed_memory, resolve
from cliptune.errors import OutOfMemoryError
from cliptune.functions import loss
from cliptune.hashing import digest
from cliptune.models.load import Loaded, config_digest, load_plain, prepared
from cliptune.scorer import ModelFacts, Unit, UnitScorer
from cliptune.task import Split, Task
from cliptune.thinning import Thinner
from cliptune.types import Latent, Latents, Neighbours, PromptArray
from cliptune.weights import weights_digest

if TYPE_CHECKING:
    from cliptune.config import Config

T = TypeVar("T")


def within_memory(work: Callable[[], T], rows: int, device: str) -> T:
    """What comes of the work; OutOfMemoryError where a micro-batch of so many rows does not fit."""
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    torch.cuda.empty_cache()  # here nothing of the error is left, which held on to its arrays
    raise OutOfMemoryError(
        f"A micro-batch of {rows} rows does not fit into the memory of {device}. A shorter prompt "
        "or text, or a smaller model, takes less."
    )


class LocalScorer(UnitScorer):
    """Scores in this process, on one device."""

    def __init__(
        self,
        config: Config,
        task: Task,
        without: Collection[str] = (),
        *,
        differentiable: bool = False,
        gpus: int = 1,
        loaded: Loaded | None = None,
    ) -> None:
        """`without` names changes that would make the model faster, and are left out.

        A model that is to be differentiated goes without any of them. It is spread over all of
        several `gpus`. One that is `loaded` already is not loaded again; its layers are changed.
        """
        config = resolve(config, cuda=torch.cuda.is_available())
        super().__init__(config, task)
        if config.model.device == "cpu":
            keep_freed_memory()
        try:
            loaded = loaded or load_plain(config.model, gpus)
            self.model = prepared(loaded, config, task, None if differentiable else without)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"{config.model.name} does not fit into the memory of {config.model.device}. A "
                "smaller model, model.dtype=bfloat16 or model.quantize takes less; several GPUs an "
                "actor (cluster.gpus_per_actor) hold more."
            ) from None
        self._thinner = Thinner(self.model.module)
        self.soft_prompt = self.model.soft_prompt(config.prompt, config.search.sigma)
        self.encoded = {
            name: self.model.encode(split, config.prompt.length)
            for name, split in task.splits.items()
        }
        self._lengths = {name: encoded.lengths for name, encoded in self.encoded.items()}
        self._prompts = (b"", torch.empty(0))  # the last ones, and of what latents

    def give(self, name: str, split: Split) -> None:
        """Have these examples, and no others, as the split of that name."""
        encoded = self.model.encode(split, self.config.prompt.length)
        self.task = replace(self.task, splits={name: split})
        self.encoded = {name: encoded}
        self._lengths = {name: encoded.lengths}
        self._cuts.clear()

    @property
    def workers(self) -> int:
        return 1

    @property
    def lengths(self) -> Mapping[str, Sequence[int]]:
        return self._lengths

    def run(self, units: Sequence[Unit], latents: Latents | None) -> list[NDArray[Any]]:
        """Compute units one by one, in their order."""
        started = time.perf_counter()
        rows = max((unit.rows for unit in units), default=0)
        try:
            return within_memory(
                lambda: [self._compute(unit, latents) for unit in units],
                rows,
                self.config.model.device,
            )
        finally:
            self.usage.device_seconds += time.perf_counter() - started

    def prompt(self, latent: Latent) -> PromptArray:
        prompt = self.soft_prompt(latent[None])[0]
        return np.asarray(prompt.cpu().numpy(), dtype=np.float32)

    def nearest(self, latent: Latent) -> Neighbours:
        return self.model.nearest(self.soft_prompt(latent[None])[0])

    def facts(self) -> ModelFacts:
        return ModelFacts(
            name=self.config.model.name,
            sha256=weights_digest(self.config.model.name),
            width=self.model.width,
            parameters=self.model.parameters,
            truncated={name: e.truncated for name, e in self.encoded.items()},
            tokens={name: sum(lengths) for name, lengths in self._lengths.items()},
            config_sha256=config_digest(self.model.module.config.to_dict()),
            inputs_sha256=self._inputs_digest(),
        )

    def _inputs_digest(self) -> str:
        splits = {name: [each.ids, each.mask_positions] for name, each in self.encoded.items()}
        words = self.model.tokenizer(list(self.task.every_word))["input_ids"]
        return digest([splits, words])

    def _compute(self, unit: Unit, latents: Latents | None) -> NDArray[Any]:
        if unit.subnetwork != self._thinner.current:
            self.model.network_changed()
            self._thinner.switch(unit.subnetwork)
        prompts = None if latents is None else self._prompted(latents[slice(*unit.candidates)])
        batch = self.model.batch(self.encoded[unit.split], unit.examples)
        scores: NDArray[np.float32] = self.model.class_scores(prompts, batch).cpu().numpy()
        if not unit.reduce:
            return scores
        labels = self.task[unit.split].labels[list(unit.examples)]
        search = self.config.search
        return loss.find(search.loss)(scores, labels, search.margin)

    def _prompted(self, latents: Latents) -> Tensor:
        """Prompts as `SoftPrompt` makes them, once for units of the same candidates."""
        of = latents.tobytes()
        if of != self._prompts[0]:
            self._prompts = (of, self.soft_prompt(latents))
        return self._prompts[1]
