"""Which actor scores what, and what fits: pure functions, no Ray."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Need:
    """What one actor takes."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Node:
    """What one machine of the cluster has."""

    cpus: float
    gpus: float
    memory: float = 0.0  # bytes, for all that runs on it; 0 where it is not known

    def holds(self, need: Need) -> int:
        """How many such actors fit on this machine."""
        fits = [
            int((have + 1e-9) // want)
            for have, want in ((self.cpus, need.cpus), (self.gpus, need.gpus))
            if want > 0
        ]
        return min(fits)


@dataclass(frozen=True)
class Growth:
    """Machines of a kind that an autoscaler may have running at once."""

    node: Node
    count: int


def capacity(nodes: Sequence[Node], need: Need) -> int:
    """How many such actors the cluster holds; an actor never spans machines."""
    return sum(node.holds(need) for node in nodes)


def shares(costs: Sequence[float], actors: int) -> list[list[int]]:
    """Cut the units, in their order, into one even share an actor.

    Units are ordered by subnetwork, so a share is one subnetwork or a few neighbours: the same
    ones in every generation. With fewer actors than subnetworks an actor has whole ones and at
    most two parts; with more, several actors have parts of the same one.
    """
    result: list[list[int]] = [[] for _ in range(actors)]
    total, before = float(sum(costs)), 0.0
    for unit, cost in enumerate(costs):
        middle = before + cost / 2
        result[min(actors - 1, int(middle * actors / total))].append(unit)
        before += cost
    return result
