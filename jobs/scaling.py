"""`cliptune scaling`: what the engine adds to a generation, by the number of actors."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from cliptune.errors import ConfigError
from cliptune.reportfile import writable, write
from cluster import scaling
from cluster.scaling import Memory, Modelled, Row
from cluster.session import is_starting
from jobs.display import Display
from jobs.signals import leaving
from jobs.words import plain_table

MOST = 1_000
MODELLED = (128, 256, 512, 1_000)
GENERATIONS = 30
MEMORY_GENERATIONS, SETTLED = 2_000, 200  # those that it runs, and after which it should not grow

Report = dict[str, Any]


def main(
    actors: str,
    *,
    unit_seconds: float,
    generations: int | None,
    memory: bool,
    file: Path | None,
    display: Display,
) -> None:
    """Measure, print, and write the report where that is asked for."""
    counts = numbers(actors)
    if not 0 <= unit_seconds < math.inf:
        raise ConfigError(f"--unit-seconds must be a number from 0 on; found {unit_seconds}.")
    generations = generations or (MEMORY_GENERATIONS if memory else GENERATIONS)
    file = writable(file)
    with leaving(is_starting, display.stopped), display:
        if memory:
            marks = sorted({min(SETTLED, generations), generations})
            found = scaling.growth(generations, marks, display)
        else:
            rows = [scaling.measure(n, unit_seconds, generations, display) for n in counts]
    if memory:
        report: Report = {"memory": [asdict(one) for one in found]}
        tables = [memory_table(found)]
    else:
        modelled = scaling.model(rows, [n for n in MODELLED if n > max(counts)])
        report = {
            "unit_seconds": unit_seconds,
            "generations": generations,
            "measured": [asdict(row) for row in rows],
            "modelled": [asdict(one) for one in modelled],
        }
        tables = [measured_table(rows)]
        tables += [modelled_table(modelled)] if modelled else []
    for table in tables:
        display.console.print(table)
    write(report, file)


def numbers(text: str) -> list[int]:
    """`2,8,32`: numbers of actors, the smallest first."""
    with suppress(ValueError):
        found = sorted({int(part) for part in text.split(",")})
        if found[0] >= 1 and found[-1] <= MOST:
            return found
    raise ConfigError(
        f"--actors must be numbers from 1 to {MOST} with commas between them; found {text}."
    )


def measured_table(rows: Sequence[Row]) -> Table:
    """Milliseconds of a generation; docs/scaling.md says what the columns are."""
    columns = {
        "actors": [f"{row.actors:,}" for row in rows],
        "units": [f"{row.units:,}" for row in rows],
        "calls": [f"{row.calls:.0f}" for row in rows],
        "work": _ms(row.work for row in rows),
        "overhead": _ms(row.overhead for row in rows),
        "least": _ms(row.least for row in rows),
        "bare": _ms(row.bare for row in rows),
        "driver": _ms(row.driver for row in rows),
        "main thread": _ms(row.driver_main for row in rows),
    }
    return _table("measured: ms a generation", columns)


def modelled_table(modelled: Sequence[Modelled]) -> Table:
    columns = {
        "actors": [f"{one.actors:,}" for one in modelled],
        "all on this machine": _ms(one.here for one in modelled),
        "each on its own": _ms(one.elsewhere for one in modelled),
    }
    return _table("modelled: ms a generation", columns)


def memory_table(found: Sequence[Memory]) -> Table:
    """MiB by process, and by how much they grew after the first look."""
    columns = {
        "generation": [f"{one.generation:,}" for one in found],
        "driver": [_mib(one.driver) for one in found],
    }
    for slot in range(len(found[0].actors)):
        columns[f"actor {slot}"] = [_mib(one.actors[slot]) for one in found]
    first, last = found[0], found[-1]
    columns["generation"].append("growth")
    columns["driver"].append(_mib(last.driver - first.driver))
    for slot, before in enumerate(first.actors):
        columns[f"actor {slot}"].append(_mib(last.actors[slot] - before))
    return _table("memory of their own: MiB", columns)


def _table(title: str, columns: Mapping[str, Sequence[str]]) -> Table:
    table = plain_table(*columns, title=title)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


def _ms(seconds: Any) -> list[str]:
    return [f"{1e3 * one:,.1f}" for one in seconds]


def _mib(size: float) -> str:
    return f"{size / 2**20:.1f}"
