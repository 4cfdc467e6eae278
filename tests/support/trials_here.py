"""Trials of a sweep one after another in this process, where Ray Tune is not the point."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

from no_ray import without_ray

from cliptune.record import is_run
from cluster.placement import Node
from cluster.session import search
from cluster.trials import Asha, Plan
from cluster.tuning import TuneError


class Here:
    """Runs the trials of a plan one after another in this process."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.asha: Asha | None = None
        self.failing: list[str] = []  # names that are not to succeed
        self.stop_after: int | None = None
        self.breaking_after: list[int] = []  # trials, after which Ray Tune itself fails
        self.meanwhile: Callable[[], object] | None = None  # done once, before the first trial

    def run(self, plan: Plan, observer: Any, *, asha: Asha | None, **_: Any) -> None:
        self.asha = asha
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        while trial := plan.next():
            if len(self.ran) == self.stop_after:
                os.kill(os.getpid(), signal.SIGINT)
            if len(self.ran) in self.breaking_after:
                self.breaking_after.remove(len(self.ran))
                raise TuneError("Ray Tune failed: memory.")
            self.ran.append(trial.name)
            if trial.name in self.failing:
                plan.ended(trial.name, "failed", "no actor lives long here.")
                continue
            search(trial.config, resume=is_run(str(trial.config.run_dir)))
            plan.ended(trial.name, "done", None)


@contextmanager
def trials_here() -> Iterator[Here]:
    runner = Here()
    with (
        patch("cluster.tuning.run", runner.run),
        patch("jobs.sweep.leave", sys.exit),
        patch("jobs.sweep.connected", lambda address: nullcontext()),
        patch("jobs.sweepplan.nodes.present", lambda: [Node(2, 0)]),
        patch("jobs.sweepplan.nodes.growth", list),
        without_ray(),
    ):
        yield runner
