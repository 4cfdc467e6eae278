"""What goes wrong in a chaos run: drawn beforehand from one seed, and done to a running search."""

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from cliptune.errors import ScorerError
from cluster.machines import Machines, send
from jobs.sessions import LOOK, Sessions

ABSENT = 2.0, 15.0  # seconds that a machine is missing
NOTICE = 1.0, 10.0  # seconds between a notice and the machine's end
STALLED = 300.0  # seconds without a generation, after which something is wrong
ENDS = 5  # of the driver by itself, without a generation in between


class Kind(StrEnum):
    """A kind of fault."""

    ACTOR_KILLED = "actor killed"
    ACTOR_STOPPED = "actor stopped, so that it hangs"
    MACHINE_GONE = "machine gone"
    MACHINE_NOTIFIED = "machine gone after a notice"
    DRIVER_KILLED = "driver killed"
    DRIVER_TERMINATED = "driver terminated"
    JOURNAL_CUT = "driver killed, journal cut"


WEIGHTS = {
    Kind.ACTOR_KILLED: 34,
    Kind.ACTOR_STOPPED: 12,
    Kind.MACHINE_GONE: 18,
    Kind.MACHINE_NOTIFIED: 10,
    Kind.DRIVER_KILLED: 12,
    Kind.DRIVER_TERMINATED: 7,
    Kind.JOURNAL_CUT: 7,
}


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong once so many generations are in the journal."""

    point: float  # its fraction: so much later, of what a generation takes
    kind: Kind
    seed: int  # of what else is drawn: whom it hits, for how long


@dataclass
class Struck:
    """A fault that happened."""

    seconds: float  # since the search began
    generation: int
    kind: Kind
    what: str
    until_next: float | None = None  # seconds until a further generation was in the journal


def schedule(seed: int, faults: int, generations: int) -> list[Fault]:
    """So many faults, spread over the search; of every kind, as far as there are enough."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    kinds = draw.sample(list(Kind), min(faults, len(Kind)))
    kinds += draw.choices(list(WEIGHTS), list(WEIGHTS.values()), k=faults - len(kinds))
    draw.shuffle(kinds)
    each = (generations - 2) / faults
    points = [1 + (number + draw.random()) * each for number in range(faults)]
    return [
        Fault(point, kind, draw.getrandbits(32)) for point, kind in zip(points, kinds, strict=True)
    ]


class Disturbance:
    """A search, and what happens to it."""

    def __init__(
        self,
        machines: Machines,
        sessions: Sessions,
        faults: Sequence[Fault],
        pace: float,
        say: Callable[[str], None],
    ) -> None:
        """`pace` are the seconds that a generation takes when nothing happens."""
        self.struck: list[Struck] = []
        self.own_ends = 0  # of the driver, without having been asked to
        self._machines, self._sessions = machines, sessions
        self._coming, self._pace, self._say = list(faults), pace, say
        self._later: list[tuple[float, Callable[[], str]]] = []
        self._leaving: list[Any] = []  # machines with a notice
        self._stopped: set[int] = set()
        self._began = self._changed = time.monotonic()
        self._done = self._ends = 0

    def run(self) -> None:
        """Until the search has come to its end."""
        while (code := self._sessions.ended()) != 0:
            if code is not None:
                self._ended_by_itself(code)
            if not self._sessions.running and self._staying:
                self._sessions.start()
            self._see_generations()
            self._keep_appointments()
            if self._coming and self._is_due(self._coming[0]):
                self._strike(self._coming[0])
            time.sleep(LOOK)
        self._see_generations()

    @property
    def _staying(self) -> list[Any]:
        return [one for one in self._machines.present if one not in self._leaving]

    def _see_generations(self) -> None:
        done, now = self._sessions.generations, time.monotonic()
        if done != self._done:
            for struck in self.struck:
                if struck.until_next is None and done > struck.generation:
                    struck.until_next = now - self._began - struck.seconds
            self._done, self._changed, self._ends = done, now, 0
        elif now - self._changed > STALLED:
            raise ScorerError(
                f"The disturbed search stands still: no generation after {done} for "
                f"{STALLED:.0f} seconds. Its last words: {self._sessions.last_words()}"
            )

    def _is_due(self, fault: Fault) -> bool:
        whole = int(fault.point)
        waited = time.monotonic() - self._changed
        return self._done > whole or (
            self._done == whole and waited >= (fault.point - whole) * self._pace
        )

    def _strike(self, fault: Fault) -> None:
        """Do it; later, where there is nobody yet to do it to."""
        draw = random.Random(fault.seed)  # noqa: S311 - no secret
        done = self._sessions.generations
        if what := self._do(fault.kind, draw):
            self._coming.pop(0)
            now = time.monotonic() - self._began
            self.struck.append(Struck(now, done, fault.kind, what))
            self._tell(f"{len(self.struck)}. {fault.kind}: {what}")

    def _do(self, kind: Kind, draw: random.Random) -> str:
        if kind in (Kind.ACTOR_KILLED, Kind.ACTOR_STOPPED):
            return self._hit_actor(kind, draw)
        if kind in (Kind.MACHINE_GONE, Kind.MACHINE_NOTIFIED):
            return self._hit_machine(kind, draw)
        if not self._sessions.running:
            return ""
        if kind is Kind.DRIVER_TERMINATED:
            return self._sessions.terminate()
        what = self._sessions.kill()
        return what + cut(self._sessions.run, draw) if kind is Kind.JOURNAL_CUT else what

    def _hit_actor(self, kind: Kind, draw: random.Random) -> str:
        actors = [pid for pid in self._machines.actors() if pid not in self._stopped]
        if not actors:
            return ""
        pid = draw.choice(actors)
        if kind is Kind.ACTOR_KILLED:
            send(pid, signal.SIGKILL)
        else:
            send(pid, signal.SIGSTOP)
            self._stopped.add(pid)
        return f"process {pid}, one of {len(actors)}"

    def _hit_machine(self, kind: Kind, draw: random.Random) -> str:
        if not (staying := self._staying):
            return ""
        machine, notice = draw.choice(staying), draw.uniform(*NOTICE)
        absent = draw.uniform(*ABSENT)

        def go() -> str:
            self._machines.remove(machine)
            self._leaving = [one for one in self._leaving if one is not machine]
            self._after(absent, self._add)
            return f"machine {machine.node_id[:6]} is gone, {len(self._machines.present)} are left"

        if kind is Kind.MACHINE_GONE:
            return go()
        self._machines.notify(machine)
        self._leaving.append(machine)
        self._after(notice, go)
        return f"machine {machine.node_id[:6]} goes in {notice:.0f} seconds"

    def _add(self) -> str:
        self._machines.add()
        return f"a machine joins, there are {len(self._machines.present)}"

    def _after(self, seconds: float, act: Callable[[], str]) -> None:
        self._later.append((time.monotonic() + seconds, act))

    def _keep_appointments(self) -> None:
        now = time.monotonic()
        due = [act for when, act in self._later if when <= now]
        self._later = [(when, act) for when, act in self._later if when > now]
        for act in due:
            self._tell(act())

    def _ended_by_itself(self, code: int) -> None:
        self.own_ends += 1
        self._ends += 1
        words = f"the search ended by itself, exit code {code}: {self._sessions.last_words()}"
        self._tell(words)
        if self._ends == ENDS:
            raise ScorerError(f"{ENDS} times without a generation in between {words}")

    def _tell(self, what: str) -> None:
        self._say(f"generation {self._done:>3}  {what}")


def cut(run: Path, draw: random.Random) -> str:
    """Take an end off the last file of a journal; as after a disk that lied."""
    files = sorted((run / "journal").glob("*.arrow"))
    if not files:
        return ""
    size = files[-1].stat().st_size
    kept = draw.randrange(size) if size else 0
    os.truncate(files[-1], kept)
    return f", {files[-1].name} cut from {size} to {kept} bytes"
