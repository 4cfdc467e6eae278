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
from numpy.typing import NDArray
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


class Projection:
    """The fixed matrix A of a layer, `(length * width, d)`."""

    def __init__(self, matrix: Tensor) -> None:
        self._matrix = matrix

    def __call__(self, latents: Latents) -> Tensor:
        """`(candidates, d)` float64 to `(candidates, length * width)` float32."""
        z = torch.tensor(latents, dtype=torch.float32, device=self._matrix.device)
        return z @ self._matrix.T

    def back(self, gradient: Tensor) -> Tensor:
        """A gradient `(length * width,)` of the offset as one of the latent, `(d,)`."""
        return gradient @ self._matrix


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


class SoftPrompt:
    """P0 and the projections of one search, on the model's device."""

    def __init__(self, initial: Tensor, projections: Sequence[Projection | Identity]) -> None:
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
    words = [i for i in range(len(embeddings)) if i not in special]
    initial = _initial(config, embeddings, words, tokenize).to(embeddings.device)
    spread = [float(embeddings.float().std())]
    if config.layers > 1:
        spread += spreads(initial)
    projections = [
        _projection(config, sigma, embeddings, words, each, layer)
        for layer, each in enumerate(spread)
    ]
    return SoftPrompt(initial, projections)


def _projection(
    config: PromptConfig,
    sigma: float,
    embeddings: Tensor,
    words: list[int],
    spread: float,
    layer: int,
) -> Projection | Identity:
    width, device = embeddings.shape[1], embeddings.device
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
    purpose: tuple[str | int, ...] = "projection", config.seed
    draws = generator(*purpose, *([layer] if layer else []))
    if config.projection == "vocabulary":
        matrix = _of_words(draws, embeddings, words, config.length, config.dimension)
    else:
        matrix = draws.standard_normal((size, config.dimension), dtype=np.float32)
    return Projection(torch.from_numpy(matrix).mul_(std).to(device))


def _of_words(
    draws: np.random.Generator, embeddings: Tensor, words: list[int], length: int, dimension: int
) -> NDArray[np.float32]:
    """A matrix `(length * width, d)` of unit spread: each number of the latent moves each prompt
    vector along a word of its own, seen from the mean of the vocabulary."""
    vocabulary = embeddings.float().cpu().numpy()[words]
    centred = vocabulary - vocabulary.mean(axis=0, dtype=np.float64)
    rows = centred[draws.choice(len(words), (length, dimension))]  # (length, d, width)
    matrix = rows.transpose(0, 2, 1).reshape(-1, dimension) / centred.std()
    return np.ascontiguousarray(matrix, dtype=np.float32)


def _initial(
    config: PromptConfig,
    embeddings: Tensor,
    words: list[int],
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
