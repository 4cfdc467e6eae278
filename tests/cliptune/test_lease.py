"""The lease: a lock for file systems that have none (see cliptune/storage.py)."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cliptune import lease
from cliptune.errors import RunError
from cliptune.lease import LEASE, LEASE_SECONDS, Lease
from cliptune.storage import LocalFolder

OTHER = "another search"
NOBODY = 99_999_999  # the id of no process on this machine


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lock(folder: LocalFolder) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(folder.read(LEASE))
    return value


def foreign(folder: LocalFolder, **values: Any) -> None:
    """The lease of a search on another machine, taken at 1000 seconds."""
    value = {"token": OTHER, "host": "elsewhere", "pid": NOBODY, "time": 1000.0, **values}
    folder.write(LEASE, json.dumps(value).encode())


@pytest.fixture
def place(tmp_path: Path) -> LocalFolder:
    return LocalFolder(str(tmp_path))


def test_a_lease_says_who_holds_it_and_goes_at_the_end(place: LocalFolder, clock: Clock) -> None:
    with Lease(place, clock).held():
        found = lock(place)
        assert found["pid"] == os.getpid()
        assert found["time"] == 1000.0
    assert place.names() == []


def test_a_fresh_lease_is_respected_wherever_its_holder_is(
    place: LocalFolder, clock: Clock
) -> None:
    foreign(place)
    clock.now += LEASE_SECONDS - 1
    with (
        pytest.raises(RunError, match=rf"process {NOBODY} on elsewhere; wait .*for 120 seconds\.$"),
        Lease(place, clock).held(),
    ):
        raise AssertionError("held twice")
    assert lock(place)["token"] == OTHER


def test_a_stale_lease_of_another_machine_is_taken_over(place: LocalFolder, clock: Clock) -> None:
    foreign(place)
    clock.now += LEASE_SECONDS
    with Lease(place, clock).held():
        assert lock(place)["pid"] == os.getpid()


def test_a_fresh_lease_of_a_dead_process_on_this_machine_is_taken_over(
    place: LocalFolder, clock: Clock
) -> None:
    with Lease(place, clock).held():
        here = lock(place)["host"]
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    foreign(place, host=here, pid=dead.pid)
    with Lease(place, clock).held():
        assert lock(place)["pid"] == os.getpid()


def test_a_lease_of_a_process_that_lives_here_is_respected(
    place: LocalFolder, clock: Clock
) -> None:
    with (
        Lease(place, clock).held(),
        pytest.raises(RunError, match=rf"process {os.getpid()} on"),
        Lease(place, clock).held(),
    ):
        raise AssertionError("held twice")


def test_a_lease_is_renewed_while_it_is_held(
    place: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.004)
    renewed = threading.Event()
    times: list[float] = []

    def ticking() -> float:
        times.append(float(len(times)))
        if len(times) == 4:
            renewed.set()
        return times[-1]

    with Lease(place, ticking).held():
        assert renewed.wait(60)
    assert place.names() == []


def test_a_renewal_that_fails_is_tried_again(
    place: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.004)
    real, again, calls = LocalFolder.write, threading.Event(), iter(range(1000000))

    def flaky(self: LocalFolder, name: str, content: bytes) -> None:
        number = next(calls)
        if number in (1, 2):
            raise RunError("The network is away.")
        real(self, name, content)
        if number == 3:
            again.set()

    monkeypatch.setattr(LocalFolder, "write", flaky)
    with Lease(place, time.time).held():
        assert again.wait(60)


def test_a_lease_that_another_search_took_over_is_left_to_it(
    place: LocalFolder, clock: Clock
) -> None:
    """A machine that slept for an hour must not end the lock of who went on meanwhile."""
    first, second = Lease(place, clock), Lease(place, clock)
    with first.held():
        clock.now += LEASE_SECONDS
        with second.held():
            taken = lock(place)
            first.renew()
            assert lock(place) == taken
        foreign(place)
    assert lock(place)["token"] == OTHER


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b'{"pid": 1}', b"\xff\xfe", b'{"host": 3, "pid": "x"}'),
        b'{"token": "", "host": "", "pid": "x", "time": 1}',
        b'{"token": "", "host": "", "pid": 1, "time": "y"}',
    ],
)
def test_a_lease_that_cannot_be_read_holds_nothing(
    content: bytes, place: LocalFolder, clock: Clock
) -> None:
    place.write(LEASE, content)
    with Lease(place, clock).held():
        assert lock(place)["pid"] == os.getpid()
