"""Prompt tuning by gradients (Lester et al., EMNLP 2021): the reference from outside.

It needs what Clip-Tuning does without, a model that can be gone back through, and so loads one of
its own where the driver runs. Its steps are the candidates of a search like any other: they are
scored, validated and journalled.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cliptune.config import Config
from cliptune.evaluation import calibrate
from cliptune.local import LocalScorer, within_memory
from cliptune.scorer import Unit
from cliptune.strategy import Strategy, Turn
from cliptune.subnetwork import FULL_NETWORK
from cliptune.task import Task
from cliptune.types import Biases, Fitness, Latent, Latents

DECAYS = 0.9, 0.999  # beta_1 and beta_2 of Adam
EPSILON = 1e-8


class GradientDescent:
    """Adam (Kingma and Ba, ICLR 2015) from the latent 0: a generation is so many steps on end."""

    termination = None
    mean = None
    exact = False  # torch rounds by its threads and its device

    def __init__(
        self, gradient: Callable[[Latent], Latent], dimension: int, population: int, rate: float
    ) -> None:
        """`gradient` is that of the loss, `(d,)`, at a latent `(d,)`."""
        self._gradient = gradient
        self._population = population
        self._rate = rate
        self._latent = np.zeros(dimension)
        self._mean, self._square = np.zeros(dimension), np.zeros(dimension)
        self._steps = 0
        self._turn = Turn()

    @property
    def step_size(self) -> float:
        return self._rate

    def ask(self) -> Latents:
        return self._turn.asked(np.stack([self._step() for _ in range(self._population)]))

    def tell(self, latents: Latents, fitness: Fitness, *, replayed: bool = False) -> None:
        self._turn.told(latents, fitness, replayed)
        if replayed:
            self._latent = latents[-1].copy()

    def _step(self) -> Latent:
        """The next latent (Algorithm 1 of the paper)."""
        gradient = self._gradient(self._latent)
        self._steps += 1
        first, second = DECAYS
        self._mean = first * self._mean + (1 - first) * gradient
        self._square = second * self._square + (1 - second) * gradient**2
        mean = self._mean / (1 - first**self._steps)
        square = self._square / (1 - second**self._steps)
        self._latent = self._latent - self._rate * mean / (np.sqrt(square) + EPSILON)
        return self._latent


class LossGradient:
    """The gradient of the mean training loss through the full network.

    Where class scores are calibrated, the biases are fitted first and then stay: at their optimum,
    the slope of the loss with their prior needs nothing else.
    """

    def __init__(self, config: Config, task: Task) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = config.model.model_copy(update={"device": device})
        self._scorer = LocalScorer(
            config.model_copy(update={"model": model}), task, differentiable=True
        )

    def __call__(self, latent: Latent) -> Latent:
        """`(d,)` at a latent `(d,)`, with smaller micro-batches where memory runs out."""
        return self._scorer.fitting(lambda: self._at(latent))

    def _at(self, latent: Latent) -> Latent:
        scorer = self._scorer
        biases = calibrate(scorer, latent)
        scorer.model.network_changed()  # what it keeps of that cannot be gone back through
        prompt = scorer.soft_prompt(latent[None]).requires_grad_()
        gradient = torch.zeros_like(prompt)
        for unit in scorer.units(FULL_NETWORK, "train", 1, reduce=True):
            gradient += within_memory(
                partial(self._of_unit, unit, prompt, biases), unit.rows, scorer.config.model.device
            )
        return scorer.soft_prompt.back(gradient[0])

    def _of_unit(self, unit: Unit, prompt: Tensor, biases: Biases | None) -> Tensor:
        scorer, rows = self._scorer, list(unit.examples)
        scores = scorer.model.scores(prompt, scorer.model.batch(scorer.encoded["train"], rows))
        labels = torch.tensor(scorer.task["train"].labels[rows], device=scores.device)
        fair = scores[0] if biases is None else scores[0] + scores.new_tensor(biases[0])
        loss = self._loss(fair, labels) / len(scorer.task["train"])
        return torch.autograd.grad(loss, prompt)[0]

    def _loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Minus the sum of `rewards.py`'s rewards of `(examples, classes)` scores."""
        search = self._scorer.config.search
        if search.loss == "cross-entropy":
            return F.cross_entropy(scores, labels, reduction="sum")
        right = scores.gather(1, labels[:, None])
        violation = (search.margin + scores - right).clamp(min=0)
        return violation.sum() - search.margin * len(labels)


def prompt_tuning(config: Config, task: Task) -> Strategy:
    """Prompt tuning as a search's strategy."""
    search, prompt = config.search, config.prompt
    gradient = LossGradient(config, task)
    return GradientDescent(gradient, prompt.latent_size, search.population, search.learning_rate)
