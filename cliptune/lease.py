"""A lock for file systems without locks: a file that its holder keeps renewing."""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliptune.errors import HeldError, RunError

if TYPE_CHECKING:
    from cliptune.storage import Folder

LEASE = "lock.json"
LEASE_SECONDS = 120.0  # after which a search that has not renewed its lease counts as dead


class Lease:
    """Held by one search at a time.

    Two that take it within the same moment may both hold it; equal searches then write equal
    files, and unequal ones are refused by the identity check.
    """

    def __init__(self, folder: "Folder", clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock
        self._me = {"token": secrets.token_hex(8), "host": _host(), "pid": os.getpid()}
        self._over = threading.Event()

    @contextmanager
    def held(self) -> Iterator[None]:
        holder = self._holder()
        if holder and self._lives(holder):
            raise HeldError(
                f"{self._folder.place} is being written by another search, process "
                f"{holder['pid']} on {holder['host']}; wait for its end, stop it, or choose "
                f"another run_dir. A search that died holds it for {LEASE_SECONDS:.0f} seconds."
            )
        self._write()
        keeper = threading.Thread(target=self._keep, daemon=True)
        keeper.start()
        try:
            yield
        finally:
            self._over.set()
            keeper.join()
            with contextlib.suppress(RunError):
                if not self._lost():
                    self._folder.delete(LEASE)

    def renew(self) -> None:
        """Hold it for longer, unless another search took it over while this one slept."""
        if not self._lost():
            self._write()

    def _lost(self) -> bool:
        holder = self._holder()
        return holder is not None and holder["token"] != self._me["token"]

    def _write(self) -> None:
        value = {**self._me, "time": self._clock()}
        self._folder.write(LEASE, json.dumps(value).encode())

    def _keep(self) -> None:
        while not self._over.wait(LEASE_SECONDS / 4):
            with contextlib.suppress(RunError):  # the next renewal may succeed
                self.renew()

    def _holder(self) -> dict[str, Any] | None:
        if not self._folder.exists(LEASE):
            return None
        try:
            value = json.loads(self._folder.read(LEASE))
            numbers = {"pid": int(value["pid"]), "time": float(value["time"])}
            return {"token": value["token"], "host": value["host"], **numbers}
        except (ValueError, KeyError, TypeError):
            return None

    def _lives(self, holder: dict[str, Any]) -> bool:
        if holder["host"] == self._me["host"] and not _process_exists(holder["pid"]):
            return False
        return bool(self._clock() - holder["time"] < LEASE_SECONDS)


def _host() -> str:
    """This machine and, in a container, which one: process ids mean nothing elsewhere."""
    try:
        return f"{socket.gethostname()} ({Path('/proc/self/ns/pid').readlink()})"
    except OSError:
        return socket.gethostname()


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
