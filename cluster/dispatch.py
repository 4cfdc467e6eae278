"""Who computes which of a call's units next: bookkeeping without Ray.

Every worker has a share, the same one in every generation: a large first call of it, then two small
ones, so that a worker that runs dry finds something to take over from one that is behind; what is
too little for a call of its own goes with the call before. What was lost with a worker goes out
again one unit a call, so that a unit that kills is found.
"""

from collections import Counter, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from cluster.placement import shares

BULK = 3 / 4  # of a worker's share, in its first call
TAIL = 1 / 2  # of what is left, in the second; the third takes the rest


@dataclass
class Dispatch:
    """The units of one call, by their indices; workers are known by their slots."""

    costs: Sequence[float]
    slots: Sequence[int]
    worth: float = 0.0  # least cost of a call
    open: set[int] = field(init=False)  # without an answer
    again: int = 0  # units that were given out once more

    def __post_init__(self) -> None:
        self.open = set(range(len(self.costs)))
        parts = shares(self.costs, len(self.slots)) if self.slots else []
        self._own = {slot: deque(part) for slot, part in zip(self.slots, parts, strict=True)}
        if not self.slots:
            self._own[-1] = deque(range(len(self.costs)))  # for whoever comes first
        share = self._cost(range(len(self.costs))) / max(1, len(self.slots))
        self._small = max(self.worth, (1 - BULK) * TAIL * share)
        self._alone: deque[int] = deque()  # lost ones
        self._jobs: dict[int, list[int]] = {}
        self._losses: Counter[int] = Counter()
        self._calls: Counter[int] = Counter()  # of its own share, by slot

    def take(self, slot: int) -> list[int]:
        """Units for a worker that has none, now its job; none where nothing waits."""
        own = self._own.get(slot)
        if self._alone:
            job = [self._alone.popleft()]
            self.again += 1
        elif own:
            part = (BULK, TAIL)[self._calls[slot]] if self._calls[slot] < 2 else 1.0
            self._calls[slot] += 1
            job = self._cut(own, part * self._cost(own))
            if self._cost(own) < self.worth:
                job += self._cut(own, float("inf"))
        else:
            job = self._steal()
        if job:
            self._jobs[slot] = job
        return job

    def double(self, slot: int, late: Collection[int]) -> list[int]:
        """One unit that a late worker has not answered and nobody else has; the last one first."""
        for other in late:
            for unit in reversed(self._jobs.get(other, [])):
                if unit in self.open and self._holders(unit) == 1:
                    self._jobs[slot] = [unit]
                    self.again += 1
                    return [unit]
        return []

    def answered(self, slot: int) -> list[tuple[int, int]]:
        """A worker's job is done: the units that had no answer yet, with their places in it."""
        job = self._jobs.pop(slot)
        new = [(place, unit) for place, unit in enumerate(job) if unit in self.open]
        self.open.difference_update(job)
        return new

    def lost(self, slot: int, *, blameless: bool = False) -> int | None:
        """A worker's job came to nothing; the unit that it was, if that alone may be the cause."""
        job = self._jobs.pop(slot, [])
        missing = [unit for unit in job if unit in self.open and not self._holders(unit)]
        if len(job) == 1:  # once more at once: it soon shows whether it was the unit
            self._alone.extendleft(missing)
        else:
            self._alone.extend(missing)
        if blameless or len(job) != 1 or job[0] not in self.open:
            return None
        self._losses[job[0]] += 1
        return job[0]

    def losses(self, unit: int) -> int:
        """How often a unit was lost on its own."""
        return self._losses[unit]

    def job(self, slot: int) -> list[int]:
        """What a worker computes."""
        return self._jobs.get(slot, [])

    def job_cost(self, slot: int) -> float:
        """What a worker's job costs; 0 without one."""
        return self._cost(self._jobs.get(slot, []))

    def _steal(self) -> list[int]:
        """The end of what waits longest: half of it, or all of a little."""
        owner = max(self._own, key=lambda slot: self._cost(self._own[slot]))
        waiting = self._own[owner]
        aim = max(self._cost(waiting) / 2, self._small)
        waiting.reverse()
        job = self._cut(waiting, aim)
        waiting.reverse()
        return job[::-1]

    def _cut(self, units: deque[int], aim: float) -> list[int]:
        """Take units off the front until they cost as much as that."""
        job: list[int] = []
        cost = 0.0
        while units and cost < aim:
            job.append(units.popleft())
            cost += self.costs[job[-1]]
        return job

    def _cost(self, units: Collection[int]) -> float:
        return sum(self.costs[unit] for unit in units)

    def _holders(self, unit: int) -> int:
        return sum(unit in job for job in self._jobs.values())
