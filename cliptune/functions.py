"""The settings that name a function: of ours, or of the user's own."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cliptune.errors import ConfigError
from cliptune.registry import Registry

if TYPE_CHECKING:
    from cliptune.config import Config
    from cliptune.metrics import Metric
    from cliptune.models.base import FrozenModel
    from cliptune.rewards import Mix, Reward

C = TypeVar("C", bound="Config")

mixer: Registry[Mix] = Registry(
    "ensemble.mixer",
    "cliptune.mixers",
    ("mean", "weighted", "median", "min", "rank-mean"),
    "cliptune.rewards:MIXERS",
    "own_mixer",
)
loss: Registry[Reward] = Registry(
    "search.loss",
    "cliptune.losses",
    ("cross-entropy", "hinge", "accuracy"),
    "cliptune.rewards:REWARDS",
    "own_loss",
)
metric: Registry[Metric] = Registry(
    "search.selection",
    "cliptune.metrics",
    ("loss", "accuracy", "macro-f1"),
    "cliptune.metrics:METRICS",
    "own_metric",
)

readout: Registry[type[FrozenModel]] = Registry(
    "model.readout",
    "cliptune.readouts",
    ("auto", "masked-lm", "causal-lm", "seq2seq", "encoder"),
    "cliptune.models.load:FAMILIES",
    "own_readout",
)

FUNCTIONS: Mapping[tuple[str, str], Registry[Any]] = {  # by section and setting
    ("ensemble", "mixer"): mixer,
    ("search", "loss"): loss,
    ("search", "selection"): metric,
    ("model", "readout"): readout,
}


def named(config: Config) -> Iterator[tuple[Registry[Any], str]]:
    """Each registry, and what the config names in it."""
    for (section, setting), registry in FUNCTIONS.items():
        yield registry, getattr(getattr(config, section), setting)


def refuse_missing(config: Config, elsewhere: Collection[str] = ()) -> None:
    """Refuse a name that leads to no function of the user's, but for settings that are found on
    other machines."""
    for registry, name in named(config):
        if name not in registry.ours and registry.setting not in elsewhere:
            registry.find(name)


def refuse_here_only(config: Config) -> None:
    """Refuse what the processes of a cluster, or of a later resume, would not find."""
    for registry, name in named(config):
        if registry.is_here_only(name):
            raise ConfigError(
                f"{registry.setting}: {name} is registered in this process alone, and a search on "
                "a cluster is found again by others. Write the function to a module or a file, and "
                f"name it as {registry.setting}=module:function or path/to/file.py:function."
            )


def codes(config: Config) -> dict[str, str]:
    """SHA-256 of what the user's own functions are written in, by setting."""
    found = {
        setting: registry.source_digest(getattr(getattr(config, section), setting))
        for (section, setting), registry in FUNCTIONS.items()
    }
    return {f"{setting}_code": digest for setting, digest in found.items() if digest is not None}


def anchored(config: C) -> C:
    """The config with absolute paths of files with functions."""
    for section, setting in FUNCTIONS:
        part = getattr(config, section)
        where, _, function = getattr(part, setting).rpartition(":")
        if where.endswith(".py"):
            absolute = f"{Path(where).resolve()}:{function}"
            config = config.model_copy(
                update={section: part.model_copy(update={setting: absolute})}
            )
    return config


def without_places(tree: dict[str, Any]) -> None:
    """Leave of files with functions their names alone: where they lie decides nothing."""
    for section, setting in FUNCTIONS:
        where, _, function = tree[section][setting].rpartition(":")
        if where.endswith(".py"):
            tree[section][setting] = f"{Path(where).name}:{function}"
