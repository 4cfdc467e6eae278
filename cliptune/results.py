"""Results, a row a search: the paper's table, and differences between methods with intervals."""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cliptune.errors import RunError
from cliptune.randomness import generator
from cliptune.storage import open_folder

Row = dict[str, Any]

RESULTS = "results.parquet"
MAIN = "main"  # the experiment of the paper's table
PLAIN = "plain"  # what an experiment varies, left as it is
WORDS = "verbalizer"  # that of several words a class, with and without a prompt
MANUAL = "manual"  # the template alone
CALIBRATED = "calibrated"  # and with class biases that fit the training examples
SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("seed", pa.int64()),
        ("method", pa.string()),
        ("setting", pa.string()),  # main, or the experiment's name
        ("value", pa.string()),  # of what an experiment varies; null in main
        ("validation_accuracy", pa.float64()),
        ("test_accuracy", pa.float64()),
        ("test_f1", pa.float64()),
        ("ensemble_test_accuracy", pa.float64()),  # of the thinned networks' mean; null without
        ("prompts_scored", pa.int64()),
        ("forward_passes", pa.int64()),  # prompts x subnetworks x training examples
        ("seconds", pa.float64()),  # of devices
    ]
)
PAIRS = (
    ("clip-static", "bbt"),
    ("clip-static", "bbt-equal-passes"),
    ("clip-static", "clip-dynamic"),
    ("clip-static", "random"),
    ("clip-static", "manual"),
    ("clip-calibrated", "clip-static"),
    ("clip-calibrated", "bbt-calibrated"),
    ("clip-calibrated", "calibrated"),
    ("bbt-calibrated", "bbt"),
    ("bbt-calibrated", "clip-static"),
    ("deep-bbt", "bbt"),
    ("deep-clip", "clip-static"),
    ("deep-clip", "deep-bbt"),
    ("clip-static", "prompt-tuning"),
    ("deep-clip", "prompt-tuning"),
)
RESAMPLES = 10_000
LEVEL = 95  # percent


def results_of(rows: Iterable[Row], experiment: str) -> list[Row]:
    """A row a search that is done and can be read; of experiments that tell of the template, the
    manual prompts."""
    done = [row for row in rows if row["state"] == "done" and "accuracy.tuned.test" in row]
    found = [_result(row, experiment) for row in done]
    if experiment not in (MAIN, WORDS):
        return found
    manual = {(row["task"], row["seed"]): _manual(row, MANUAL, experiment) for row in done}
    calibrated = {
        (row["task"], row["seed"]): _manual(row, CALIBRATED, experiment)
        for row in done
        if row.get("accuracy.calibrated.test") is not None
    }
    return [*manual.values(), *calibrated.values(), *found]


def table_of(results: Sequence[Row]) -> pa.Table:
    """The results by `SCHEMA`."""
    return pa.Table.from_pylist(list(results), schema=SCHEMA)


def is_results(place: str) -> bool:
    return open_folder(place).exists(RESULTS)


def read_results(place: str) -> list[Row]:
    """The results in a folder; RunError for a file that holds none."""
    content = open_folder(place).read(RESULTS)
    try:
        table = pq.read_table(pa.BufferReader(content))
        rows: list[Row] = table.select(SCHEMA.names).cast(SCHEMA).to_pylist()
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        what = " ".join(str(error).split())
        raise RunError(f"{place}/{RESULTS} does not hold results: {what:.200}") from None
    return rows


def by_experiment(results: Sequence[Row]) -> dict[str, list[Row]]:
    """Results by what they belong to, the main experiment first."""
    names = dict.fromkeys([MAIN, *(row["setting"] for row in results)])
    found = {name: [row for row in results if row["setting"] == name] for name in names}
    return {name: rows for name, rows in found.items() if rows}


def _result(row: Row, experiment: str) -> Row:
    return {
        "task": row["task"],
        "seed": row["seed"],
        "method": row["method"],
        "setting": experiment,
        "value": row["value"],
        "validation_accuracy": row["accuracy.tuned.validation"],
        "test_accuracy": row["accuracy.tuned.test"],
        "test_f1": row.get("f1.tuned.test"),
        "ensemble_test_accuracy": row.get("accuracy.ensemble.test"),
        "prompts_scored": row["cost.prompts_scored"],
        "forward_passes": row["cost.search_passes"],
        "seconds": row["cost.device_seconds"],
    }


def _manual(row: Row, method: str, experiment: str) -> Row:
    """What a search's table says of no soft prompt, `manual` or `calibrated`."""
    return {
        "task": row["task"],
        "seed": row["seed"],
        "method": method,
        "setting": experiment,
        "value": row["value"],
        "validation_accuracy": row[f"accuracy.{method}.validation"],
        "test_accuracy": row[f"accuracy.{method}.test"],
        "test_f1": row.get(f"f1.{method}.test"),
        "prompts_scored": 0,
        "forward_passes": 0,
        "seconds": 0.0,
    }


@dataclass(frozen=True)
class Mean:
    """Over seeds, in percent; the deviation is the sample's."""

    mean: float
    deviation: float | None

    def __str__(self) -> str:
        spread = "" if self.deviation is None else f" ± {self.deviation:.1f}"
        return f"{self.mean:.1f}{spread}"


def mean_of(shares: Sequence[float]) -> Mean:
    """Shares between 0 and 1."""
    percent = [100 * share for share in shares]
    return Mean(statistics.fmean(percent), statistics.stdev(percent) if len(percent) > 1 else None)


@dataclass(frozen=True)
class Difference:
    """One method's test accuracy less another's, in points, over the cells that both have."""

    mean: float
    low: float  # of the interval; NaN where one cell alone tells nothing
    high: float
    cells: int
    better: int  # cells in which the first is

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.mean:+.1f}"
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def difference(firsts: Sequence[Row], seconds: Sequence[Row]) -> Difference | None:
    """Of test accuracy, paired over (task, seed), with the bootstrap's interval of 95 %.

    Cells are drawn with replacement 10,000 times, always the same ones (Efron, 1979). The interval
    is the expanded percentile one (Hesterberg, What teachers should know about the bootstrap,
    2015): between the quantiles a and 1 - a of the means, where a = Phi(-sqrt(n / (n - 1)) t), t
    is the quantile 0.975 of Student's distribution with n - 1 degrees of freedom, and n the number
    of cells. With few of them plain percentiles are too narrow. NaN for one cell alone; None where
    no cell is in both.
    """
    from scipy import special  # comes with the extras `sweep` and `report`

    first, second = (
        {(row["task"], row["seed"]): row["test_accuracy"] for row in rows}
        for rows in (firsts, seconds)
    )
    cells = sorted(first.keys() & second.keys())
    if not cells:
        return None
    points = np.array([100 * (first[cell] - second[cell]) for cell in cells])
    drawn = generator("bootstrap", len(cells)).integers(len(cells), size=(RESAMPLES, len(cells)))
    low, high = math.nan, math.nan
    if (n := len(cells)) > 1:
        tail = special.ndtr(-np.sqrt(n / (n - 1)) * special.stdtrit(n - 1, (100 + LEVEL) / 200))
        low, high = np.quantile(points[drawn].mean(axis=1), [tail, 1 - tail])
    return Difference(float(points.mean()), float(low), float(high), n, int((points > 0).sum()))


def differences(experiment: str, results: Sequence[Row]) -> dict[str, Difference]:
    """What there is to compare: methods in pairs; what an experiment varies with its plain
    searches by the same method, or with the main experiment's."""
    rows = by_experiment(results)
    mine = dict(_by_method(rows.get(experiment, [])))
    pairs = {f"{a} - {b}": (mine.get((a, None), []), mine.get((b, None), [])) for a, b in PAIRS}
    plain = {method: found for (method, _), found in _by_method(rows.get(MAIN, []))}
    for (method, value), found in mine.items():
        if value == PLAIN:  # of a cell that is in both, these
            plain[method] = [*plain.get(method, []), *found]
    for (method, value), found in mine.items():
        if value not in (None, PLAIN):
            pairs[f"{method}, {value} - {method}"] = (found, plain.get(method, []))
    compared = {name: difference(*pair) for name, pair in pairs.items()}
    return {name: one for name, one in compared.items() if one is not None}


@dataclass(frozen=True)
class Line:
    """A method's line of the paper's table."""

    method: str
    value: str | None  # of what an experiment varies
    scores: Mapping[str, Mean | None]  # by column: a task, or a task's F1
    average: float | None  # over tasks, where it has all of them
    cost: tuple[int, int, float]  # prompts, forward passes, device seconds: mean of a search


def lines_of(results: Sequence[Row]) -> list[Line]:
    """The table: methods, or what an experiment varies, by tasks, over seeds."""
    tasks = list(dict.fromkeys(row["task"] for row in results))
    columns = [(task, task, "test_accuracy") for task in tasks]
    columns += [("mrpc F1", task, "test_f1") for task in tasks if task == "mrpc"]
    return [_line(*key, mine, columns) for key, mine in _by_method(results)]


def _by_method(results: Sequence[Row]) -> Iterator[tuple[tuple[str, str | None], list[Row]]]:
    keys = dict.fromkeys((row["method"], row.get("value")) for row in results)
    for key in keys:
        yield key, [row for row in results if (row["method"], row.get("value")) == key]


def _line(
    method: str, value: str | None, mine: Sequence[Row], columns: Sequence[tuple[str, str, str]]
) -> Line:
    scores: dict[str, Mean | None] = {}
    for column, task, score in columns:
        known = [row[score] for row in mine if row["task"] == task and row[score] is not None]
        scores[column] = mean_of(known) if known else None
    means = [scores[task] for column, task, _ in columns if column == task]
    known_means = [mean.mean for mean in means if mean is not None]
    average = statistics.fmean(known_means) if len(known_means) == len(means) else None

    def each(name: str) -> float:
        return statistics.fmean(row[name] for row in mine)

    cost = round(each("prompts_scored")), round(each("forward_passes")), each("seconds")
    return Line(method, value, scores, average, cost)


Cells = list[list[str]]


def table_cells(lines: Sequence[Line]) -> Cells:
    """The table in words, its head first."""
    varied = any(line.value is not None for line in lines)
    columns = list(dict.fromkeys(column for line in lines for column in line.scores))
    head = ["method", *(["value"] if varied else []), *columns, "mean"]
    head += ["prompts", "forward passes", "device seconds"]
    body = [
        [
            line.method,
            *([line.value or ""] if varied else []),
            *(str(line.scores[column] or "") for column in columns),
            "" if line.average is None else f"{line.average:.1f}",
            *(f"{amount:,.0f}" for amount in line.cost),
        ]
        for line in lines
    ]
    return [head, *body]


def difference_cells(found: Mapping[str, Difference]) -> Cells:
    """Differences in words, a head first."""
    head = ["", f"points [{LEVEL} % interval]", "cells", "better in"]
    return [head, *([name, str(d), str(d.cells), str(d.better)] for name, d in found.items())]


def markdown(cells: Cells) -> str:
    """A table as Markdown."""
    head, *body = cells
    rows = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
