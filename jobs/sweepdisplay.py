"""What a sweep shows while it runs: a line a trial, and in a terminal those that run."""

import sys
from typing import Any, Self

from rich.live import Live
from rich.table import Column, Table

from cliptune.observer import Observer
from jobs.manifest import Entry
from jobs.signals import insist
from jobs.sweepfile import brief
from jobs.words import clock, make_console


class SweepDisplay(Observer):
    """Says nothing but warnings."""

    def __init__(self) -> None:
        self.console = make_console()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the terminal as it was."""

    def waiting(self) -> None:
        insist()

    def warning(self, message: str) -> None:
        print(f"cliptune: {message}", file=sys.stderr, flush=True)

    def began(self, place: str, trials: int, ended: int) -> None:
        """Trials are about to be run."""

    def reported(self, entry: Entry, report: dict[str, Any]) -> None:
        """A trial has scored a generation."""

    def ended(self, entry: Entry, row: dict[str, Any], number: int, of: int) -> None:
        """A trial has ended, as the so-manieth."""

    def stopped(self, place: str) -> None:
        """The sweep was asked to stop."""
        text = f"Stopped. The same command goes on with it; what is done stays in {place}"
        print(text, file=sys.stderr)


class PlainSweepDisplay(SweepDisplay):
    """A line a trial: for logs and pipes."""

    def phase(self, message: str) -> None:
        self.console.print(f"{message} ...", soft_wrap=True)

    def began(self, place: str, trials: int, ended: int) -> None:
        before = f", {ended} of them ended before" if ended else ""
        self.phase(f"{trials} trials in {place}{before}. Searching")

    def ended(self, entry: Entry, row: dict[str, Any], number: int, of: int) -> None:
        words = {"done": "done", "stopped": "stopped by ASHA", "failed": "failed"}[entry.state]
        fields = [f"trial {number} of {of} {words}:", *_short(entry)]
        for name, column in (
            ("validation", "validation.accuracy"),
            ("test", "accuracy.tuned.test"),
        ):
            if row.get(column) is not None:
                fields.append(f" {name} {row[column]:.1%}")
        if seconds := row.get("cost.seconds"):
            fields.append(f" ({clock(seconds)})")
        self.console.print(" ".join(fields), soft_wrap=True)
        if entry.error:
            self.warning(f"{entry.name}: {entry.error}")


class LiveSweepDisplay(PlainSweepDisplay):
    """With the trials that run, below the lines of those that ended."""

    def __init__(self) -> None:
        super().__init__()
        self._running: dict[str, tuple[Entry, dict[str, Any]]] = {}
        self._live = Live(
            console=self.console,
            get_renderable=self._render,
            transient=True,
            redirect_stderr=sys.stderr.isatty(),
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def reported(self, entry: Entry, report: dict[str, Any]) -> None:
        self._running[entry.name] = entry, report
        self._live.refresh()

    def ended(self, entry: Entry, row: dict[str, Any], number: int, of: int) -> None:
        self._running.pop(entry.name, None)
        super().ended(entry, row, number, of)

    def _render(self) -> Table:
        table = Table.grid(*[Column(no_wrap=True) for _ in range(3)], padding=(0, 2, 0, 0))
        for entry, report in list(self._running.values()):
            of = "" if report["generations"] is None else f" of {report['generations']}"
            table.add_row(
                " ".join(_short(entry)),
                f"generation {report['generation']}{of}",
                f"validation {report['accuracy']:.1%}",
            )
        return table


def _short(entry: Entry) -> list[str]:
    """Settings by the last part of their names, and the seed."""
    settings = [f"{name.rpartition('.')[2]}={brief(v)}" for name, v in entry.settings.items()]
    return [*settings, f"seed={entry.seed}"]


def choose(*, quiet: bool) -> SweepDisplay:
    """The display for this standard output."""
    if quiet:
        return SweepDisplay()
    console = make_console()
    moves = console.is_terminal and not console.is_dumb_terminal
    return LiveSweepDisplay() if moves else PlainSweepDisplay()
