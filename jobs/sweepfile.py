"""A sweep's file: a base, a space, seeds, and how trials are chosen and run."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from pydantic import Field, ValidationError, field_validator

from cliptune.config import Count, Section, Seed, merge, validate
from cliptune.errors import ConfigError
from cliptune.settings import read_file
from cliptune.wording import complaint, flat, nearest, shown
from cluster.config import ActorRange, ClusterSearch
from jobs.config import parse_word

Settings = dict[str, Any]  # by dotted name, such as ensemble.clip_ratio

KINDS = ("grid", "choice", "uniform", "log-uniform")
MOST = 10_000  # trials
SCHEMA_VERSION = 1
NOT_SWEPT = {
    "search.seed": "the sweep's own `seeds` are for that",
    "search.selection": "scores by different measures cannot be ranked",
    "run_dir": "every trial has its own under the sweep's folder",
    "schema_version": "it is not a setting of a search",
    "cluster.address": "a sweep runs on one cluster",
}


class AshaConfig(Section):
    """Asynchronous successive halving: trials that fall behind are stopped, by prompts scored."""

    grace: Count | None = Field(
        None, description="prompts that every trial may score; a ninth of the budget if null"
    )
    reduction: float = Field(
        3.0, gt=1, allow_inf_nan=False, description="of so many trials one goes on at each rung"
    )


class Sweep(Section):
    """A sweep as its file says it."""

    schema_version: Literal[1] = Field(1, description="of this file")
    base: dict[str, Any] = Field(
        default_factory=dict, description="settings of all trials, as in a search's CONFIG.yaml"
    )
    space: dict[str, Any] = Field(
        min_length=1, description="setting: {grid | choice | uniform | log-uniform: [...]}"
    )
    seeds: tuple[Seed, ...] = Field(
        (0,),
        min_length=1,
        description="of search.seed, with every point of the space; 3 is 0, 1, 2",
    )
    samples: Count = Field(
        1, le=MOST, description="draws from what is no grid, with each point of the grid"
    )
    seed: Seed = Field(0, description="of the draws")
    searcher: Literal["random", "optuna"] = Field(
        "random", description="optuna: each draw learns from the trials that are done"
    )
    asha: AshaConfig | None = Field(None, description="stop trials that fall behind; {} is enough")
    concurrency: Count | None = Field(
        None, description="trials at once at most; as many as the cluster holds if null"
    )
    failures: int = Field(2, ge=0, description="of a trial, until it is given up")

    @field_validator("seeds", mode="before")
    @classmethod
    def _a_number_of_seeds(cls, value: Any) -> Any:
        return tuple(range(value)) if isinstance(value, int) and 0 < value <= MOST else value

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds must differ; found {', '.join(map(str, seeds))}")
        return seeds


@dataclass(frozen=True)
class Options:
    """Values that are written out: all of them, or one at a time."""

    values: tuple[Settings, ...]
    grid: bool


@dataclass(frozen=True)
class Interval:
    """Numbers between two, both included."""

    setting: str
    low: float
    high: float
    log: bool
    whole: bool

    def draw(self, generator: np.random.Generator) -> float | int:
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        if self.whole and not self.log:
            return int(generator.integers(int(low), int(high), endpoint=True))
        value = float(generator.uniform(low, high))
        value = math.exp(value) if self.log else value
        return round(value) if self.whole else value


Space = dict[str, Options | Interval]


def read_sweep(file: Path, words: Sequence[str]) -> Sweep:
    """A sweep's file; `section.setting=value` words go over its base."""
    tree = read_file(file)
    base = tree.get("base", {})
    if isinstance(base, str):
        base = read_file(file.parent / base)
    base = {} if base is None else base
    for word in words:
        if "=" not in word:
            raise ConfigError(f"Expected section.setting=value after {file}; found {word!r}.")
        base = merge(base, parse_word(word))
    try:
        sweep = Sweep.model_validate({**tree, "base": base})
    except ValidationError as error:
        raise ConfigError(f"{file}: {complaint(Sweep, error, {})}") from None
    if "run_dir" in sweep.base:
        raise ConfigError(f"base.run_dir: {NOT_SWEPT['run_dir']}; leave it out.")
    return sweep


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


def tree_of(sweep: Sweep, settings: Settings, seed: int) -> dict[str, Any]:
    """The settings of a trial, as a search's CONFIG.yaml has them."""
    tree = merge(sweep.base, {"search": {"seed": seed}})
    for name, value in settings.items():
        tree = merge(tree, _nested(name, value))
    return tree


def config_of(tree: Mapping[str, Any], label: str) -> ClusterSearch:
    """A trial's config, checked; what is wrong with it is said with its settings."""
    try:
        config = validate(ClusterSearch, tree)
    except ConfigError as error:
        raise ConfigError(f"{label}: {' '.join(str(error).split())}") from None
    if isinstance(config.cluster.actors, ActorRange):
        raise ConfigError(
            f"{label}: cluster.actors must be a number or auto (one) in a sweep, as a trial "
            "reserves its actors; found a range."
        )
    return config


def labelled(settings: Settings) -> str:
    """Settings in words."""
    return " ".join(f"{name}={brief(value)}" for name, value in settings.items())


def brief(value: Any) -> str:
    """A value in few letters."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "+".join(map(brief, value))
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _refuse_conflicts(space: Space) -> None:
    said: dict[str, str] = {}  # setting: what says it
    for key, one in space.items():
        for name in _settings_of(one):
            if why := NOT_SWEPT.get(name):
                raise ConfigError(f"space.{name}: it cannot be varied, as {why}.")
            for other in said:
                if f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}."):
                    raise ConfigError(f"space: {said[other]} and {key} both say {name}.")
        said |= dict.fromkeys(_settings_of(one), key)


def _settings_of(one: Options | Interval) -> list[str]:
    if isinstance(one, Interval):
        return [one.setting]
    return list(dict.fromkeys(name for value in one.values for name in value))


def _ends(one: Interval) -> tuple[Settings, Settings]:
    low, high = (int(one.low), int(one.high)) if one.whole else (one.low, one.high)
    return {one.setting: low}, {one.setting: high}


def _in_order(found: Settings, space: Space) -> Settings:
    """By the order of the file."""
    order = [name for one in space.values() for name in _settings_of(one)]
    return {name: found[name] for name in order if name in found}


def _nested(name: str, value: Any) -> dict[str, Any]:
    for part in reversed(name.split(".")):
        value = {part: value}
    tree: dict[str, Any] = value
    return tree


def _read_one(setting: str, value: Any) -> Options | Interval:
    if not isinstance(value, Mapping) or len(value) != 1 or next(iter(value)) not in KINDS:
        raise ConfigError(
            f"space.{setting}: expected one of {', '.join(KINDS)}, such as "
            f"{{grid: [0.1, 0.3]}}; found {shown(value)}{_hint(value)}."
        )
    kind, values = next(iter(value.items()))
    if not isinstance(values, list) or not values:
        raise ConfigError(f"space.{setting}.{kind}: expected a list; found {shown(values)}.")
    if kind in ("grid", "choice"):
        parts = tuple(flat({setting: value}) for value in values)
        for at, part in enumerate(parts):
            if part in parts[:at]:
                raise ConfigError(f"space.{setting}.{kind}: {labelled(part)} stands there twice.")
        return Options(parts, kind == "grid")
    return _interval(setting, kind, values)


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
