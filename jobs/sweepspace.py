"""The space of a sweep: grids, choices, cases and intervals, and the settings that they come to."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from cliptune.errors import ConfigError
from cliptune.wording import flat, nearest, shown
from cluster.config import ClusterSearch
from jobs.sweepfile import MOST, NOT_SWEPT, Settings, Sweep, labelled

LARGEST = 2**53  # up to which a float is every whole number
KINDS = ("grid", "choice", "cases", "uniform", "log-uniform")


@dataclass(frozen=True)
class Options:
    """Values that are written out: all of them, or one at a time."""

    values: tuple[Settings, ...]
    grid: bool
    says: tuple[str, ...]  # the settings that it decides


@dataclass(frozen=True)
class Interval:
    """Numbers between two, both included."""

    setting: str
    low: float
    high: float
    log: bool
    whole: bool

    @property
    def says(self) -> tuple[str, ...]:
        return (self.setting,)

    def draw(self, generator: np.random.Generator) -> float | int:
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        if self.whole and not self.log:
            return int(generator.integers(int(low), int(high), endpoint=True))
        value = float(generator.uniform(low, high))
        value = math.exp(value) if self.log else value
        return round(value) if self.whole else value


Space = dict[str, Options | Interval]


def read_space(sweep: Sweep) -> Space:
    """The space, checked as far as that can be done without its values' meaning."""
    space = {setting: _read_one(setting, value) for setting, value in sweep.space.items()}
    _refuse_conflicts(space)
    grids = [one for one in space.values() if isinstance(one, Options) and one.grid]
    if sweep.searcher == "optuna" and grids:
        raise ConfigError(
            "searcher: optuna draws one setting at a time, and a grid is all at once: write choice "
            "instead of grid."
        )
    if len(grids) == len(space) and sweep.samples > 1:
        raise ConfigError(
            f"samples is {sweep.samples}, but there is nothing to draw: all of the space is a "
            "grid. Repeat its points with seeds."
        )
    count = sweep.samples * len(sweep.seeds) * math.prod(len(one.values) for one in grids)
    if count > MOST:
        raise ConfigError(f"The sweep has {count:,} trials; {MOST:,} is the most.")
    return space


def points(sweep: Sweep, space: Space) -> Iterator[Settings]:
    """All settings of a sweep whose draws do not depend on results."""
    generator = np.random.default_rng(sweep.seed)
    grids = [one.values for one in space.values() if isinstance(one, Options) and one.grid]
    for chosen in itertools.product(*grids):
        for _ in range(sweep.samples):
            found = {name: value for part in chosen for name, value in part.items()}
            for one in space.values():
                if isinstance(one, Interval):
                    found[one.setting] = one.draw(generator)
                elif not one.grid:
                    found |= one.values[int(generator.integers(len(one.values)))]
            yield _in_order(found, space)


def corners(space: Space) -> list[Settings]:
    """Settings in which every value of the space stands once, the ends of intervals for theirs."""
    values = {
        key: one.values if isinstance(one, Options) else _ends(one) for key, one in space.items()
    }
    first = {key: some[0] for key, some in values.items()}
    found = []
    for key, some in values.items():
        for value in some:
            parts = {**first, key: value}.values()
            found.append({name: leaf for part in parts for name, leaf in part.items()})
    return found


def _refuse_conflicts(space: Space) -> None:
    said: dict[str, str] = {}  # setting: what says it
    for key, one in space.items():
        for name in one.says:
            if why := NOT_SWEPT.get(name):
                raise ConfigError(f"space.{name}: it cannot be varied, as {why}.")
            for other in said:
                if f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}."):
                    raise ConfigError(f"space: {said[other]} and {key} both say {name}.")
        said |= dict.fromkeys(one.says, key)


def _ends(one: Interval) -> tuple[Settings, Settings]:
    low, high = (int(one.low), int(one.high)) if one.whole else (one.low, one.high)
    return {one.setting: low}, {one.setting: high}


def _in_order(found: Settings, space: Space) -> Settings:
    """By the order of the file."""
    order = [name for key, one in space.items() for name in (key, *one.says)]
    return {name: found[name] for name in order if name in found}


def _read_one(setting: str, value: Any) -> Options | Interval:
    if not isinstance(value, Mapping) or len(value) != 1 or next(iter(value)) not in KINDS:
        raise ConfigError(
            f"space.{setting}: expected one of {', '.join(KINDS)}, such as "
            f"{{grid: [0.1, 0.3]}}; found {shown(value)}{_hint(value)}."
        )
    kind, values = next(iter(value.items()))
    if kind == "cases":
        return _cases(setting, values)
    if not isinstance(values, list) or not values:
        raise ConfigError(f"space.{setting}.{kind}: expected a list; found {shown(values)}.")
    if kind in ("grid", "choice"):
        parts = tuple(flat({setting: value}) for value in values)
        for at, part in enumerate(parts):
            if part in parts[:at]:
                raise ConfigError(f"space.{setting}.{kind}: {labelled(part)} stands there twice.")
        names = dict.fromkeys(name for part in parts for name in part)
        return Options(parts, kind == "grid", tuple(names))
    return _interval(setting, kind, values)


def _cases(name: str, trees: Any) -> Options:
    if not isinstance(trees, Mapping) or not trees:
        raise ConfigError(
            f"space.{name}.cases: expected settings by name, such as "
            f"{{plain: {{}}, wide: {{prompt: {{length: 20}}}}}}; found {shown(trees)}."
        )
    for case, tree in trees.items():
        if not isinstance(case, str) or not (tree is None or isinstance(tree, Mapping)):
            raise ConfigError(
                f"space.{name}.cases: expected a name and a tree of settings; found "
                f"{shown(case)}: {shown(tree)}."
            )
    names = dict.fromkeys(leaf for tree in trees.values() for leaf in flat(tree or {}))
    return Options(tuple({name: case} for case in trees), True, tuple(names))


def _interval(setting: str, kind: str, values: list[Any]) -> Interval:
    where = f"space.{setting}.{kind}"
    numbers = [one for one in values if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(values) != 2 or numbers != values or not all(map(math.isfinite, numbers)):
        raise ConfigError(f"{where}: expected [least, most], two numbers; found {shown(values)}.")
    low, high = numbers
    if low >= high:
        raise ConfigError(f"{where}: the first must be below the second; found {shown(values)}.")
    log = kind == "log-uniform"
    if log and low <= 0:
        raise ConfigError(f"{where}: expected numbers above 0; found {shown(values)}.")
    whole = _is_whole(setting)
    if not math.isfinite(high - low) or (whole and max(-low, high) > LARGEST):
        most = f"{LARGEST:,} for whole numbers" if whole else "1.8e308 between them"
        raise ConfigError(f"{where}: expected at most {most}; found {shown(values)}.")
    if whole and not all(float(one).is_integer() for one in numbers):
        raise ConfigError(f"{where}: {setting} is a whole number; found {shown(values)}.")
    return Interval(setting, float(low), float(high), log, whole)


def _is_whole(setting: str) -> bool:
    """Whether a setting takes whole numbers only."""
    section: Any = ClusterSearch
    for part in setting.split("."):
        field = getattr(section, "model_fields", {}).get(part)
        section = field.annotation if field else None
    kinds = [get_args(kind)[0] if get_args(kind) else kind for kind in _alternatives(section)]
    return int in kinds and float not in kinds


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    if getattr(annotation, "__metadata__", None) is not None:
        return (annotation,)
    return get_args(annotation) or (annotation,)


def _hint(value: Any) -> str:
    if isinstance(value, Mapping) and value:
        return nearest(str(next(iter(value))), KINDS)
    return ""
