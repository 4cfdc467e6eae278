"""A closer look at a prompt on one split: more measures, and how far the subnetworks agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptune.calibration import calibrated
from cliptune.evaluation import ENSEMBLE, MANUAL, TUNED, critics_of
from cliptune.metrics import Probabilities, accuracy, agreement, confusion, macro_f1, negative_loss
from cliptune.rewards import log_probabilities
from cliptune.scorer import Scorer
from cliptune.subnetwork import FULL_NETWORK, SubnetworkSpec
from cliptune.types import Biases, Labels, Latent


@dataclass(frozen=True)
class Measures:
    """How good predictions are."""

    accuracy: float
    macro_f1: float
    loss: float  # cross-entropy, in nats
    confusion: NDArray[np.int64]  # (classes, classes): right class, predicted class


@dataclass(frozen=True)
class Assessment:
    """A prompt on a split."""

    split: str
    examples: int
    rows: dict[str, Measures]  # by the names of the run's table
    subnetworks: list[float]  # accuracy of each; empty where nothing is clipped
    agreement: float | None  # of their predictions, mean over pairs


def assess(
    scorer: Scorer, latent: Latent, generation: int, split: str, biases: Biases | None = None
) -> Assessment:
    """Score a prompt again as the table at the end of a search does; see `evaluate`.

    Where the `biases` are those of the full network alone, its ensemble is left out.
    """
    critics = critics_of(scorer.config.ensemble, generation)
    if biases is not None:
        critics = critics[: len(biases) - 1]
    labels = scorer.task[split].labels
    manual = _probabilities(scorer, None, split, [FULL_NETWORK])[0]
    tuned = _probabilities(scorer, latent, split, [FULL_NETWORK, *critics], biases)
    rows = {MANUAL: _measure(manual, labels), TUNED: _measure(tuned[0], labels)}
    if critics:
        rows[ENSEMBLE] = _measure(tuned[1:].mean(axis=0), labels)
    return Assessment(
        split=split,
        examples=len(labels),
        rows=rows,
        subnetworks=[accuracy(each, labels) for each in tuned[1:]],
        agreement=agreement(tuned[1:].argmax(axis=-1)) if critics else None,
    )


def _probabilities(
    scorer: Scorer,
    latent: Latent | None,
    split: str,
    networks: Sequence[SubnetworkSpec],
    biases: Biases | None = None,
) -> NDArray[np.float64]:
    """`(networks, examples, classes)`."""
    latents = None if latent is None else latent[None]
    scores: NDArray[Any] = scorer.class_scores(latents, split, networks)[0]
    return np.exp(log_probabilities(calibrated(scores, biases)))


def _measure(probabilities: Probabilities, labels: Labels) -> Measures:
    predicted, classes = probabilities.argmax(axis=-1), probabilities.shape[-1]
    return Measures(
        accuracy=accuracy(probabilities, labels),
        macro_f1=macro_f1(probabilities, labels),
        loss=-negative_loss(probabilities, labels),
        confusion=confusion(predicted, labels, classes),
    )
