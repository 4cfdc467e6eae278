"""The section of one run: what it is, what it reached, how it went."""

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from cliptune.account import Outcome, Record, facts, next_step, outcome
from cliptune.evaluation import MANUAL, TUNED
from cliptune.report import figures
from cliptune.report.numbers import (
    Course,
    Neighbour,
    Work,
    confusions,
    correlation,
    course,
    neighbours,
    work,
)
from cliptune.report.parts import Absent, Picture, Section, Step, Table

SAMPLES = 12  # rows of a table that stands for a curve
LARGEST = 30  # classes, or subnetworks, whose table is still read by somebody
BEFORE = (
    "the run was written before this was kept; `cliptune evaluate` shows the confusions, and the "
    "same search, run again, writes both"
)
EARLIER = " Of the search's earlier end."
UNFINISHED = "it is written down when a search ends, and this one has not"
Part = Picture | Absent


def run_section(record: Record) -> Section:
    """Everything about one run, finished or not."""
    found = outcome(record)
    vectors = neighbours(record)
    parts = [*_pictures(record, found), *_at_the_end(record, found, vectors)]
    return Section(
        title=f"{record.config.task.name} with {_last(record.facts.name)}",
        subtitle=record.path,
        facts={name: text for name, text in facts(record, found).items() if name != "run"},
        tables=[] if found.accuracy is None else [_results(found.accuracy)],
        pictures=[part for part in parts if isinstance(part, Picture)],
        absent=[part for part in parts if isinstance(part, Absent)],
        steps=list(_steps(record, found)),
        vectors=vectors or [],
    )


def _last(place: str) -> str:
    return PurePosixPath(place).name or place


def _results(accuracy: Mapping[str, Mapping[str, float]]) -> Table:
    manual = next(iter(accuracy.values()))
    rows = []
    for name, values in accuracy.items():
        gain = "" if values is manual else f"{100 * (values['test'] - manual['test']):+.1f}"
        rows.append([name, *(f"{100 * values[split]:.1f}%" for split in manual), gain])
    return Table("Accuracy", ["", *manual, "gain on test"], rows)


def _steps(record: Record, found: Outcome) -> Iterator[Step]:
    yield Step(*next_step(record, found))
    if found.accuracy is not None:
        evaluate = f"cliptune evaluate {shlex.quote(record.path)} --data PATH"
        yield Step("its prompt on other examples", evaluate)
        yield Step("the prompt itself, (length, width)", f"{record.path}/prompt.safetensors")


def _pictures(record: Record, found: Outcome) -> Iterator[Part]:
    """What the journal and the telemetry show."""
    if not record.generations:
        yield Absent("All pictures of the search", "not one generation is in the journal yet")
        return
    config = record.config
    way = course(record.generations, config.search.population)
    mix = f"{config.ensemble.mixer} of the rewards" if config.ensemble.size > 1 else "reward"
    yield Picture(
        "fitness",
        "Fitness",
        f"The {mix} on the training examples; higher is better.",
        partial(figures.fitness, course=way),
        _course_table(way),
    )
    manual = None if found.accuracy is None else found.accuracy.get(MANUAL, {}).get("validation")
    yield Picture(
        "validation",
        "Accuracy on validation",
        f"Of each generation's best prompt, through the full network. Chosen by "
        f"{config.search.selection}, so the chosen one need not be the most accurate.",
        partial(figures.validation, course=way, manual=manual),
    )
    yield from _subnetworks(record, way)
    yield Picture(
        "step-size",
        "Step size",
        "How far from its centre the search draws its candidates.",
        partial(figures.step_size, course=way),
    )
    yield from _work(work(record, found))


def _subnetworks(record: Record, way: Course) -> Iterator[Part]:
    ensemble = record.config.ensemble
    if ensemble.size == 1:
        why = "there is one network only: nothing to compare"
        yield Absent("Spread of rewards over subnetworks, and their correlation", why)
        return
    fixed = ensemble.mode == "static"
    yield Picture(
        "rewards",
        "Rewards by subnetwork",
        f"Above, the mean reward of a generation's candidates in each of {ensemble.size} "
        "subnetworks; below, the standard deviation over subnetworks, mean over candidates.",
        partial(figures.rewards, course=way, fixed=fixed),
    )
    together = correlation(record.generations)
    within = f"within a generation, where the search compares, {_r(together.within)}"
    if not fixed:
        yield Absent(
            "Correlation between subnetworks, pair by pair",
            "with dynamic clipping each generation has other subnetworks. Mean over the pairs "
            f"{within}",
        )
        return
    cells = [[_r(value) for value in row] for row in together.pairs]
    names = [str(number + 1) for number in range(ensemble.size)]
    rows = [[name, *row] for name, row in zip(names, cells, strict=True)]
    candidates = sum(len(one.fitness) for one in record.generations)
    yield Picture(
        "correlation",
        "Correlation between subnetworks",
        f"Pearson's r of the rewards of all {candidates:,} candidates. Mean over pairs: "
        f"{_r(together.overall)}; {within}.",
        partial(figures.correlations, found=together),
        Table("Pearson's r", ["", *names], rows) if ensemble.size <= LARGEST else None,
    )


def _r(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "unknown"


def _work(took: Work | None) -> Iterator[Part]:
    if took is None:
        yield Absent("Prompts a second, and where the time went", "there is no telemetry")
        return
    fewest, most = took.workers
    on = f"{most}" if fewest == most else f"{fewest} to {most}"
    again = f"{took.retries.sum():,.0f}" if took.retries.any() else "no"
    yield Picture(
        "speed",
        "Prompts a second",
        f"On {on} actor{'s'[: most > 1]}; {again} units had to be given out again.",
        partial(figures.speed, work=took),
    )
    parts = {"computing": took.computing, "waiting, Ray, driver": took.rest}
    if took.between is not None:
        parts["between generations"] = took.between
    yield Picture(
        "time",
        "Where the time went",
        "Computing: seconds that an actor computed, mean over the actors. The rest of a generation "
        "is the driver's own work, Ray, and waiting for the slowest actor. Starting up and the "
        "table at the end are not in it.",
        partial(figures.where_time_went, parts=parts),
        Table("Seconds", ["", "seconds"], [[name, f"{s:,.2f}"] for name, s in parts.items()]),
    )


def _course_table(way: Course) -> Table:
    rows = np.unique(np.linspace(0, len(way.prompts) - 1, SAMPLES).round().astype(int))
    columns = ["prompts", "best", "mean", "spread", "validation", "chosen", "step size"]
    cells = [
        [
            f"{way.prompts[i]:,.0f}",
            *(f"{values[i]:.4g}" for values in (way.best, way.mean, way.spread)),
            *(f"{values[i]:.1%}" for values in (way.accuracy, way.chosen)),
            f"{way.step_size[i]:.4g}",
        ]
        for i in rows
    ]
    return Table("The search in numbers", columns, cells)


def _at_the_end(
    record: Record, found: Outcome, vectors: list[list[Neighbour]] | None
) -> Iterator[Part]:
    """What was written down when the search ended, if only the first time."""
    why = UNFINISHED if record.result is None else BEFORE
    tables, classes = confusions(record), record.config.task.label_words
    for row in (TUNED, MANUAL):
        if row in tables:
            yield _confusion(row, tables[row], classes, "" if found.finished else EARLIER)
    if not tables:
        yield Absent("Confusion matrix on the test set", why)
    if vectors:
        yield Picture(
            "tokens",
            "Nearest tokens",
            "Of each prompt vector, by cosine with the model's word embeddings.",
            partial(figures.tokens, vectors=vectors),
            page=False,
        )
    else:
        why = why if vectors is None else "the model has no vocabulary"
        yield Absent("Nearest vocabulary token to each prompt vector", why)


def _confusion(row: str, counts: Any, classes: Sequence[str], more: str) -> Picture:
    names = [f"{number + 1} {name}" for number, name in enumerate(classes)]
    cells = [[name, *map(str, values)] for name, values in zip(names, counts, strict=True)]
    columns = ["right \\ predicted", *(str(number + 1) for number in range(len(classes)))]
    return Picture(
        f"confusion-{row.partition(' ')[0]}",
        f"Confusions on test, {row}",
        f"{counts.sum():,} examples, {np.trace(counts):,} right; right classes down, predicted "
        f"ones across.{more}",
        partial(figures.confusion, counts=counts, classes=classes),
        Table("Examples", columns, cells) if len(classes) <= LARGEST else None,
    )
