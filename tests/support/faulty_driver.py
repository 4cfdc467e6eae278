"""The `cliptune` command, but that its driver meets a fault at a known point.

`python faulty_driver.py search ...`, told by the environment:

CLIPTUNE_TEST_FAULT   `before 000001.arrow`: the driver ends by SIGKILL right before that file of
                      the journal has its name; `after`: right after; `stands`: it stands still
                      right before, until there is a file named `go on` beside the run
CLIPTUNE_TEST_ACTOR   the actors' class in failing_actors.py
CLIPTUNE_TEST_SILENT  seconds of waiting for room before it is said
"""

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import failing_actors

import cluster.fleet
from cluster import session
from jobs import cli

FAULT, ACTOR, SILENT = "CLIPTUNE_TEST_FAULT", "CLIPTUNE_TEST_ACTOR", "CLIPTUNE_TEST_SILENT"

_replace = Path.replace


def _faulty(self: Path, target: Any) -> Path:
    """`Path.replace`, which gives a file that was written its name."""
    when, _, name = os.environ[FAULT].partition(" ")
    path = Path(target)
    if (path.parent.name, path.name) != ("journal", name):
        return _replace(self, target)
    if when == "stands":
        beside = path.parents[2]
        (beside / "stands").touch()
        while not (beside / "go on").exists():
            time.sleep(0.01)
        return _replace(self, target)
    if when == "after":
        _replace(self, target)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


if __name__ == "__main__":
    if FAULT in os.environ:
        Path.replace = _faulty  # type: ignore[assignment, method-assign]
    if ACTOR in os.environ:
        kind = getattr(failing_actors, os.environ[ACTOR])
        session.ActorPool = partial(session.ActorPool, actor=kind)  # type: ignore[assignment, misc]
    cluster.fleet.SILENT = float(os.environ.get(SILENT, 300.0))
    cli.run()
