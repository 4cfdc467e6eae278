"""What a sweep runs and is told, as far as that has nothing to do with Ray Tune."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from cluster.config import ClusterSearch

Report = dict[str, Any]
State = Literal["done", "stopped", "failed"]


@dataclass(frozen=True)
class Trial:
    """A search to be run; its config has a run_dir, absolute paths, and nothing left on auto but
    what the provider at a `scorer.url` decides."""

    name: str
    config: ClusterSearch


class Plan(Protocol):
    """What a sweep runs; asked and told by one thread."""

    def next(self) -> Trial | None:
        """Another trial; none where there are no more."""

    def reported(self, name: str, report: Report) -> None:
        """A trial has scored a generation, or failed and is tried again."""

    def ended(self, name: str, state: State, error: str | None) -> None:
        """A trial is done, was stopped by ASHA, or failed for good."""


@dataclass(frozen=True)
class Asha:
    """Asynchronous successive halving, in prompts scored."""

    grace: int
    most: int
    reduction: float
    past: Mapping[str, Sequence[Report]]  # what trials of earlier sessions reported
