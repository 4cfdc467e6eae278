"""What a report is made of, before it is drawn or laid out."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from cliptune.report.look import Draw
from cliptune.report.numbers import Neighbour


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names a row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[int] = ()  # columns beside the first that hold words, not numbers
    keyed: bool = False  # whether the rows are the lines of the pictures, in their colours


@dataclass(frozen=True)
class Picture:
    """A figure with what has to be said of it."""

    name: str  # of its file
    title: str
    caption: str
    draw: Draw
    table: Table | None = None
    page: bool = True  # whether it is on the page too, or a file only


@dataclass(frozen=True)
class Absent:
    """A picture that cannot be, and why."""

    title: str
    why: str


@dataclass(frozen=True)
class Step:
    """What can be done next, and the command that does it."""

    words: str
    command: str | None


def report_command(place: str) -> str:
    """What to type for the report of a run."""
    return f"cliptune report {shlex.quote(place)}"


@dataclass(frozen=True)
class Section:
    """A run, several runs, or a sweep."""

    title: str
    subtitle: str
    facts: dict[str, str] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    absent: Sequence[Absent] = ()
    steps: Sequence[Step] = ()
    vectors: Sequence[Sequence[Neighbour]] = ()  # the tokens nearest to each prompt vector
