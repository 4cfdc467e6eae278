"""Numbers in words, and the parts that several displays have in common."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from cliptune.account import bill_line as bill_line
from cliptune.account import clock as clock  # and these, for all displays
from cliptune.account import cost_line as cost_line
from cliptune.account import measure_words as measure_words
from cliptune.account import measures as measures
from cliptune.account import resume_command as resume_command
from cliptune.journal import Generation, Validation
from cliptune.observer import Progress


def make_console() -> Console:
    """A console that shows names letter by letter, whatever brackets or colons are in them."""
    return Console(highlight=False, markup=False, emoji=False)


def plain_table(first: str, *numbers: str, title: str | None = None) -> Table:
    """A table without lines, empty yet: what a row is about, then numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None)
    table.padding, table.pad_edge, table.header_style = (0, 2, 0, 0), False, "bold"
    return _with_columns(table, first, numbers)


def titled_table(title: str, first: str, *numbers: str) -> Table:
    """The same with lines."""
    table = Table(title=title, title_justify="left", title_style="bold")
    return _with_columns(table, first, numbers)


def _with_columns(table: Table, first: str, numbers: Iterable[str]) -> Table:
    table.add_column(first)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def accuracy_table(rows: Mapping[str, Mapping[str, float]]) -> Table:
    """The table at the end: accuracy by row and split, the first row being the manual prompt."""
    manual = next(iter(rows.values()))
    table = titled_table("accuracy", "", *manual, "test, against manual")
    for name, accuracy in rows.items():
        gain = "" if accuracy is manual else f"{100 * (accuracy['test'] - manual['test']):+.1f}"
        table.add_row(name, *(f"{100 * accuracy[split]:.1f}%" for split in manual), gain)
    return table


def standing_line(names: str, place: str, *, guarded: bool) -> str:
    """What stands where, and for whom."""
    whom = "for who shows the token" if guarded else "for all on this machine"
    return f"{names}: {place} {whom} (Ctrl-C ends it)"


def resumption(generations: int, best: Generation) -> str:
    """Where a search goes on."""
    return (
        f"Resumed at generation {generations + 1}. Best on validation until here: "
        f"{measures(best.validation)} (generation {best.number + 1})"
    )


def counted(progress: Progress) -> str:
    """Which generation of how many."""
    number = f"generation {progress.generation.number + 1}"
    return number if progress.generations is None else f"{number} of {progress.generations}"


def speed(progress: Progress) -> str:
    """Prompts a second and on how many actors, of the generation that was scored last."""
    telemetry = progress.telemetry
    return (
        f"{progress.speed:.1f} prompts/s on {telemetry.workers} actor{'s'[: telemetry.workers > 1]}"
    )


def generation_values(generation: Generation) -> dict[str, float]:
    """A generation as JSON values."""
    return {
        "generation": generation.number,
        "fitness_best": float(generation.fitness.max()),
        "fitness_mean": float(generation.fitness.mean()),
        "spread": generation.spread,
        "step_size": generation.step_size,
        **validation_values("validation", generation.validation),
    }


def validation_values(prefix: str, validation: Validation) -> dict[str, float]:
    """Its measures as JSON values."""
    return {f"{prefix}_{name}": value for name, value in asdict(validation).items()}
