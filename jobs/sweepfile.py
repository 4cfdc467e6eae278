"""A sweep's file: a base, a space, seeds, and how trials are chosen and run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from cliptune.config import Count, Section, Seed, merge, validate
from cliptune.errors import ConfigError
from cliptune.settings import read_file
from cliptune.wording import complaint
from cluster.config import ActorRange, ClusterSearch
from jobs.config import parse_word

Settings = dict[str, Any]  # by dotted name, such as ensemble.clip_ratio

MOST = 10_000  # trials
SCHEMA_VERSION = 1
SEED = "{seed}"  # in a text: the seed of the trial
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
        min_length=1,
        description="setting: {grid | choice | uniform | log-uniform: [...]}, or "
        "name: {cases: {name: settings}}",
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


def read_sweep(file: Path, words: Sequence[str]) -> Sweep:
    """A sweep's file; `section.setting=value` words go over its base."""
    tree = read_file(file)
    base = tree.get("base", {})
    if isinstance(base, str):
        base = read_file(file.parent / base)
    base = {} if base is None else base
    for word in words if isinstance(base, Mapping) else ():
        if "=" not in word:
            raise ConfigError(f"Expected section.setting=value after {file}; found {word!r}.")
        base = merge(base, parse_word(word))
    try:
        sweep = Sweep.model_validate({**tree, "base": base})
    except ValidationError as error:
        raise ConfigError(f"{file}: {complaint(Sweep, error, {})}") from None
    if "run_dir" in sweep.base:
        raise ConfigError(f"base.run_dir: {NOT_SWEPT['run_dir']}; leave it out.")
    if has_seed(sweep.base):
        raise ConfigError(f"base.search.seed: {NOT_SWEPT['search.seed']}; leave it out.")
    return sweep


def has_seed(tree: Mapping[str, Any]) -> bool:
    """Whether settings say the seed that every trial has of its own."""
    search = tree.get("search")
    return isinstance(search, Mapping) and "seed" in search


def tree_of(sweep: Sweep, settings: Settings, seed: int) -> dict[str, Any]:
    """The settings of a trial, as a search's CONFIG.yaml has them; `{seed}` in them is its seed."""
    tree = merge(sweep.base, {"search": {"seed": seed}})
    for name, value in settings.items():
        cases = cases_of(sweep.space.get(name))
        tree = merge(tree, _nested(name, value) if cases is None else cases[value] or {})
    seeded: dict[str, Any] = _seeded(tree, seed)
    return seeded


def cases_of(values: Any) -> Mapping[str, Any] | None:
    """The trees that `{cases: {name: tree}}` names; none where a part of the space is no such."""
    cases = values.get("cases") if isinstance(values, Mapping) else None
    return cases if isinstance(cases, Mapping) else None


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


def identity(sweep: Sweep, settings: Settings, seed: int) -> str:
    """What a trial computes, wherever: all of its config but its folder and its machines."""
    config = config_of(tree_of(sweep, settings, seed), labelled(settings))
    return config.model_dump_json(exclude={"run_dir", "cluster"})


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


def _nested(name: str, value: Any) -> dict[str, Any]:
    for part in reversed(name.split(".")):
        value = {part: value}
    tree: dict[str, Any] = value
    return tree


def _seeded(value: Any, seed: int) -> Any:
    if isinstance(value, Mapping):
        return {key: _seeded(each, seed) for key, each in value.items()}
    return value.replace(SEED, str(seed)) if isinstance(value, str) else value
