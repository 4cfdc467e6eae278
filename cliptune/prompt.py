"""The soft prompt: P(z) = P0 + A z, L vectors of the model's width from a latent of size d.

With deep prompts (BBTv2: Sun et al., EMNLP 2022) each layer has an A and a z of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cliptune.errors import ConfigError
from cliptune.randomness import generator
from cliptune.types import Latents

if TYPE_CHECKING:
    from cliptune.config import PromptConfig


def projection_std(embeddings: Tensor, dimension: int, scale: float, sigma: float) -> float:
    """Standard deviation of A's entries, alpha * std(E) / (sqrt(d) * sigma).

    With z ~ N(0, sigma^2 I), A z then spreads alpha times as far as the word embeddings E do.
    From the code of Black-Box Tuning (Sun et al., ICML 2022).
    """
    spread = float(embeddings.float().std())
    return scale * spread / (math.sqrt(dimension) * sigma)


class RandomProjection:
    """The fixed matrix A of a layer, `(length * width, d)`, normal and drawn from a seed."""

    def __init__(self, size: int, dimension: int, std: float, seed: int, layer: int = 0) -> None:
        purpose = ("projection", seed) if layer == 0 else ("projection", seed, layer)
        matrix = generator(*purpose).standard_normal((size, dimension), dtype=np.float32)
        self.matrix = torch.from_numpy(matrix).mul_(std)

    def __call__(self, latents: Latents) -> Tensor:
        """`(candidates, d)` float64 to `(candidates, length * width)` float32."""
        z = torch.tensor(latents, dtype=torch.float32, device=self.matrix.device)
        return z @ self.matrix.T


class SoftPrompt:
    """P0 and the projections of one search, on the model's device."""

    def __init__(self, initial: Tensor, projections: Sequence[RandomProjection]) -> None:
        """One projection a layer; the first layer is the model's input."""
        self.initial = initial
        self._projections = projections

    def __call__(self, latents: Latents) -> Tensor:
        """Prompts `(candidates, length, width)` of latents `(candidates, d)`, float32.

        With several layers `(candidates, layers, length, width)` of `(candidates, layers * d)`: the
        first layer's is P0 + A z, a deeper one's A z is added, at the prompt's positions, to what
        the model has made of the prompt until there.
        """
        parts = np.split(latents, len(self._projections), axis=1)
        offsets = [
            project(part).view(len(latents), *self.initial.shape)
            for project, part in zip(self._projections, parts, strict=True)
        ]
        first = self.initial + offsets[0]
        return first if len(offsets) == 1 else torch.stack([first, *offsets[1:]], dim=1)


def build_prompt(
    config: PromptConfig,
    sigma: float,
    embeddings: Tensor,
    special: set[int],
    tokenize: Callable[[str], list[int]],
    spreads: Callable[[Tensor], Sequence[float]],
) -> SoftPrompt:
    """The soft prompt of a search over a model's word embeddings, `(vocabulary, width)`.

    `spreads` tells, for P0 as the model's input, how far the hidden states spread that enter each
    deeper layer: what is added there spreads as far.
    """
    width = embeddings.shape[1]
    initial = _initial(config, embeddings, special, tokenize).to(embeddings.device)
    stds = [projection_std(embeddings, config.dimension, config.scale, sigma)]
    if config.layers > 1:
        stds += [
            config.scale * spread / (math.sqrt(config.dimension) * sigma)
            for spread in spreads(initial)
        ]
    projections = []
    for layer, std in enumerate(stds):
        size = config.length * width
        projection = RandomProjection(size, config.dimension, std, config.seed, layer)
        projection.matrix = projection.matrix.to(embeddings.device)
        projections.append(projection)
    return SoftPrompt(initial, projections)


def _initial(
    config: PromptConfig,
    embeddings: Tensor,
    special: set[int],
    tokenize: Callable[[str], list[int]],
) -> Tensor:
    shape = (config.length, embeddings.shape[1])
    if config.init == "zero":
        return torch.zeros(shape)
    if config.init == "file":
        return _from_file(Path(str(config.file)), shape)
    if config.init == "text":
        ids = tokenize(str(config.text))
        if not ids:
            raise ConfigError(f"prompt.text holds no token; found {config.text!r}.")
        ids = [ids[i % len(ids)] for i in range(config.length)]
    else:
        words = [i for i in range(len(embeddings)) if i not in special]
        ids = generator("vocabulary", config.seed).choice(words, config.length).tolist()
    return embeddings[ids].float().detach().clone()


def _from_file(path: Path, shape: tuple[int, int]) -> Tensor:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"prompt.file: {path} cannot be read as safetensors: {error}") from None
    found = tensors.get("prompt")
    if found is None or tuple(found.shape) != shape:
        raise ConfigError(
            f"prompt.file: {path} must hold `prompt` of shape (length, width) = {shape}; "
            f"found {None if found is None else tuple(found.shape)}."
        )
    return found.float()
