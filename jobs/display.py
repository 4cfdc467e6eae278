"""What a search shows while it runs and at its end: a live line, plain lines, JSON or little."""

import json
import sys
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from cliptune import loop
from cliptune.loop import Observer
from cliptune.run import Result, result_json


class Display(Observer):
    """Says nothing until the result; what `--quiet` shows."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, markup=False, emoji=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""

    def stopped(self) -> None:
        """The user pressed Ctrl-C."""
        print("Stopped. What was scored until then is in the run's journal.", file=sys.stderr)

    def result(self, result: Result) -> None:
        """Show the table and what it took."""
        table = Table(title="accuracy", title_justify="left", title_style="bold")
        table.add_column()
        splits = list(result.table[0].accuracy)
        for split in splits:
            table.add_column(split, justify="right")
        table.add_column("test, against manual", justify="right")
        manual = result.table[0].accuracy
        for row in result.table:
            gain = (
                ""
                if row is result.table[0]
                else f"{100 * (row.accuracy['test'] - manual['test']):+.1f}"
            )
            cells = [f"{100 * row.accuracy[split]:.1f}%" for split in splits]
            table.add_row(row.name, *cells, gain)
        self.console.print(table)
        cost = result.cost
        self.console.print(
            f"prompt of generation {result.generation + 1}, candidate {result.candidate + 1}, "
            "best on validation"
        )
        self.console.print(
            f"{cost.prompts_scored:,} prompts scored in {cost.seconds:.0f} s; forward passes: "
            f"{cost.search_passes:,} search, {cost.validation_passes:,} validation, "
            f"{cost.evaluation_passes:,} evaluation; {cost.device_seconds:.0f} device seconds"
        )
        self.console.print(f"written to {result.run_dir}", soft_wrap=True)


class PlainDisplay(Display):
    """A line a generation: for logs and pipes."""

    def phase(self, message: str) -> None:
        self.console.print(f"{message} ...", soft_wrap=True)

    def generation(self, progress: loop.Progress) -> None:
        if progress.generation.number == 0:
            self.phase(f"Manual prompt: {progress.manual.accuracy:.1%} on validation. Searching")
        self.console.print(
            f"generation {progress.generation.number + 1}/{progress.generations}  "
            f"{_fitness(progress)}  validation {progress.generation.validation.accuracy:.1%} (best "
            f"{progress.best.validation.accuracy:.1%})  {_speed(progress)}  {_left(progress)} left",
            soft_wrap=True,
        )


class LiveDisplay(Display):
    """One bar that moves: for terminals."""

    def __init__(self) -> None:
        super().__init__()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[numbers]}", markup=False),
            TimeElapsedColumn(),
            console=self.console,
            expand=True,
            transient=True,
        )
        self._task = self._bar.add_task("Starting", total=None, numbers="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bar.stop()

    def phase(self, message: str) -> None:
        self._bar.update(self._task, description=message, numbers="")

    def generation(self, progress: loop.Progress) -> None:
        number = progress.generation.number + 1
        if number == 1:
            self._bar.console.print(f"manual prompt: {progress.manual.accuracy:.1%} on validation")
        wide = self.console.width >= 120
        numbers = (
            f"best {progress.best.validation.accuracy:.1%} on validation  {_left(progress)} left"
        )
        if wide:
            numbers = f"{_fitness(progress)}  {_speed(progress)}  {numbers}"
        self._bar.update(
            self._task,
            description=f"generation {number}/{progress.generations}",
            completed=number,
            total=progress.generations,
            numbers=numbers,
        )

    def result(self, result: Result) -> None:
        self._bar.stop()
        super().result(result)


class JsonDisplay(Display):
    """One JSON object a generation, then one for the result."""

    def generation(self, progress: loop.Progress) -> None:
        generation = progress.generation
        self._print(
            {
                "generation": generation.number,
                "generations": progress.generations,
                "fitness_best": float(generation.fitness.max()),
                "fitness_mean": float(generation.fitness.mean()),
                "spread": spread(progress),
                "step_size": generation.step_size,
                "validation_accuracy": generation.validation.accuracy,
                "validation_loss": generation.validation.loss,
                "best_validation_accuracy": progress.best.validation.accuracy,
                "prompts_scored": progress.prompts_scored,
                **asdict(progress.telemetry),
            }
        )

    def result(self, result: Result) -> None:
        self._print(result_json(result))

    def _print(self, value: Any) -> None:
        print(json.dumps(value, ensure_ascii=False), flush=True)


def choose(*, quiet: bool, json: bool) -> Display:
    """The display for these options and this standard output."""
    if json:
        return JsonDisplay()
    if quiet:
        return Display()
    return LiveDisplay() if sys.stdout.isatty() else PlainDisplay()


def spread(progress: loop.Progress) -> float:
    """How far subnetworks disagree: standard deviation over them, mean over candidates."""
    return float(progress.generation.rewards.std(axis=1).mean())


def _fitness(progress: loop.Progress) -> str:
    fitness = progress.generation.fitness
    return (
        f"fitness {fitness.max():.3f} best {fitness.mean():.3f} mean  spread {spread(progress):.3f}"
    )


def _speed(progress: loop.Progress) -> str:
    population = len(progress.generation.fitness)
    actors = progress.telemetry.workers
    return f"{population / progress.telemetry.seconds:.1f} prompts/s on {actors} actors"


def _left(progress: loop.Progress) -> str:
    done = progress.generation.number + 1
    seconds = progress.seconds / done * (progress.generations - done)
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
