"""The section of the paper's experiments: their tables, and what methods differ by."""

from collections.abc import Iterator, Sequence
from functools import partial

from matplotlib.figure import Figure

from cliptune.account import clock
from cliptune.report.look import Look, figure
from cliptune.report.parts import Picture, Section, Table
from cliptune.report.sweeps import LINES, Lines, Point, scores
from cliptune.report.trials import measured
from cliptune.results import (
    CALIBRATED,
    LEVEL,
    MAIN,
    MANUAL,
    Cells,
    Difference,
    Row,
    by_experiment,
    difference_cells,
    differences,
    lines_of,
    table_cells,
)

BARS = "Means over seeds; bars are standard deviations."


def results_section(place: str, results: Sequence[Row]) -> Section:
    """All experiments of a folder, as far as they came."""
    searched = [row for row in results if row["method"] not in (MANUAL, CALIBRATED)]
    seeds = ", ".join(map(str, sorted({row["seed"] for row in results})))
    return Section(
        title="The paper's experiments",
        subtitle=place,
        facts={
            "searches": f"{len(searched):,}, with seeds {seeds}",
            "tasks": ", ".join(dict.fromkeys(row["task"] for row in results)),
            "cost": f"{sum(row['prompts_scored'] for row in searched):,} prompts scored; "
            f"{clock(sum(row['seconds'] for row in searched))} of devices",
        },
        tables=list(_tables(results)),
        pictures=list(_pictures(results)),
    )


def _tables(results: Sequence[Row]) -> Iterator[Table]:
    for name, rows in by_experiment(results).items():
        cells = table_cells(lines_of(rows))
        yield _table(f"{name}: test accuracy in %, means and standard deviations over seeds", cells)
        if found := differences(name, results):
            title = f"{name}: differences of test accuracy, paired by task and seed"
            yield _table(title, difference_cells(found))


def _table(title: str, cells: Cells) -> Table:
    head, *body = cells
    return Table(title, head, body, words=[1] if "value" in head else ())


def _pictures(results: Sequence[Row]) -> Iterator[Picture]:
    for name, rows in by_experiment(results).items():
        if all(row["value"] is None for row in rows):
            by_method = partial(scores, name="method", lines=_by_task(rows))
            key = "methods" if name == MAIN else name
            yield Picture(key, f"Test accuracy by method: {name}", BARS, by_method)
        else:
            yield from _of_values(name, rows)
        if found := differences(name, results):
            yield Picture(
                f"{name}-differences",
                f"Differences of test accuracy: {name}",
                f"Paired by task and seed; bars are {LEVEL} % bootstrap intervals.",
                partial(intervals, found=found),
            )


def _by_task(rows: Sequence[Row]) -> Lines:
    """A line a task, a point a method."""
    methods = dict.fromkeys(row["method"] for row in rows)
    return {
        task: [
            Point(method, score)
            for method in methods
            if (score := measured(_tests(rows, task=task, method=method)))
        ]
        for task in dict.fromkeys(row["task"] for row in rows)
    }


def _of_values(name: str, rows: Sequence[Row]) -> Iterator[Picture]:
    """Accuracy over what an experiment varies, a line a task and method."""
    keys = dict.fromkeys((row["task"], row["method"]) for row in rows)
    several = len({task for task, _ in keys}) > 1
    lines = {
        f"{task}, {method}" if several else method: [
            Point(_number(value), score)
            for value in dict.fromkeys(row["value"] for row in rows)
            if (score := measured(_tests(rows, task=task, method=method, value=value)))
        ]
        for task, method in keys
    }
    if len(lines) <= LINES:
        yield Picture(name, f"Test accuracy: {name}", BARS, partial(scores, name=name, lines=lines))


def _tests(rows: Sequence[Row], **wanted: str | None) -> list[float]:
    return [
        row["test_accuracy"]
        for row in rows
        if all(row[name] == value for name, value in wanted.items())
    ]


def _number(value: str | None) -> float | str:
    try:
        return "" if value is None else float(value)
    except ValueError:
        return value or ""


def intervals(look: Look, found: dict[str, Difference]) -> Figure:
    """A row a pair: the mean with its interval, and where nothing would be."""
    drawn = figure(0.9 + 0.3 * len(found))
    axes = drawn.subplots()
    means = [one.mean for one in found.values()]
    below = [one.mean - one.low for one in found.values()]
    above = [one.high - one.mean for one in found.values()]
    axes.axvline(0, color=look.muted, linewidth=1)
    axes.errorbar(
        means,
        range(len(found)),
        xerr=[below, above],
        marker="o",
        markersize=4,
        capsize=3,
        color=look.line(0)["color"],
        linestyle="none",
    )
    axes.set_yticks(range(len(found)), list(found))
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlabel("points of test accuracy")
    return drawn
