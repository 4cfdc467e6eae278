"""How good predictions are, and which measure of it chooses the prompt.

A metric turns `(examples, classes)` probabilities and `(examples,)` labels into one number, higher
is better: `search.selection` names one of these, or a function of the user's own.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptune.errors import ConfigError
from cliptune.functions import metric
from cliptune.registry import called
from cliptune.types import Labels

Probabilities = NDArray[np.floating[Any]]  # (examples, classes), rows add up to 1
Predictions = NDArray[np.int64]  # (..., examples), the index of a class
Metric = Callable[[Probabilities, Labels], float]


def accuracy(probabilities: Probabilities, labels: Labels) -> float:
    """Share of the examples whose likeliest class is the right one."""
    return float((probabilities.argmax(axis=-1) == labels).mean())


def negative_loss(probabilities: Probabilities, labels: Labels) -> float:
    """Mean log-probability of the right class: minus the cross-entropy, in nats."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(np.log(np.maximum(chosen, np.finfo(np.float64).tiny)).mean())


def macro_f1(probabilities: Probabilities, labels: Labels) -> float:
    """Mean over classes of 2 TP / (2 TP + FP + FN), for the classes that occur in either."""
    table = confusion(probabilities.argmax(axis=-1), labels, probabilities.shape[-1])
    occurs, each = _f1_by_class(table)
    return float(each[occurs > 0].mean())


def f1(table: Sequence[Sequence[int]] | NDArray[np.int64]) -> float:
    """F1 of the second of two classes, as of MRPC's paraphrases; of more classes their mean.

    `table` is a `confusion`, `(classes, classes)`.
    """
    occurs, each = _f1_by_class(np.asarray(table))
    return float(each[1] if len(each) == 2 else each[occurs > 0].mean())


def _f1_by_class(table: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """How often each class occurs, right or predicted, and its F1."""
    occurs = table.sum(axis=0) + table.sum(axis=1)
    return occurs, 2 * table.diagonal() / np.maximum(occurs, 1)


def confusion(predicted: Predictions, labels: Labels, classes: int) -> NDArray[np.int64]:
    """How often `(right class, predicted class)` came together, `(classes, classes)`."""
    pairs = labels * classes + predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def agreement(predicted: Predictions) -> float:
    """Share of examples on which two of the networks agree, mean over the pairs.

    `(networks, examples)` predictions; 1 where there is only one network.
    """
    networks = len(predicted)
    if networks < 2:
        return 1.0
    same = (predicted[:, None] == predicted[None, :]).mean(axis=-1)
    return float((same.sum() - networks) / (networks * (networks - 1)))


METRICS: Mapping[str, Metric] = {
    "loss": negative_loss,
    "accuracy": accuracy,
    "macro-f1": macro_f1,
}


def own_metric(name: str, function: Callable[..., Any]) -> Metric:
    """The user's function; what it returns, or raises, is checked at every call."""

    def checked(probabilities: Probabilities, labels: Labels) -> float:
        def number(*arrays: Any) -> float:
            return float(function(*arrays))

        value = called(metric.setting, name, number, probabilities=probabilities, labels=labels)
        if not math.isfinite(value):
            raise ConfigError(
                f"{metric.setting}: {name} must return a finite number, higher is better; "
                f"found {value}."
            )
        return float(value)

    return checked


find_metric = metric.find
