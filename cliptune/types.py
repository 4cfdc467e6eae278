"""The arrays that travel between the parts, by name; their shapes stand beside them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Latent = NDArray[np.float64]  # (d,)
Latents = NDArray[np.float64]  # (population, d)
Rewards = NDArray[np.float64]  # (population, subnetworks), higher is better
Fitness = NDArray[np.float64]  # (population,), higher is better
ClassScores = NDArray[np.float32]  # (..., examples, classes), logits up to a constant
Labels = NDArray[np.int64]  # (examples,), the index of the right class
Biases = NDArray[np.float64]  # ([networks,] classes), added to class scores
PromptArray = NDArray[np.float32]  # (length, width); of several layers (layers, length, width)
Weights = Sequence[float]  # (subnetworks,)
Neighbours = list[list[tuple[str, float]]]  # by prompt vector: tokens, cosines; nearest first
