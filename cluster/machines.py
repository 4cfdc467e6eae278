"""A Ray cluster of several machines that are all this one: to lose them, and see what happens."""

import contextlib
import ctypes
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

from cluster.actor import ScoringActor

STORE = 100 * 2**20  # bytes of a machine's object store
NOTICE_SECONDS = 600  # that a machine is said to have left
RAYLET = "raylet"
TITLE = f"ray::{ScoringActor.__name__}"  # of an actor's process
JOIN_SECONDS = 120.0
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER


class Machines:
    """A head that does no work, and machines with one CPU each; `end_all` ends them. For Linux."""

    def __init__(self, count: int, folder: Path) -> None:
        """Ray's files go into `folder`, whose path must be short: there are sockets in it."""
        adopt()
        head: dict[str, Any] = {"num_cpus": 0, "include_dashboard": False}
        store: dict[str, Any] = {"object_store_memory": STORE, "temp_dir": str(folder)}
        with _own_signals():
            self._cluster: Any = Cluster(initialize_head=True, head_node_args={**head, **store})
        self.present: list[Any] = []  # those that work, the oldest first
        for _ in range(count):
            self.add()
        self._cluster.wait_for_nodes(JOIN_SECONDS)

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self) -> None:
        """One more machine."""
        with _own_signals():
            machine = self._cluster.add_node(wait=False, num_cpus=1, object_store_memory=STORE)
        self.present.append(machine)

    def remove(self, machine: Any) -> None:
        """A machine goes without a word, and all of its processes with it."""
        processes = descendants(_raylet(machine))
        self.present.remove(machine)
        self._cluster.remove_node(machine, allow_graceful=False)
        for pid in processes:
            send(pid, signal.SIGKILL)

    def notify(self, machine: Any) -> None:
        """What a cloud says before it takes a machine back."""
        reasons: Any = vars(autoscaler_pb2)["DrainNodeReason"]
        reason = reasons.Value("DRAIN_NODE_REASON_PREEMPTION")
        until = int((time.time() + NOTICE_SECONDS) * 1000)
        GcsClient(address=self.address).drain_node(machine.node_id, reason, "spot", until)

    def actors(self) -> list[int]:
        """Process ids of the actors that score or are being made, the oldest first."""
        parents = {_raylet(machine) for machine in self.present}
        return sorted(
            pid
            for pid, (parent, state) in processes().items()
            if parent in parents and state not in "ZX" and _title(pid).startswith(TITLE)
        )


def adopt() -> None:
    """Whatever this process starts stays below it, though what is between them ends."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)


def processes() -> dict[int, tuple[int, str]]:
    """(parent, state) of every process of this machine."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # ended meanwhile
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                found[int(folder.name)] = (int(parent), state)
    return found


def descendants(pid: int) -> list[int]:
    """Living processes that come from this one."""
    children: dict[int, list[int]] = defaultdict(list)
    table = processes()
    for child, (parent, _) in table.items():
        children[parent].append(child)
    found = list(children[pid])
    for one in found:  # grows meanwhile
        found += children[one]
    return [one for one in found if table[one][1] not in "ZX"]


def send(pid: int, number: int) -> None:
    """A signal, to a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def end_all() -> None:
    """End whatever this process has started and what has come of it."""
    while found := descendants(os.getpid()):
        for pid in found:
            send(pid, signal.SIGKILL)
        time.sleep(0.05)


def _raylet(machine: Any) -> int:
    return int(machine.all_processes[RAYLET][0].process.pid)


def _title(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    return ""


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray puts a handler of its own in the place of ours."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
