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
from cliptune.types import Latent, Latents

if TYPE_CHECKING:
    from cliptune.config import PromptConfig


def projection_std(spread: float, dimension: int, scale: float, sigma: float) -> float:
    """Standard deviation of A's entries, alpha * std(E) / (sqrt(d) * sigma).

    With z ~ N(0, sigma^2 I), A z then spreads alpha times as far as the word embeddings E do, whose
    standard deviation is `spread`. From the code of Black-Box Tuning (Sun et al., ICML 2022).
    """
    return scale * spread / (math.sqrt(dimension) * sigma)


class RandomProjection:
    """The fixed matrix A of a layer, `(length * width, d)`, normal and drawn from a seed."""

    def __init__(
        self, shape: tuple[int, int], std: float, seed: int, layer: int, device: torch.device
    ) -> None:
        purpose = ("projection", seed) if layer == 0 else ("projection", seed, layer)
        matrix = generator(*purpose).standard_normal(shape, dtype=np.float32)
        self.matrix = torch.from_numpy(matrix).mul_(std).to(device)

    def __call__(self, latents: Latents) -> Tensor:
        """`(candidates, d)` float64 to `(candidates, length * width)` float32."""
        z = torch.tensor(latents, dtype=torch.float32, device=self.matrix.device)
        return z @ self.matrix.T

    def back(self, gradient: Tensor) -> Tensor:
        """A gradient `(length * width,)` of the offset as one of the latent, `(d,)`."""
        return gradient @ self.matrix


class Identity:
    """No projection: the latent is the prompt's offset, but for its scale."""

    def __init__(self, scale: float, device: torch.device) -> None:
        self._scale = scale
        self._device = device

    def __call__(self, latents: Latents) -> Tensor:
        """`(candidates, length * width)` float64 to the same in float32."""
        return torch.tensor(latents, dtype=torch.float32, device=self._device).mul_(self._scale)

    def back(self, gradient: Tensor) -> Tensor:
        """A gradient `(length * width,)` of the offset as one of the latent."""
        return gradient * self._scale


Projection = RandomProjection | Identity


class SoftPrompt:
    """P0 and the projections of one search, on the model's device."""

    def __init__(self, initial: Tensor, projections: Sequence[Projection]) -> None:
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

    def back(self, gradient: Tensor) -> Latent:
        """The gradient of a latent from that of its prompt, `(length, width)`, of one layer."""
        (projection,) = self._projections
        return projection.back(gradient.flatten()).cpu().numpy().astype(np.float64)


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
    spread = [float(embeddings.float().std())]
    if config.layers > 1:
        spread += spreads(initial)
    projections = [
        _projection(config, sigma, width, each, layer, embeddings.device)
        for layer, each in enumerate(spread)
    ]
    return SoftPrompt(initial, projections)


def _projection(
    config: PromptConfig, sigma: float, width: int, spread: float, layer: int, device: torch.device
) -> Projection:
    size = config.length * width
    if config.projection == "identity":
        if config.dimension != size:
            raise ConfigError(
                "prompt.projection identity has a latent as large as the prompt: prompt.dimension "
                f"must be {config.length} vectors x width {width} = {size}; found "
                f"{config.dimension}."
            )
        return Identity(projection_std(spread, 1, config.scale, sigma), device)
    std = projection_std(spread, config.dimension, config.scale, sigma)
    return RandomProjection((size, config.dimension), std, config.seed, layer, device)


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
