"""Watching processes come and go, without sleeping for a fixed time."""

import os
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 60.0  # seconds before a test that waits gives up


def eventually(holds: Callable[[], bool], patience: float = PATIENCE) -> bool:
    """Whether it comes true before the deadline."""
    deadline = time.monotonic() + patience
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def with_environment(entry: str) -> list[int]:
    """Ids of the processes that inherited `NAME=value`."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                entries = (process / "environ").read_bytes().split(b"\0")
            except OSError:  # ended meanwhile, or another user's
                continue
            if entry.encode() in entries:
                found.append(int(process.name))
    return found
