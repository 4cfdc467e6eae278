"""Units and results on their way between driver and actors: few objects, as each of them costs."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptune.scorer import Unit
from cliptune.subnetwork import SubnetworkSpec

Reduced = tuple[Callable[..., Any], tuple[Any, ...]]


class Units(list[Unit]):
    """A list of units that travels as plain numbers."""

    def __reduce__(self) -> Reduced:
        networks = list(dict.fromkeys(unit.subnetwork for unit in self))
        places = {network: place for place, network in enumerate(networks)}
        rows = [
            (places[u.subnetwork], u.split, u.candidates, u.examples, u.length, u.reduce)
            for u in self
        ]
        named = [(n.index, n.seed, n.clip_ratio, n.sites, n.generation) for n in networks]
        return _units, (named, rows)


class Results(list[NDArray[Any]]):
    """A list of arrays that travels as one string of bytes."""

    def __reduce__(self) -> Reduced:
        kinds = {result.dtype.str if isinstance(result, np.ndarray) else "" for result in self}
        kind = kinds.pop() if len(kinds) == 1 else ""
        if not kind:  # what an actor should not give: the pool sees to that
            return list, (list(self),)
        data = b"".join(result.tobytes() for result in self)
        return _results, (kind, [result.shape for result in self], data)


def _units(named: Sequence[Any], rows: Sequence[Any]) -> Units:
    networks = [SubnetworkSpec(*fields) for fields in named]
    return Units(Unit(networks[place], *others) for place, *others in rows)


def _results(kind: str, shapes: Sequence[tuple[int, ...]], data: bytes) -> Results:
    flat, found, start = np.frombuffer(data, kind), Results(), 0
    for shape in shapes:
        end = start + math.prod(shape)
        found.append(flat[start:end].reshape(shape))
        start = end
    return found
