"""The pictures of a run, and of several: each takes numbers and a look, and gives a figure."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from cliptune.report.look import (
    COLD,
    HEAT,
    HEIGHT,
    Look,
    figure,
    legend,
    percent_axis,
    prompts_axis,
)
from cliptune.report.numbers import Correlation, Course, Neighbour, Numbers, Work

LINES = 8  # subnetworks that have a line of their own
NUMBERED = 10  # cells in a row that still hold a number
NAMED = 14  # classes in a matrix that still are named
DIGITS = 30  # beside each other, in the cells of a row
STRONGEST = 0.75  # of a cell's colour: what is written on it has to be read
POINTS = 40  # of a curve whose points can still be told apart


def fitness(look: Look, course: Course) -> Figure:
    """Of each generation: its best candidate and the mean over its candidates."""
    drawn, axes = _curves()
    axes.plot(course.prompts, course.best, label="best of a generation", **look.line(0))
    axes.plot(course.prompts, course.mean, label="its mean", **look.line(1))
    axes.set_ylabel("fitness")
    legend(drawn, axes)
    return drawn


def validation(look: Look, course: Course, manual: float | None) -> Figure:
    """Accuracy of each generation's best, and of the prompt that was chosen by then."""
    drawn, axes = _curves()
    faint: dict[str, Any] = {"color": look.series[0], "linewidth": 0.8, "alpha": 0.6}
    if len(course.prompts) <= POINTS:
        faint |= {"marker": "o", "markersize": 2.5}
    axes.plot(course.prompts, course.accuracy, label="best of a generation", **faint)
    axes.step(course.prompts, course.chosen, where="post", label="chosen so far", **look.line(1))
    if manual is not None:
        axes.axhline(manual, color=look.ink, linestyle="--", linewidth=1, label="manual prompt")
    percent_axis(axes, "validation accuracy")
    legend(drawn, axes)
    return drawn


def rewards(look: Look, course: Course, *, fixed: bool) -> Figure:
    """Above, rewards by subnetwork; below, how far apart they are."""
    drawn = figure(HEIGHT + 1.1)
    above, below = drawn.subplots(2, sharex=True, height_ratios=(3, 2))
    prompts_axis(above, label=False)
    prompts_axis(below)
    subnetworks = course.rewards.shape[1]
    if fixed and subnetworks <= LINES:
        for number in range(subnetworks):
            values = course.rewards[:, number]
            above.plot(course.prompts, values, label=f"{number + 1}", **look.line(number))
    else:
        low, high = course.rewards.min(axis=1), course.rewards.max(axis=1)
        around: dict[str, Any] = {"color": look.series[0], "alpha": 0.25, "linewidth": 0}
        above.fill_between(course.prompts, low, high, label="lowest to highest", **around)
        above.plot(course.prompts, course.rewards.mean(axis=1), label="mean", **look.line(0))
    above.set_ylabel("mean reward")
    legend(drawn, above)
    below.plot(course.prompts, course.spread, **look.line(1))
    below.set_ylim(bottom=0)
    below.set_ylabel("spread")
    below.yaxis.set_major_locator(MaxNLocator(4))
    drawn.align_ylabels()
    return drawn


def correlations(look: Look, found: Correlation) -> Figure:
    """Cells as blue as two subnetworks agree, orange where they contradict each other."""
    count = len(found.pairs)
    drawn = figure(0.55 + 0.85 * min(3.6, 0.6 + 0.42 * count))
    axes = drawn.subplots()
    _cells(axes, found.pairs)
    if count <= NUMBERED:
        _numbers(axes, [[_short(value) for value in row] for row in found.pairs])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(min(10, count), integer=True, min_n_ticks=1))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value + 1:.0f}"))
    axes.set_xlabel("subnetwork")
    axes.set_ylabel("subnetwork")
    return drawn


def step_size(look: Look, course: Course) -> Figure:
    """On a scale of factors: a step size grows and shrinks by them."""
    drawn, axes = _curves()
    axes.plot(course.prompts, course.step_size, **look.line(0))
    _factors(axes, course.step_size)
    axes.set_ylabel("step size")
    return drawn


def speed(look: Look, work: Work) -> Figure:
    """Prompts a second; below, units that had to be given out again, where there were any."""
    again = bool(work.retries.any())
    drawn = figure(HEIGHT + (0.9 if again else 0))
    panels = drawn.subplots(
        1 + again, sharex=True, squeeze=False, height_ratios=(3, 2)[: 1 + again]
    )
    above, below = panels[0, 0], panels[-1, 0]
    above.plot(work.prompts, work.speed, **look.line(0))
    above.set_ylim(bottom=0)
    above.set_ylabel("prompts a second")
    if again:
        prompts_axis(above, label=False)
        below.vlines(work.prompts, 0, work.retries, color=look.series[1], linewidth=2)
        below.set_ylim(bottom=0)
        below.set_ylabel("retried units")
        below.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    prompts_axis(below)
    return drawn


def where_time_went(look: Look, parts: Mapping[str, float]) -> Figure:
    """A bar a part, with its seconds and share."""
    drawn = figure(0.55 + 0.45 * len(parts))
    axes = drawn.subplots()
    whole = sum(parts.values()) or 1.0
    rows = range(len(parts))
    axes.barh(rows, list(parts.values()), color=look.series[0], height=0.6)
    names = [f"{name}\n{seconds:,.1f} s, {seconds / whole:.0%}" for name, seconds in parts.items()]
    axes.set_yticks(rows, names)
    axes.set_ylim(len(parts) - 0.5, -0.5)
    axes.set_xlabel("seconds")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(visible=False, axis="y")
    return drawn


def tokens(look: Look, vectors: Sequence[Sequence[Neighbour]]) -> Figure:
    """A bar a prompt vector: the nearest token, and how near it is."""
    nearest = [row[0] for row in vectors if row]
    drawn = figure(0.6 + 0.19 * len(nearest))
    axes = drawn.subplots()
    rows = range(len(nearest))
    axes.barh(rows, [one.cosine for one in nearest], color=look.series[0], height=0.7)
    axes.set_yticks(
        rows, [f"{n + 1}  {_cut(readable(one.token))}" for n, one in enumerate(nearest)]
    )
    axes.set_ylim(len(nearest) - 0.5, -0.5)
    axes.set_xlabel("cosine")
    axes.grid(visible=False, axis="y")
    return drawn


def confusion(look: Look, counts: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Right classes down, predicted ones across; colours are shares of a row."""
    count = len(counts)
    drawn = figure(1.0 + min(3.2, 0.3 * max(count, 3)))
    axes = drawn.subplots()
    _cells(axes, counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    names = [_cut(f"{number + 1} {name}") for number, name in enumerate(classes)]
    if count <= NAMED:
        if count * len(str(counts.max())) <= DIGITS:
            _numbers(axes, [[str(value) if value else "" for value in row] for row in counts])
        axes.set_yticks(range(count), names)
        axes.set_xticks(range(count), [str(number + 1) for number in range(count)])
    axes.set_xlabel("predicted class")
    axes.set_ylabel("right class")
    return drawn


def compared(
    look: Look, courses: Mapping[int, tuple[Numbers, Numbers]], label: str, kind: str = ""
) -> Figure:
    """A line a run, `(prompts, values)` by its number; `kind` is percent, factors or nothing."""
    drawn, axes = _curves(0.18 * ((len(courses) - 1) // 6))
    for number, (prompts, values) in courses.items():
        step: dict[str, Any] = {"drawstyle": "steps-post"} if kind == "percent" else {}
        axes.plot(prompts, values, label=f"{number}", **look.line(number - 1), **step)
    axes.set_ylabel(label)
    if kind == "percent":
        percent_axis(axes, label)
    if kind == "factors":
        _factors(axes, np.concatenate([values for _, values in courses.values()]))
    legend(drawn, axes)
    return drawn


def readable(token: str) -> str:
    """A token as a person reads it: a space is seen, and so is what would have no shape."""
    text = token.replace("Ġ", "␣").replace("▁", "␣").replace("Ċ", "⏎").replace(" ", "␣")
    return "".join(f"U+{ord(c):04X}" if unicodedata.category(c)[0] == "C" else c for c in text)


def _curves(more: float = 0.0) -> tuple[Figure, Axes]:
    drawn = figure(HEIGHT + more)
    axes = drawn.subplots()
    prompts_axis(axes)
    return drawn, axes


def _factors(axes: Axes, values: Numbers) -> None:
    """A logarithmic axis where values differ by much; else a plain one."""
    if values.min() > 0 and values.max() > 3 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _cells(axes: Axes, values: Numbers) -> None:
    """Cells of -1 to 1: a picture of their own, which is small however many there are."""
    known = np.nan_to_num(values)
    colours = np.empty((*known.shape, 4))
    colours[..., :3] = np.where(known[..., None] < 0, COLD, HEAT)
    colours[..., 3] = STRONGEST * np.abs(known)
    axes.imshow(colours, interpolation="nearest", aspect="equal")
    axes.grid(visible=False)


def _numbers(axes: Axes, cells: Sequence[Sequence[str]]) -> None:
    size = 8.5 if len(cells) <= 7 else 7
    for row, texts in enumerate(cells):
        for column, text in enumerate(texts):
            axes.text(column, row, text, ha="center", va="center", fontsize=size)


def _short(value: float) -> str:
    """`.87`, without what is the same in all cells."""
    if not np.isfinite(value):
        return ""
    text = f"{value:.2f}"
    return text if abs(value) >= 0.995 else text.replace("0.", ".")


def _cut(name: str, most: int = 16) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
