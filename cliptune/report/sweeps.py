"""The section of a sweep: what its settings do to the scores, over seeds, and their ranking."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from cliptune.account import clock, typed
from cliptune.report.look import HEIGHT, Look, figure, legend, percent, percent_axis
from cliptune.report.parts import Absent, Picture, Section, Step, Table, report_command
from cliptune.report.trials import Group, Measured, Sweep, is_number, measured, ranked

SCORES = {
    "test": (
        "Accuracy on test",
        {
            "tuned prompt": "accuracy.tuned.test",
            "thinned ensemble": "accuracy.ensemble.test",
            "manual prompt": "accuracy.manual.test",
        },
    ),
    "validation": ("Accuracy on validation", {"chosen prompt": "validation.accuracy"}),
}
FACTOR = 30.0  # between the largest and the smallest value, from where on an axis is logarithmic
NAME = 22  # letters of a value that are shown on an axis
LEGEND = 44  # and of one in a legend, which stand below each other
RANKED = 50  # rows of the table
MARKERS = "osD^v"  # by the line
LINES = 8  # values of a second setting that have a line of their own


@dataclass(frozen=True)
class Point:
    """A score at one value of a setting."""

    value: Any
    score: Measured


Lines = Mapping[str, Sequence[Point]]


def sweep_section(sweep: Sweep) -> Section:
    """All that a sweep's table shows, as far as it came."""
    states = Counter(str(row["state"]) for row in sweep.trials)
    seeds = sorted({str(row["seed"]) for row in sweep.trials})
    parts = list(_pictures(sweep))
    return Section(
        title=f"Sweep over {', '.join(sweep.varies) or 'seeds'}",
        subtitle=sweep.path,
        facts={
            "trials": ", ".join(f"{count} {state}" for state, count in states.items()),
            "settings": f"{len(sweep.groups)}, with seed{'s'[: len(seeds) > 1]} {', '.join(seeds)}",
            "cost": _cost(sweep),
        },
        tables=[_ranking(sweep), *_failed(sweep)],
        pictures=[part for part in parts if isinstance(part, Picture)],
        absent=[part for part in parts if isinstance(part, Absent)],
        steps=_steps(sweep),
    )


def _cost(sweep: Sweep) -> str:
    def total(column: str) -> float:
        return float(sum(row.get(column) or 0 for row in sweep.trials))

    prompts, seconds = total("cost.prompts_scored"), total("cost.seconds")
    return f"{prompts:,.0f} prompts scored; {clock(seconds)} of searching, all trials together"


def _steps(sweep: Sweep) -> list[Step]:
    done = [group for group in ranked(sweep) if group.done]
    if not done:
        return []
    best = max(done[0].done, key=lambda row: row.get("validation.score") or float("-inf"))
    command = report_command(f"{sweep.path}/trials/{best['trial']}")
    return [Step("a report of the best setting's best trial", command)]


def _ranking(sweep: Sweep) -> Table:
    columns = ["", "setting", "done", "validation score", "validation", "test", "ensemble"]
    names = ("validation.accuracy", "accuracy.tuned.test", "accuracy.ensemble.test")
    rows = [
        [
            str(place) if group.measured("validation.score") else "",
            group.setting or "all",
            f"{len(group.done)} of {len(group.trials)}",
            _words(group.measured("validation.score"), "{:.3f}".format),
            *(_words(group.measured(name), "{:.1%}".format) for name in names),
        ]
        for place, group in enumerate(ranked(sweep), 1)
    ]
    title = "Ranking by the score on validation: means and standard deviations over seeds"
    if len(rows) > RANKED:
        title += f"; the first {RANKED} of {len(rows)}"
    return Table(title, columns, rows[:RANKED], words=(1,))


def _words(found: Measured | None, form: Any) -> str:
    if found is None:
        return ""
    more = "" if found.deviation is None else f" ± {form(found.deviation)}"
    return f"{form(found.mean)}{more}"


def _failed(sweep: Sweep) -> list[Table]:
    rows = [
        [str(row["trial"]), str(row.get("error") or "no reason was written down")]
        for row in sweep.trials
        if row["state"] == "failed"
    ]
    return [Table("Trials that failed", ["trial", "why"], rows, words=(1,))] if rows else []


def _pictures(sweep: Sweep) -> Iterator[Picture | Absent]:
    """Each score over each setting that varies; over two of them, a line a value of the second."""
    if not any(group.done for group in sweep.groups):
        yield Absent("All pictures", "no trial has come to its end yet")
        return
    if not sweep.varies:
        yield Absent("Scores by setting", "no setting varies but the seed")
    for name in sweep.varies:
        others = [other for other in sweep.varies if other != name]
        every = f"Over all values of {', '.join(others)}. " if others else ""
        for kind, (title, columns) in SCORES.items():
            lines = _lines_by(sweep.groups, name, others[0], columns) if len(others) == 1 else {}
            said = f"A line for each value of {others[0]}. " if lines else every
            if lines := lines or _lines_of(sweep.groups, name, columns):
                yield _picture(f"{kind}-{name}", title, name, lines, said)


def _picture(file: str, title: str, name: str, lines: Lines, more: str) -> Picture:
    counts = sorted({point.score.count for points in lines.values() for point in points})
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    trials = "trial" if counts == [1] else "trials"
    bars = "" if counts == [1] else "; bars are standard deviations"
    rows = [
        [typed(point.value), line, _words(point.score, "{:.1%}".format), str(point.score.count)]
        for line, points in lines.items()
        for point in points
    ]
    return Picture(
        file,
        f"{title} by {name}",
        f"{more}Means over {n} {trials}{bars}.",
        partial(scores, name=name, lines=lines),
        Table(title, [name, "", "mean", "trials"], rows, words=(1,)),
    )


def _lines_of(groups: Sequence[Group], name: str, columns: Mapping[str, str]) -> Lines:
    """A line a score, over the values of one setting."""
    lines = {line: _points(groups, name, column) for line, column in columns.items()}
    return {line: points for line, points in lines.items() if points}


def _lines_by(groups: Sequence[Group], name: str, other: str, columns: Mapping[str, str]) -> Lines:
    """A line a value of the other setting, of the first score."""
    column = next(iter(columns.values()))
    values = _sorted({_key(group.values[other]): group.values[other] for group in groups})
    if len(values) > LINES:
        return {}
    lines = {
        _said(value): _points(
            [group for group in groups if _key(group.values[other]) == _key(value)], name, column
        )
        for value in values
    }
    return {line: points for line, points in lines.items() if points}


def _points(groups: Sequence[Group], name: str, column: str) -> list[Point]:
    values = _sorted({_key(group.values[name]): group.values[name] for group in groups})
    points = []
    for value in values:
        same = [group for group in groups if _key(group.values[name]) == _key(value)]
        score = measured([row.get(column) for group in same for row in group.seen])
        points += [] if score is None else [Point(value, score)]
    return points


def _key(value: Any) -> str:
    return repr(value)


def _sorted(values: Mapping[str, Any]) -> list[Any]:
    """Numbers by size; what is none in the sweep's order."""
    found = list(values.values())
    return sorted(found) if all(map(is_number, found)) else found


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else typed(value)


def _name(value: Any, most: int = NAME) -> str:
    """As there is room for it in a picture."""
    text = _said(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def scores(look: Look, name: str, lines: Lines) -> Figure:
    """Means with their deviations: over a numeric axis, or a row a value."""
    values = [point.value for points in lines.values() for point in points]
    if all(map(is_number, values)) and len(set(values)) > 1:
        return _over_numbers(look, name, lines)
    return _by_name(look, name, lines)


def _over_numbers(look: Look, name: str, lines: Lines) -> Figure:
    drawn = figure(HEIGHT + 0.18 * ((len(lines) - 1) // 3))
    axes = drawn.subplots()
    for number, (line, points) in enumerate(lines.items()):
        axes.errorbar(
            [point.value for point in points],
            [point.score.mean for point in points],
            yerr=_bars(points),
            label=_name(line, LEGEND),
            marker=MARKERS[number % len(MARKERS)],
            markersize=4,
            capsize=3,
            **look.line(number),
        )
    _numeric_axis(axes, sorted({point.value for points in lines.values() for point in points}))
    axes.set_xlabel(name)
    percent_axis(axes, "accuracy")
    legend(drawn, axes)
    return drawn


def _numeric_axis(axes: Axes, values: Sequence[float]) -> None:
    axes.margins(x=0.06)
    if values[0] > 0 and values[-1] >= FACTOR * values[0]:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        whole = all(float(value).is_integer() for value in values)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole))


def _bars(points: Sequence[Point]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([point.score.deviation or 0.0 for point in points])


def _by_name(look: Look, name: str, lines: Lines) -> Figure:
    """Names are read most easily one under the other."""
    values = list({_key(p.value): p.value for points in lines.values() for p in points}.values())
    places = {_key(value): row for row, value in enumerate(values)}
    drawn = figure(0.9 + (0.16 + 0.16 * len(lines)) * len(values))
    axes = drawn.subplots()
    for number, (line, points) in enumerate(lines.items()):
        beside = 0.22 * (number - (len(lines) - 1) / 2)
        axes.errorbar(
            [point.score.mean for point in points],
            [places[_key(point.value)] + beside for point in points],
            xerr=_bars(points),
            label=_name(line, LEGEND),
            marker="o",
            markersize=4,
            capsize=3,
            color=look.line(number)["color"],
            linestyle="none",
        )
    axes.set_yticks(range(len(values)), [_name(value) for value in values])
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlabel("accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(percent))
    legend(drawn, axes)
    return drawn
