"""The live view of a search: a few lines that move, for terminals."""

import sys
from time import monotonic
from typing import Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Column, Table
from rich.text import Text

from cliptune.journal import Generation
from cliptune.observer import Progress
from cliptune.record import Result
from jobs.chart import sparkline
from jobs.display import Display
from jobs.words import clock, counted, measure_words, resumption, speed


class LiveDisplay(Display):
    """A few lines that move: for terminals."""

    def __init__(self) -> None:
        super().__init__()
        self._spinner = Spinner("dots")
        self._phase: str | None = "Starting"
        self._began = monotonic()  # the phase, or the generation that is being scored
        self._progress: Progress | None = None
        self._fitness: list[float] = []
        self._validation: list[float] = []
        self._live = Live(
            console=self.console,
            get_renderable=self._render,
            transient=True,
            redirect_stderr=sys.stderr.isatty(),  # else warnings belong where it was sent
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """What was shown last stays where a search breaks off."""
        self._end(transient=exception[0] is None)

    def phase(self, message: str) -> None:
        self._phase, self._began = message, monotonic()
        self._live.refresh()

    def resumed(self, generations: int, best: Generation) -> None:
        self.console.print(resumption(generations, best))
        self.phase("Searching")

    def generation(self, progress: Progress) -> None:
        self._fitness.append(float(progress.generation.fitness.max()))
        self._validation.append(progress.generation.validation.score)
        self._progress, self._phase, self._began = progress, None, monotonic()
        self._live.refresh()

    def result(self, result: Result) -> None:
        self._end(transient=True)
        super().result(result)

    def _end(self, *, transient: bool) -> None:
        self._live.transient = transient
        self._live.stop()

    def _render(self) -> RenderableType:
        """The view as of now; asked for several times a second, by another thread."""
        waited = monotonic() - self._began
        progress = self._progress
        if progress is None:
            return self._waiting(waited)
        head = self._head(progress, waited) if self._phase is None else self._waiting(waited)
        return Group(head, self._numbers(progress))

    def _head(self, progress: Progress, waited: float) -> RenderableType:
        """How far the search is, by generations where their number is known, else by time."""
        seconds, left = progress.seconds + waited, progress.seconds_left
        times = f"{clock(seconds)} elapsed"
        if left is not None:
            left = max(0.0, left - waited)
            times += f", {clock(left)} left"
        done, total = progress.generation.number + 1.0, float(progress.generations or 0)
        if not total:
            done, total = seconds, seconds + (left or 0.0)
        row = Table.grid(
            Column(no_wrap=True), Column(ratio=1), Column(no_wrap=True), padding=(0, 1), expand=True
        )
        row.add_row(counted(progress), ProgressBar(total=total, completed=done), times)
        return row

    def _waiting(self, waited: float) -> RenderableType:
        row = Table.grid(*[Column(no_wrap=True) for _ in range(3)], padding=(0, 1))
        row.add_row(self._spinner, Text(self._phase or ""), Text(clock(waited), style="dim"))
        return row

    def _numbers(self, progress: Progress) -> RenderableType:
        generation, best = progress.generation, progress.best
        fitness = f"best {generation.fitness.max():.3f}", f"mean {generation.fitness.mean():.3f}"
        columns = [Column(no_wrap=True) for _ in range(4)]
        rows = Table.grid(
            *columns, Column(ratio=1, no_wrap=True), padding=(0, 2, 0, 0), expand=True
        )
        rows.add_row(
            "fitness", *fitness, f"spread {generation.spread:.3f}", Curve(self._fitness, "cyan")
        )
        rows.add_row(
            "validation", *measure_words(generation.validation), Curve(self._validation, "green")
        )
        rows.add_row("  best", *measure_words(best.validation), f"generation {best.number + 1}")
        rows.add_row("  manual", *measure_words(progress.manual), "")
        return Group(rows, Text(f"speed       {speed(progress)}", no_wrap=True))


class Curve:
    """A sparkline as wide as its place."""

    def __init__(self, values: list[float], style: str) -> None:
        self._values = values
        self._style = style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(sparkline(self._values, options.max_width), style=self._style)
