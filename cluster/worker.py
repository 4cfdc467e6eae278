"""An actor as the driver knows it, what it was asked for, and what came of that."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
)

from cliptune.errors import CliptuneError
from cluster import nodes
from cluster.actor import Place

FETCH = 60.0  # seconds to fetch an answer that is there
DIED = "died"
MEMORY = (
    "was ended by Ray, as its machine ran short of memory (fewer actors a machine take less: a "
    "larger cluster.threads_per_actor, or fewer cluster.actors)"
)


@dataclass(frozen=True)
class Call:
    """Something that a worker was asked for."""

    ref: Any
    since: float
    until: float  # when it is taken to hang
    setting: str  # that says so
    about: Any = None  # the asker's own


@dataclass(frozen=True)
class Lost:
    """A call without an answer; its worker is gone."""

    why: str
    blameless: bool  # whether what it computed cannot be the cause


@dataclass(eq=False)
class Worker:
    """An actor and what is known of it."""

    slot: int
    handle: Any
    attempt: int  # starts that had failed in a row when it was started
    call: Call | None = None
    place: Place | None = None  # none before the cluster had room for it
    ready: bool = False
    leaving: bool = False  # its machine is about to go

    @property
    def name(self) -> str:
        return "An actor" if self.place is None else f"The actor on {self.place.host}"


def fetched(worker: Worker, call: Call) -> Any:
    """The answer to a call that has one: a value, an error of ours, or Lost."""
    try:
        return ray.get(call.ref, timeout=FETCH)
    except RayTaskError as error:
        if isinstance(error.cause, CliptuneError):
            return error.cause
        return Lost(f"failed with {_first_line(error.cause or error)}", blameless=False)
    except RayActorError as error:
        return _death(worker, error)
    except (ObjectLostError, NodeDiedError) as error:  # with the machine that had it
        return Lost(f"gave an answer that was lost ({type(error).__name__})", blameless=True)
    except OutOfMemoryError:  # of Ray's memory monitor
        return Lost(MEMORY, blameless=False)
    except RayError as error:
        return Lost(f"failed with {_first_line(error)}", blameless=False)


def _death(worker: Worker, error: RayActorError) -> Lost:
    node = worker.place.node if worker.place else None
    if error.preempted or (node and node not in nodes.alive()):
        return Lost("went away with its machine", blameless=True)
    if isinstance(error, ActorUnavailableError):  # its process is not known to be dead
        return Lost("cannot be reached", blameless=worker.ready)
    if isinstance(error, ActorDiedError) and error.actor_init_failed:
        return Lost(f"could not be made: {_first_line(error)}", blameless=False)
    return Lost(DIED, blameless=False)


def _first_line(error: BaseException) -> str:
    lines: Sequence[str] = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
