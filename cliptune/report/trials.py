"""A sweep's table, read: what its trials reached, by their settings. Draws nothing."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from cliptune.errors import RunError
from cliptune.storage import Folder, open_folder
from cliptune.wording import one_line

TABLE = "table.parquet"
VARIES = b"cliptune.varies"
NEEDED = {
    *("trial", "setting", "seed", "state"),
    *("validation.accuracy", "validation.score", "accuracy.tuned.test"),
}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """A number over seeds."""

    mean: float
    deviation: float | None  # of the sample; None for one alone
    count: int


@dataclass(frozen=True)
class Group:
    """The trials of one setting, which differ in their seeds."""

    setting: str
    values: Mapping[str, Any]  # of the settings that vary
    trials: Sequence[Row]

    @property
    def done(self) -> list[Row]:
        return [row for row in self.trials if row["state"] == "done"]

    @property
    def seen(self) -> list[Row]:
        """Those that have something to say: done, or stopped since they fell behind."""
        return [row for row in self.trials if row["state"] in ("done", "stopped")]

    def measured(self, column: str) -> Measured | None:
        """Over the trials that have it, as the ranking has it; None where none has."""
        return measured([row.get(column) for row in self.seen])


@dataclass(frozen=True)
class Sweep:
    """A sweep as far as it came."""

    path: str
    varies: Sequence[str]
    groups: Sequence[Group]  # in the sweep's order

    @property
    def trials(self) -> list[Row]:
        return [row for group in self.groups for row in group.trials]


def is_sweep(place: str) -> bool:
    """Whether a sweep's table lies there."""
    return open_folder(place).exists(TABLE)


def read_sweep(place: str) -> Sweep:
    """Read the table of a sweep, which may still go on; RunError for what is none."""
    table = _read(open_folder(place))
    if missing := sorted(NEEDED - set(table.column_names)):
        raise RunError(f"{place}/{TABLE} is not one of cliptune's: it has no {missing[0]}.")
    try:
        varies = json.loads((table.schema.metadata or {})[VARIES])
    except (KeyError, ValueError):
        raise RunError(
            f"{place}/{TABLE} does not say which settings vary; another cliptune wrote it."
        ) from None
    by_setting: dict[str, list[Row]] = {}
    for row in table.to_pylist():
        by_setting.setdefault(str(row["setting"]), []).append(row)
    varies = [name for name in varies if name in table.column_names]
    groups = [
        Group(setting, {name: _value(rows[0][name]) for name in varies}, rows)
        for setting, rows in by_setting.items()
    ]
    return Sweep(place, varies, groups)


def _read(folder: Folder) -> pa.Table:
    content = folder.read(TABLE)
    try:
        return parquet.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as error:
        raise RunError(f"{folder.place}/{TABLE} is damaged: {one_line(error)}.") from None


def _value(value: Any) -> Any:
    """A setting's value; one that is JSON text, such as a column of mixed types, as what it is."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def measured(values: Sequence[Any]) -> Measured | None:
    """Mean and standard deviation of those that are numbers."""
    known = [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
    if not known:
        return None
    deviation = statistics.stdev(known) if len(known) > 1 else None
    return Measured(statistics.fmean(known), deviation, len(known))


def ranked(sweep: Sweep) -> list[Group]:
    """By their mean score on validation, never by test; those without one last."""

    def score(group: Group) -> float:
        found = group.measured("validation.score")
        return -math.inf if found is None else found.mean

    return sorted(sweep.groups, key=score, reverse=True)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
