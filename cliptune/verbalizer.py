"""Words for a verbalizer, found on the training examples: what a model says of one class alone.

The classes' nearest shrunken centroids (Tibshirani et al., PNAS 2002) among the log-probabilities
of the vocabulary's words where a label word would stand, without a soft prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from cliptune.errors import ConfigError
from cliptune.models.base import FrozenModel
from cliptune.models.words import WordModel
from cliptune.rewards import log_probabilities
from cliptune.task import Split
from cliptune.types import Labels

CANDIDATES = 3000  # words, the likeliest ones: how a class has the rarest is chance
MOST = 50  # examples a class; their scores of a whole vocabulary are kept at the same time
AT_ONCE = 16  # examples through the model

Array = NDArray[np.floating]


def find_words(model: FrozenModel, train: Split, count: int) -> tuple[tuple[str, ...], ...]:
    """So many words of each class beside the task's own, those first that tell most; fewer where
    there are no more.

    `model` is as it was loaded, without any of the changes that make it faster. Raises ConfigError
    where it reads no words.
    """
    if not isinstance(model, WordModel):
        raise ConfigError(
            f"model.readout {model.readout} compares texts and reads no words, so there are none "
            "to be found. Give several label texts a class in task.verbalizer yourself."
        )
    classes = model.task.classes
    rows = [np.flatnonzero(train.labels == label)[:MOST] for label in range(classes)]
    examples = train.take(np.sort(np.concatenate(rows)))
    known = np.concatenate(list(_log_probabilities(model, examples)))
    candidates = np.argsort(-np.exp(known).mean(axis=0), kind="stable")
    # ten times as many, as parts of words, numbers and the like are none
    candidates = np.array(list(_words(model, candidates[: 10 * CANDIDATES]))[:CANDIDATES], int)
    if not len(candidates):
        return ((),) * classes
    distances = centroid_distances(known[:, candidates], examples.labels, classes)
    own = distances.argmax(axis=0)
    found = []
    for label in range(classes):
        best = np.argsort(-np.where(own == label, distances[label], -np.inf), kind="stable")
        ids = candidates[best[: min(count, int((own == label).sum()))]]
        found.append(tuple(model.tokenizer.decode([token]).strip() for token in ids))
    return tuple(found)


def centroid_distances(values: Array, labels: Labels, classes: int) -> Array:
    """`(classes, features)`: how far a class's mean lies above that of all examples.

    `values` are `(examples, features)`. In units of s + s0, where s is the features' standard
    deviation within classes and s0 its median over features: (mean_c - mean) / (s + s0).
    """
    values = values.astype(np.float64)
    means = np.stack([values[labels == label].mean(axis=0) for label in range(classes)])
    within = ((values - means[labels]) ** 2).sum(axis=0) / max(1, len(values) - classes)
    spread = np.sqrt(within)
    return np.asarray((means - values.mean(axis=0)) / (spread + (np.median(spread) or 1.0)))


@torch.inference_mode()
def _log_probabilities(model: WordModel, examples: Split) -> Iterator[Array]:
    """`(examples, vocabulary)`, some at a time."""
    encoded = model.encode(examples, 0)
    with model.reading_all_words():
        for start in range(0, len(examples), AT_ONCE):
            rows: Sequence[int] = range(start, min(start + AT_ONCE, len(examples)))
            scores = model.class_scores(None, model.batch(encoded, rows))[0].cpu().numpy()
            yield log_probabilities(scores).astype(np.float32)


def _words(model: WordModel, tokens: NDArray[np.int64]) -> Iterator[int]:
    """Those tokens that are whole words, also in the place of {mask}: none of the task's, and none
    twice, however they are written."""
    own = set(model.find_label_words())
    known = {word.casefold() for word in model.task.every_word}
    for token in tokens.tolist():
        word = model.tokenizer.decode([token]).strip()
        new = token not in own and word.casefold() not in known
        if new and len(word) > 1 and word.isalpha() and model.is_word(token, word):
            known.add(word.casefold())
            yield token
