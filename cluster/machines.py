"""A Ray cluster of several machines that are all this one: to lose them, and see what happens."""

import contextlib
import ctypes
import logging
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

from cliptune.errors import ScorerError
from cluster.actor import ScoringActor

STORE = 100 * 2**20  # bytes of a machine's object store
NOTICE_SECONDS = 600  # that a machine is said to have left
RAYLET = "raylet"
TITLE = f"ray::{ScoringActor.__name__}"  # of an actor's process
TRIES = 5  # to start a machine
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER


class Machines:
    """A head that does no work, and machines with one CPU each; `end_all` ends them. For Linux."""

    def __init__(self, count: int, folder: Path) -> None:
        """Ray's files go into `folder`, whose path must be short: there are sockets in it."""
        adopt()
        logging.getLogger("ray").setLevel(logging.ERROR)
        head: dict[str, Any] = {"num_cpus": 0, "include_dashboard": False}
        head |= {"object_store_memory": STORE, "temp_dir": str(folder)}
        self._cluster: Any = patiently(
            lambda: Cluster(initialize_head=True, head_node_args=head), "be started"
        )
        self.present: list[Any] = []  # those that work, the oldest first
        for _ in range(count):
            self.add()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self) -> None:
        """One more machine."""
        settings = {"num_cpus": 1, "object_store_memory": STORE}
        self.present.append(
            patiently(lambda: self._cluster.add_node(**settings), "start a machine")
        )

    def remove(self, machine: Any) -> None:
        """A machine goes without a word, and all of its processes with it."""
        processes = descendants(_raylet(machine))
        self.present.remove(machine)
        self._cluster.remove_node(machine, allow_graceful=False)
        for pid in processes:
            send(pid, signal.SIGKILL)

    def notify(self, machine: Any) -> None:
        """What a cloud says before it takes a machine back."""
        give_notice(self.address, machine.node_id)

    def actors(self) -> list[int]:
        """Process ids of the actors that score or are being made, the oldest first."""
        parents = {_raylet(machine) for machine in self.present}
        return sorted(
            pid
            for pid, (parent, state) in processes().items()
            if parent in parents and state not in "ZX" and _title(pid).startswith(TITLE)
        )


def give_notice(address: str, node: str) -> bool:
    """Tell the Ray at `address` that a machine will be gone; whether it takes note of that."""
    reasons: Any = vars(autoscaler_pb2)["DrainNodeReason"]
    reason = reasons.Value("DRAIN_NODE_REASON_PREEMPTION")
    until = int((time.time() + NOTICE_SECONDS) * 1000)
    accepted, _ = GcsClient(address=address).drain_node(node, reason, "spot", until)
    return bool(accepted)


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


def patiently(make: Callable[[], Any], what: str) -> Any:
    """Have Ray start something; on a machine that is too busy for its deadlines, more than once."""
    for left in reversed(range(TRIES)):
        before = children(os.getpid())
        try:
            with _own_signals():
                return make()
        except Exception as error:  # of many kinds, some of them bare
            for pid in children(os.getpid()) - before:
                send(pid, signal.SIGKILL)
            if not left:
                raise ScorerError(f"Ray cannot {what} here: {_first_line(error)}") from error
    return None


def children(pid: int) -> set[int]:
    """Processes that this one has started, or that have come to it."""
    return {child for child, (parent, _) in processes().items() if parent == pid}


def descendants(pid: int) -> list[int]:
    """Living processes that come from this one."""
    below: dict[int, list[int]] = defaultdict(list)
    table = processes()
    for child, (parent, _) in table.items():
        below[parent].append(child)
    found = list(below[pid])
    for one in found:  # grows meanwhile
        found += below[one]
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


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


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
