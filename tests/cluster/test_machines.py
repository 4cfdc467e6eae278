"""Processes of this machine; machines themselves are lost in tests/jobs/test_chaos.py."""

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest
from processes import alive, eventually

from cluster.machines import descendants, processes, send


@pytest.fixture
def family() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a child of its own."""
    script = "sleep 100 & wait"
    with subprocess.Popen(["/bin/sh", "-c", script], start_new_session=True) as parent:
        yield parent
        os.killpg(parent.pid, signal.SIGKILL)


def test_children_of_children_are_descendants_and_others_are_not(
    family: subprocess.Popen[bytes],
) -> None:
    assert eventually(lambda: len(descendants(family.pid)) == 1)
    (child,) = descendants(family.pid)
    assert processes()[child][0] == family.pid
    assert {family.pid, child} <= set(descendants(os.getpid()))
    assert family.pid not in descendants(child)


def test_what_has_ended_is_no_descendant(family: subprocess.Popen[bytes]) -> None:
    assert eventually(lambda: len(descendants(family.pid)) == 1)
    os.killpg(family.pid, signal.SIGKILL)
    assert eventually(lambda: processes()[family.pid][1] == "Z")
    assert family.pid not in descendants(os.getpid())


def test_a_signal_arrives() -> None:
    with subprocess.Popen(["/bin/sleep", "100"]) as process:
        send(process.pid, signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM


def test_a_signal_to_a_process_that_is_not_there_is_no_error() -> None:
    nobody = 2**22 + 1  # Linux gives no id so high, so nobody is hit
    assert not alive(nobody)
    send(nobody, signal.SIGKILL)
