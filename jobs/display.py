"""What a search shows while it runs and at its end: plain lines, JSON or little; see live.py."""

import json
import sys
from dataclasses import asdict
from typing import Any, Self

import cliptune
from cliptune.journal import Generation
from cliptune.observer import Observer, Progress
from cliptune.record import Result
from cliptune.run import result_json
from jobs.logline import log_line
from jobs.signals import insist
from jobs.words import (
    accuracy_table,
    bill_line,
    clock,
    cost_line,
    counted,
    generation_values,
    make_console,
    measures,
    resume_command,
    resumption,
    speed,
    validation_values,
)


class Display(Observer):
    """Says nothing until the result; what `--quiet` shows."""

    def __init__(self) -> None:
        self.console = make_console()
        self._run_dir: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the terminal as it was."""

    def waiting(self) -> None:
        insist()

    def writing(self, run_dir: str) -> None:
        self._run_dir = run_dir

    def warning(self, message: str) -> None:
        """Beside the output, whatever that is."""
        print(f"cliptune: {message}", file=sys.stderr)

    def stopped(self) -> None:
        """The search was asked to stop, by Ctrl-C for instance."""
        text = "Stopped."
        if self._run_dir is not None:
            text += f" Go on with it: {resume_command(self._run_dir)}"
        print(text, file=sys.stderr)

    def result(self, result: Result) -> None:
        """Show the table and what it took."""
        which = "the mean" if result.candidate is None else f"candidate {result.candidate + 1}"
        self.console.print(accuracy_table({row.name: row.accuracy for row in result.table}))
        self.console.print(
            f"prompt of generation {result.generation + 1}, {which}, chosen on validation: "
            f"{measures(result.validation)}"
        )
        self.console.print(cost_line(asdict(result.cost)))
        if result.bill is not None:
            self.console.print(f"of the provider: {bill_line(asdict(result.bill))}")
        self.console.print(f"ended: {result.stopped}")
        self.console.print(f"written to {result.run_dir}", soft_wrap=True)


class PlainDisplay(Display):
    """A line a generation: for logs and pipes."""

    _began = False

    def phase(self, message: str) -> None:
        self.console.print(f"{message} ...", soft_wrap=True)

    def resumed(self, generations: int, best: Generation) -> None:
        self.console.print(resumption(generations, best), soft_wrap=True)

    def generation(self, progress: Progress) -> None:
        if not self._began:
            self.phase(f"Manual prompt: {measures(progress.manual)} on validation. Searching")
            self._began = True
        self.console.print(self._line(progress), soft_wrap=True)

    def _line(self, progress: Progress) -> str:
        generation, best = progress.generation, progress.best
        left = progress.seconds_left
        fields = (
            counted(progress),
            f"fitness {generation.fitness.max():.3f} best {generation.fitness.mean():.3f} mean",
            f"spread {generation.spread:.3f}",
            f"validation {measures(generation.validation)} (best {measures(best.validation)})",
            speed(progress),
            "" if left is None else f"{clock(left)} left",
        )
        return "  ".join(filter(None, fields))


class LogDisplay(PlainDisplay):
    """As plain lines, but those of the generations are for programs too: for a job's log."""

    def __enter__(self) -> Self:
        self.console.print(f"cliptune {cliptune.__version__}")  # it need not be the submitter's
        return self

    def _line(self, progress: Progress) -> str:
        return log_line(progress)


class JsonDisplay(Display):
    """One JSON object a generation, then one for the result."""

    def generation(self, progress: Progress) -> None:
        self._print(
            {
                **generation_values(progress.generation),
                "generations": progress.generations,
                "best_generation": progress.best.number,
                **validation_values("best_validation", progress.best.validation),
                "prompts_scored": progress.prompts_scored,
                "elapsed_seconds": progress.seconds,
                "seconds_left": progress.seconds_left,
                **asdict(progress.telemetry),
            }
        )

    def result(self, result: Result) -> None:
        self._print(result_json(result))

    def _print(self, value: Any) -> None:
        print(json.dumps(value, ensure_ascii=False), flush=True)


def choose(*, quiet: bool, json: bool, log: bool = False) -> Display:
    """The display for these options and this standard output."""
    if json:
        return JsonDisplay()
    if log:
        return LogDisplay()
    if quiet:
        return Display()
    from jobs.live import LiveDisplay

    console = make_console()
    moves = console.is_terminal and not console.is_dumb_terminal
    return LiveDisplay() if moves else PlainDisplay()
