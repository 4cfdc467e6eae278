"""Who is told how a search goes: displays, trackers, metrics, and what a user makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cliptune.config import Config
from cliptune.journal import Generation, Validation
from cliptune.record import Result, Telemetry


@dataclass(frozen=True)
class Progress:
    """Where a search stands after a generation."""

    generation: Generation
    generations: int | None  # that the budgets pay for; None where only time limits them
    best: Generation  # the one whose prompt is chosen as of now
    manual: Validation
    telemetry: Telemetry
    prompts_scored: int
    seconds: float  # of searching, earlier sessions included
    seconds_left: float | None

    @property
    def speed(self) -> float:
        """Prompts scored a second, in this generation."""
        return len(self.generation.fitness) / self.telemetry.seconds


class Observer:
    """Is told how a search goes; this one does nothing with it.

    What an observer raises ends the search, which can be resumed.
    """

    def phase(self, message: str) -> None:
        """Something begins that takes a while."""

    def waiting(self) -> None:
        """Actors work, and will for a while."""

    def workers(self, count: int) -> None:
        """So many workers can be given work as of now."""

    def writing(self, run_dir: str) -> None:
        """The search is written down here, and can be resumed from here."""

    def begun(self, config: Config, run_dir: str, generations: int) -> None:
        """The model is loaded, and nothing in the config is on auto any more.

        So many generations were searched before, by earlier sessions.
        """

    def resumed(self, generations: int, best: Generation) -> None:
        """The search goes on after so many generations of its journal."""

    def generation(self, progress: Progress) -> None:
        """A generation was scored, told and written down."""

    def result(self, result: Result) -> None:
        """The search has ended, and its prompt is written down."""

    def warning(self, message: str) -> None:
        """Something is not as it should be, and the search goes on."""


class Observers(Observer):
    """Several of them as one, each told in turn."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def phase(self, message: str) -> None:
        self._tell("phase", message)

    def waiting(self) -> None:
        self._tell("waiting")

    def workers(self, count: int) -> None:
        self._tell("workers", count)

    def writing(self, run_dir: str) -> None:
        self._tell("writing", run_dir)

    def begun(self, config: Config, run_dir: str, generations: int) -> None:
        self._tell("begun", config, run_dir, generations)

    def resumed(self, generations: int, best: Generation) -> None:
        self._tell("resumed", generations, best)

    def generation(self, progress: Progress) -> None:
        self._tell("generation", progress)

    def result(self, result: Result) -> None:
        self._tell("result", result)

    def warning(self, message: str) -> None:
        self._tell("warning", message)

    def _tell(self, what: str, *arguments: Any) -> None:
        for observer in self._observers:
            getattr(observer, what)(*arguments)
