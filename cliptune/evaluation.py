"""How good is a prompt: on the validation set while searching, and in the table at the end."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cliptune.calibration import calibrated, class_biases
from cliptune.config import EnsembleConfig
from cliptune.errors import ModelError
from cliptune.journal import Validation
from cliptune.metrics import accuracy, confusion, find_metric, macro_f1, negative_loss
from cliptune.rewards import log_probabilities
from cliptune.scorer import Scorer
from cliptune.subnetwork import FULL_NETWORK, SubnetworkSpec, ensemble
from cliptune.task import SPLITS
from cliptune.types import Biases, Labels, Latent

MANUAL = "manual prompt"
CALIBRATED = "manual, calibrated"
TUNED = "tuned prompt"
ENSEMBLE = "thinned ensemble"


@dataclass(frozen=True)
class Row:
    """A line of the table at the end: accuracy by split, 0 to 1."""

    name: str
    accuracy: dict[str, float]
    confusion: list[list[int]] | None = None  # test examples by right class and predicted class


def calibrate(
    scorer: Scorer, latent: Latent | None, networks: Sequence[SubnetworkSpec] = (FULL_NETWORK,)
) -> Biases | None:
    """The class biases `(networks, classes)` of a prompt, or of none; None unless asked for."""
    if not scorer.config.search.calibrate:
        return None
    latents = None if latent is None else latent[None]
    scores = scorer.class_scores(latents, "train", networks)[0]
    return class_biases(scores, scorer.task["train"].labels)


def critics_of(config: EnsembleConfig, generation: int) -> tuple[SubnetworkSpec, ...]:
    """The thinned networks that are a prompt's ensemble: with dynamic clipping, those of the
    generation that it comes from. Without clipping there are none."""
    return () if config.mode == "none" else ensemble(config, generation)


def validate(scorer: Scorer, latent: Latent | None, biases: Biases | None = None) -> Validation:
    """A prompt, or none, on the validation set through the full network, with its class biases."""
    latents = None if latent is None else latent[None]
    scores = scorer.class_scores(latents, "validation", [FULL_NETWORK])[0]
    fair = calibrated(scores, biases)
    if latent is not None and not np.isfinite(fair).all():
        raise ModelError(
            "The full network's class scores of a prompt, on the training or the validation set, "
            "are not all finite numbers. A wider model.dtype or a smaller prompt.scale may help."
        )
    measure = scorer.config.search.selection
    return measured(fair[0], scorer.task["validation"].labels, measure)


def measured(scores: NDArray[np.floating], labels: Labels, selection: str) -> Validation:
    """How well class scores `(examples, classes)` fit the labels; `selection` names the metric that
    counts."""
    probabilities = np.exp(log_probabilities(scores))
    return Validation(
        accuracy=accuracy(probabilities, labels),
        loss=-negative_loss(probabilities, labels),
        macro_f1=macro_f1(probabilities, labels),
        score=find_metric(selection)(probabilities, labels),
    )


def evaluate(
    scorer: Scorer, latent: Latent, generation: int, biases: Biases | None = None
) -> list[Row]:
    """The table: no soft prompt, the tuned one, and its thinned ensemble's mean probabilities.

    `generation` is the one that the prompt comes from; see `critics_of`. With the class `biases` of
    the prompt in the full network and in its critics, there is also a row of no soft prompt with
    biases of its own.
    """
    critics = critics_of(scorer.config.ensemble, generation)
    accuracies: dict[str, dict[str, float]] = defaultdict(dict)
    confusions: dict[str, list[list[int]]] = {}
    bare = calibrate(scorer, None)
    for split in SPLITS:
        labels = scorer.task[split].labels
        manual = scorer.class_scores(None, split, [FULL_NETWORK])[0, 0]
        tuned = scorer.class_scores(latent[None], split, [FULL_NETWORK, *critics])[0]
        tuned = calibrated(tuned, biases)
        found = {MANUAL: manual}
        if bare is not None:
            found[CALIBRATED] = manual + bare[0]
        found[TUNED] = tuned[0]
        if critics:
            found[ENSEMBLE] = np.exp(log_probabilities(tuned[1:])).mean(axis=0)
        for name, scores in found.items():
            accuracies[name][split] = accuracy(scores, labels)
            if split == "test":
                table = confusion(scores.argmax(axis=-1), labels, scores.shape[-1])
                confusions[name] = table.tolist()
    return [Row(name, values, confusions[name]) for name, values in accuracies.items()]
