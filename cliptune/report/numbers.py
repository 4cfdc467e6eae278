"""From a run's record to the numbers that its pictures show. Draws nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptune.account import Outcome, Record
from cliptune.errors import RunError
from cliptune.journal import Generation, best_of
from cliptune.record import CARD, CONFUSION, NEAREST, Telemetry, read_json
from cliptune.storage import open_folder

Numbers = NDArray[np.float64]
MOST = 300  # points of a curve: what a picture can show, however long the search was


@dataclass(frozen=True)
class Course:
    """How a search went, a point a generation, or a point for some that follow each other."""

    prompts: Numbers  # scored by then
    best: Numbers  # fitness of a generation's best candidate
    mean: Numbers  # fitness over its candidates
    accuracy: Numbers  # of its best candidate on the validation set
    chosen: Numbers  # of the prompt that was chosen by then
    step_size: Numbers
    spread: Numbers  # standard deviation over subnetworks, mean over candidates
    rewards: Numbers  # (points, subnetworks), means over candidates


@dataclass(frozen=True)
class Work:
    """What a search took; of those generations alone whose telemetry is there."""

    prompts: Numbers
    speed: Numbers  # prompts a second
    retries: Numbers
    workers: tuple[int, int]  # the fewest and the most
    computing: float  # seconds of the generations in which an actor computed, mean over actors
    rest: float  # their other seconds: driver, Ray, waiting for the slowest
    between: float | None  # seconds of the search in no generation; known once it has ended


@dataclass(frozen=True)
class Correlation:
    """How far subnetworks agree on candidates. Pearson's r; NaN where a reward never differs."""

    pairs: Numbers  # (subnetworks, subnetworks), over all candidates
    overall: float  # mean over pairs of different ones
    within: float  # the same of rewards less their generation's mean


@dataclass(frozen=True)
class Neighbour:
    """A token that a prompt vector is near to."""

    token: str
    cosine: float


def course(generations: Sequence[Generation], population: int) -> Course:
    """The course of at least one generation."""
    found, best = [], generations[0]
    for one in generations:
        best = best_of([best, one])
        accuracies = one.validation.accuracy, best.validation.accuracy
        found.append((one.fitness.max(), one.fitness.mean(), *accuracies, one.step_size))
    spans = spans_of(len(generations))
    columns = [list(column) for column in zip(*found, strict=True)]
    rewards = np.array([one.rewards.mean(axis=0) for one in generations])
    return Course(
        prompts=np.asarray(population * (_lasts(spans) + 1.0)),
        best=_means(columns[0], spans),
        mean=_means(columns[1], spans),
        accuracy=_means(columns[2], spans),
        chosen=np.asarray(columns[3], dtype=np.float64)[_lasts(spans)],
        step_size=np.asarray(columns[4], dtype=np.float64)[_lasts(spans)],
        spread=_means([one.spread for one in generations], spans),
        rewards=np.array([rewards[span].mean(axis=0) for span in spans]),
    )


def spans_of(count: int) -> list[NDArray[np.int64]]:
    """At most MOST runs of neighbours, that together are all."""
    return np.array_split(np.arange(count), min(count, MOST))


def _lasts(spans: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.array([span[-1] for span in spans])


def _means(values: Sequence[float], spans: Sequence[NDArray[np.int64]]) -> Numbers:
    return np.array([np.asarray(values, dtype=np.float64)[span].mean() for span in spans])


def work(record: Record, found: Outcome) -> Work | None:
    """What the generations took; None where that was not written down."""
    rows = [one for one in record.telemetry if one.generation < len(record.generations)]
    rows = [one for one in rows if one.seconds > 0 and one.workers > 0]
    if not rows:
        return None
    population, seconds = record.config.search.population, sum(one.seconds for one in rows)
    spans = spans_of(len(rows))
    busy = min(seconds, sum(one.device_seconds / one.workers for one in rows))
    whole = found.cost is not None and len(rows) == len(record.generations)
    return Work(
        prompts=np.array([population * (rows[span[-1]].generation + 1.0) for span in spans]),
        speed=np.array([_speed([rows[i] for i in span], population) for span in spans]),
        retries=np.array([float(sum(rows[i].retries for i in span)) for span in spans]),
        workers=(min(one.workers for one in rows), max(one.workers for one in rows)),
        computing=busy,
        rest=seconds - busy,
        between=max(0.0, found.seconds - seconds) if whole else None,
    )


def _speed(rows: Sequence[Telemetry], population: int) -> float:
    return population * len(rows) / sum(one.seconds for one in rows)


def correlation(generations: Sequence[Generation]) -> Correlation:
    """Of at least two subnetworks' rewards."""
    raw = np.concatenate([one.rewards for one in generations])
    centred = np.concatenate([one.rewards - one.rewards.mean(axis=0) for one in generations])
    pairs = _pearson(raw)
    return Correlation(pairs, _mean_of_pairs(pairs), _mean_of_pairs(_pearson(centred)))


def _pearson(rewards: Numbers) -> Numbers:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.corrcoef(rewards, rowvar=False), dtype=np.float64)


def _mean_of_pairs(pairs: Numbers) -> float:
    known = pairs[np.triu_indices(len(pairs), 1)]
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else math.nan


def confusions(record: Record) -> dict[str, NDArray[np.int64]]:
    """Test examples by right class and predicted class, `(classes, classes)`, by row of the table.

    Empty where the run has not ended, or ended before they were written down.
    """
    tables: Any = (record.result or {}).get(CONFUSION, {})
    classes = len(record.config.task.label_words)
    try:
        found = {str(name): np.array(table, dtype=np.int64) for name, table in tables.items()}
        if any(table.shape != (classes, classes) or table.min() < 0 for table in found.values()):
            raise ValueError(f"expected counts of {classes} by {classes} classes")
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RunError(f"{record.path}/result.json: {CONFUSION} is damaged: {error}.") from None
    return found


def neighbours(record: Record) -> list[list[Neighbour]] | None:
    """The tokens that each vector of the written prompt is nearest to; empty where the model has
    no vocabulary, None where the run has not ended or ended before they were written down."""
    folder = open_folder(record.path)
    if record.result is None or not folder.exists(CARD):
        return None
    rows = read_json(folder, CARD).get(NEAREST)
    if rows is None:
        return None
    try:
        return [[Neighbour(str(one["token"]), 0.0 + one["cosine"]) for one in row] for row in rows]
    except (KeyError, TypeError) as error:
        raise RunError(
            f"{record.path}/{CARD}: {NEAREST} is damaged: {type(error).__name__} {error}."
        ) from None
