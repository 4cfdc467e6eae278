"""What a sweep found: a row a trial, and the settings ranked by their mean over seeds."""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from cliptune.errors import CliptuneError
from cliptune.evaluation import CALIBRATED, ENSEMBLE, MANUAL, TUNED
from cliptune.metrics import f1
from cliptune.record import CONFUSION, RunRecord, is_run, read_run
from cliptune.wording import flat
from cluster.config import ClusterSearch
from jobs.manifest import Entry
from jobs.sweepfile import SCHEMA_VERSION, Settings, brief

TABLE = "table.parquet"
ROWS = {MANUAL: "manual", CALIBRATED: "calibrated", TUNED: "tuned", ENSEMBLE: "ensemble"}
SPLITS = ("train", "validation", "test")
MEASURES = ("accuracy", "loss", "macro_f1", "score")
COSTS = (
    "prompts_scored",
    "search_passes",
    "validation_passes",
    "evaluation_passes",
    "seconds",
    "device_seconds",
)
KNOWN = [
    *(f"validation.{name}" for name in MEASURES),
    *(f"accuracy.{row}.{split}" for row in ROWS.values() for split in SPLITS),
    *(f"f1.{row}.test" for row in ROWS.values()),
    "generations",
    *(f"cost.{name}" for name in (*COSTS, "forward_passes", "retries")),
]

Row = dict[str, Any]


@dataclass(frozen=True)
class Rank:
    """Settings and what they came to, over their seeds: each a mean and a standard deviation."""

    settings: Settings
    seeds: int
    stopped: int
    score: tuple[float, float | None]  # of search.selection on validation, higher is better
    validation: tuple[float, float | None]  # accuracy
    test: tuple[float, float | None] | None  # of the tuned prompt, where a trial was evaluated


def row_of(entry: Entry, run_dir: str) -> Row:
    """A trial's line of the table; what is not known is left out."""
    row: Row = {
        "trial": entry.name,
        "setting": entry.label,
        "seed": entry.seed,
        "state": entry.state,
        "ended": entry.ended,
        "error": entry.error,
        "run_dir": run_dir,
        **entry.settings,
    }
    try:
        record = read_run(ClusterSearch, run_dir) if is_run(run_dir) else None
    except CliptuneError as error:  # such as that it did not come to begin, or is damaged
        record = None
        if entry.state in ("done", "stopped"):
            row["error"] = str(error)
    if record is None:
        return {**row, "search.seed": entry.seed}
    config = flat(record.config.model_dump(mode="json"))
    settings = {name: value for name, value in config.items() if "." in name}
    return {**row, **_found(record), **settings}


def _found(record: RunRecord[ClusterSearch]) -> Row:
    """Scores and costs of a run, finished or not."""
    config, generations = record.config, record.generations
    found: Row = {"generations": len(generations)}
    if best := record.best:
        found |= {f"validation.{name}": v for name, v in asdict(best.validation).items()}
    for name in ("retries", "forward_passes"):
        found[f"cost.{name}"] = sum(getattr(one, name) for one in record.telemetry)
    if result := record.result:
        for name, accuracy in result["accuracy"].items():
            found |= {f"accuracy.{ROWS[name]}.{split}": v for split, v in accuracy.items()}
        for name, table in result.get(CONFUSION, {}).items():
            found[f"f1.{ROWS[name]}.test"] = f1(table)
        return found | {f"cost.{name}": value for name, value in result["cost"].items()}
    return found | {
        "cost.prompts_scored": len(generations) * config.search.population,
        "cost.seconds": sum(one.seconds for one in record.telemetry),
        "cost.device_seconds": sum(one.device_seconds for one in record.telemetry),
    }


def table_of(rows: Sequence[Row], varies: Sequence[str]) -> pa.Table:
    """The rows as a table whose columns have one type each."""
    first = ["trial", "setting", "seed", "state", "ended", "error", "run_dir"]
    rest = sorted({name for row in rows for name in row} - {*first, *KNOWN})
    names = [*first, *KNOWN, *rest]
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    table = pa.table(columns)
    metadata = {
        "cliptune.schema_version": str(SCHEMA_VERSION),
        "cliptune.varies": json.dumps(varies),
    }
    return table.replace_schema_metadata(metadata)


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def _column(values: list[Any]) -> pa.Array:
    """Values of one type as they are; others, and lists, as JSON."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} and kinds != {int}:
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    if kinds <= {int} or kinds <= {bool} or kinds <= {str}:
        return pa.array(values)
    return pa.array([None if v is None else json.dumps(v, ensure_ascii=False) for v in values])


def rank(groups: Iterable[Sequence[Entry]], rows: Mapping[str, Row]) -> list[Rank]:
    """The best settings first, by validation alone; those without any score are left out."""
    ranks = []
    for group in groups:
        seen = [e for e in group if e.state in ("done", "stopped")]
        mine = [rows[e.name] for e in seen if rows[e.name].get("validation.score") is not None]
        if not mine:
            continue
        tests = [row["accuracy.tuned.test"] for row in mine if "accuracy.tuned.test" in row]
        ranks.append(
            Rank(
                settings=group[0].settings,
                seeds=len(mine),
                stopped=sum(row["state"] == "stopped" for row in mine),
                score=_mean([row["validation.score"] for row in mine]),
                validation=_mean([row["validation.accuracy"] for row in mine]),
                test=_mean(tests) if tests else None,
            )
        )
    return sorted(ranks, key=lambda one: -one.score[0])


def ranking_table(ranks: Sequence[Rank], selection: str) -> Table:
    """The ranking for a terminal."""
    measure = "score" if ":" in selection else selection
    title = f"ranked by validation {measure}"
    table = Table(title=title, title_justify="left", title_style="bold")
    names = list(dict.fromkeys(name for one in ranks for name in one.settings))
    table.add_column("", justify="right")
    for name in names:
        table.add_column(name.rpartition(".")[2], overflow="fold")
    table.add_column("seeds", justify="right")
    scored = "" if selection == "accuracy" else measure
    for heading in filter(None, (scored, "validation", "test")):
        table.add_column(heading, justify="right", no_wrap=True)
    for place, one in enumerate(ranks, start=1):
        sign = -1 if selection == "loss" else 1
        score = [_spread(sign * one.score[0], one.score[1])] if scored else []
        seeds = f"{one.seeds}" + (f" ({one.stopped} stopped)" if one.stopped else "")
        settings = [brief(one.settings[n]) if n in one.settings else "" for n in names]
        test = "" if one.test is None else _percent(*one.test)
        table.add_row(str(place), *settings, seeds, *score, _percent(*one.validation), test)
    return table


def _mean(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and, from two values on, the standard deviation of the sample."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _spread(mean: float, deviation: float | None) -> str:
    if not math.isfinite(mean):
        return str(mean)
    return f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"


def _percent(mean: float, deviation: float | None) -> str:
    text = f"{100 * mean:.1f}"
    return f"{text}%" if deviation is None else f"{text}% ± {100 * deviation:.1f}"
