"""An actor without a model, whose units take a given time; see scaling.py. Needs no torch."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cliptune.config import Config
from cliptune.scorer import Unit
from cliptune.synthetic import SyntheticScorer
from cliptune.task import Task
from cliptune.types import Latents
from cluster.actor import ScoringActor


@dataclass(frozen=True)
class Told:
    """What an actor says of itself."""

    calls: int  # with units, so far
    memory: int  # bytes
    torch: bool  # whether it was imported


def synthetic(seconds: float) -> type[ScoringActor]:
    """An actor whose units take so long. Made here, it travels by value, the seconds with it."""

    class SyntheticActor(ScoringActor):
        calls = 0

        def make_scorer(self, config: Config, task: Task, threads: int) -> SyntheticScorer:
            return SyntheticScorer(config, task, seconds)

        def run(
            self, units: Sequence[Unit], latents: Latents | bytes | None
        ) -> tuple[list[NDArray[Any]], float]:
            self.calls += 1
            return super().run(units, latents)

        def rest(self, duration: float) -> None:
            """A bare call, that does nothing for so many seconds."""
            time.sleep(duration)

        def told(self) -> Told:
            return Told(self.calls, own_memory(), "torch" in sys.modules)

    return SyntheticActor


def own_memory(status: Path = Path("/proc/self/status")) -> int:
    """Resident bytes without what is shared: Ray's object store is mapped into every process."""
    lines = status.read_text(encoding="ascii", errors="ignore").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    resident, shared = (int(fields[name].split()[0]) for name in ("VmRSS", "RssShmem"))
    return (resident - shared) * 1024
