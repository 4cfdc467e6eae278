"""How good predictions are, and which measure of it chooses the prompt.

A metric turns `(examples, classes)` probabilities and `(examples,)` labels into one number, higher
is better: `search.selection` names one of these, or a function of the user's own.
"""

import hashlib
import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptune.errors import ConfigError
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


@cache
def find_metric(name: str) -> Metric:
    """A metric by its name, or the user's own by `module:function` or `file.py:function`."""
    if name in METRICS:
        return METRICS[name]
    where, _, function = name.rpartition(":")
    try:
        found = getattr(_module(where), function)
    except Exception as error:
        raise ConfigError(
            f"search.selection: {name} cannot be imported: {error or type(error).__name__}. "
            f"Expected {', '.join(METRICS)}, or the path of a function of your own."
        ) from error
    return _checked(name, found)


def source_digest(name: str) -> str | None:
    """SHA-256 of the file that the user's own metric is written in; None for ours."""
    if name in METRICS:
        return None
    find_metric(name)
    where = name.rpartition(":")[0]
    file = where if where.endswith(".py") else inspect.getsourcefile(sys.modules[where])
    return None if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _module(where: str) -> Any:
    if not where.endswith(".py"):
        return _import(where)
    path = Path(where).resolve()
    name = f"cliptune_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _import(name: str) -> Any:
    """A module that is installed, or lies in the folder where the user stands."""
    here = str(Path.cwd())
    sys.path.append(here)  # last, so that nothing there hides an installed one
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(here)


def _checked(name: str, function: Callable[..., Any]) -> Metric:
    """The user's function; what it returns, or raises, is checked at every call."""

    def metric(probabilities: Probabilities, labels: Labels) -> float:
        try:
            value = float(function(probabilities.copy(), labels.copy()))
        except Exception as error:
            raise ConfigError(
                f"search.selection: {name} failed on probabilities {probabilities.shape} and "
                f"labels {labels.shape}: {type(error).__name__}: {error}"
            ) from error
        if not math.isfinite(value):
            raise ConfigError(
                f"search.selection: {name} must return a finite number, higher is better; "
                f"found {value}."
            )
        return value

    return metric
