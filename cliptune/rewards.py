"""From class scores to rewards, and from many rewards to one fitness: small pure functions.

A reward turns `(..., examples, classes)` class scores and `(examples,)` labels into
`(..., examples)` rewards, higher is better. A mixer turns `(population, subnetworks)` rewards
into `(population,)` fitness.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptune.errors import ConfigError
from cliptune.functions import loss, mixer
from cliptune.registry import called
from cliptune.types import ClassScores, Fitness, Labels, Rewards, Weights

Reward = Callable[[ClassScores, Labels, float], NDArray[np.float64]]
Mix = Callable[[Rewards, Weights | None], Fitness]


def log_probabilities(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log-softmax over the classes, in float64: `(..., classes)` to the same shape."""
    logits = scores.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinite scores become NaN, which the scorer refuses
        shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def cross_entropy(scores: ClassScores, labels: Labels, margin: float) -> NDArray[np.float64]:
    """Log-probability of the right class."""
    return _of_label(log_probabilities(scores), labels)


def hinge(scores: ClassScores, labels: Labels, margin: float) -> NDArray[np.float64]:
    """Minus the sum over wrong classes of max(0, margin + wrong - right).

    The multi-class hinge of Weston and Watkins (1999), as Black-Box Tuning uses it.
    """
    logits = scores.astype(np.float64)
    violation = np.maximum(0.0, margin + logits - _of_label(logits, labels)[..., None])
    return np.asarray(
        margin - violation.sum(axis=-1)
    )  # the right class itself violates by the margin


def accuracy(scores: ClassScores, labels: Labels, margin: float) -> NDArray[np.float64]:
    """1 where the highest score is the right class's, else 0; NaN where scores are no numbers."""
    right = scores.argmax(axis=-1) == labels
    return np.where(np.isfinite(scores).all(axis=-1), right, np.nan)


def _of_label(values: NDArray[np.float64], labels: Labels) -> NDArray[np.float64]:
    index = np.broadcast_to(labels[:, None], (*values.shape[:-1], 1))
    return np.asarray(np.take_along_axis(values, index, axis=-1)[..., 0])


REWARDS: Mapping[str, Reward] = {
    "cross-entropy": cross_entropy,
    "hinge": hinge,
    "accuracy": accuracy,
}


def mean(rewards: Rewards, weights: Weights | None = None) -> Fitness:
    """The mixture of the paper: every critic counts the same."""
    return np.asarray(rewards.mean(axis=1))


def weighted(rewards: Rewards, weights: Weights | None = None) -> Fitness:
    """Critics count by their weights, which need not add up to one."""
    if weights is None:
        raise ValueError("The weighted mixture needs one weight a subnetwork; none were given.")
    share = np.asarray(weights, dtype=np.float64)
    return np.asarray((rewards * (share / share.sum())).sum(axis=1))


def median(rewards: Rewards, weights: Weights | None = None) -> Fitness:
    """What half of the critics agree on."""
    return np.asarray(np.median(rewards, axis=1))


def worst(rewards: Rewards, weights: Weights | None = None) -> Fitness:
    """The harshest critic alone."""
    return np.asarray(rewards.min(axis=1))


def rank_mean(rewards: Rewards, weights: Weights | None = None) -> Fitness:
    """Mean over critics of the candidate's rank, 0 for the worst to 1 for the best; ties share."""
    below = (rewards[:, None, :] > rewards[None, :, :]).sum(axis=1)
    equal = (rewards[:, None, :] == rewards[None, :, :]).sum(axis=1) - 1
    ranks = (below + equal / 2) / max(1, len(rewards) - 1)
    return np.asarray(ranks.mean(axis=1))


MIXERS: Mapping[str, Mix] = {
    "mean": mean,
    "weighted": weighted,
    "median": median,
    "min": worst,
    "rank-mean": rank_mean,
}


def own_loss(name: str, function: Callable[..., Any]) -> Reward:
    """A user's loss of `(..., examples, classes)` scores and labels, one an example, as a reward.

    Lower is better, as in any loss; its negative is the reward.
    """

    def checked(scores: ClassScores, labels: Labels, margin: float) -> NDArray[np.float64]:
        wide = scores.astype(np.float64)
        found = called(loss.setting, name, function, scores=wide, labels=labels)
        return -_of_shape(loss.setting, name, found, scores.shape[:-1], "examples")

    return checked


def own_mixer(name: str, function: Callable[..., Any]) -> Mix:
    """A user's mixture of `(population, subnetworks)` rewards."""

    def checked(rewards: Rewards, weights: Weights | None = None) -> Fitness:
        found = called(mixer.setting, name, function, rewards=rewards)
        return _of_shape(mixer.setting, name, found, rewards.shape[:1], "candidates")

    return checked


def _of_shape(
    setting: str, name: str, found: Any, shape: tuple[int, ...], what: str
) -> NDArray[np.float64]:
    try:
        values = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != shape or not np.isfinite(values).all():
        raise ConfigError(
            f"{setting}: {name} must return finite numbers of shape {shape}, one for each of the "
            f"{what}; found {found!r:.60}."
        )
    return values
