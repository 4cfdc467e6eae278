"""A search in one call: from settings however they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cliptune import loop
from cliptune.config import Config, merge, validate
from cliptune.errors import ConfigError
from cliptune.observer import Observer, Observers
from cliptune.record import Result
from cliptune.scorer import Scorer
from cliptune.settings import read_file

C = TypeVar("C", bound=Config)

Settings = Config | Mapping[str, Any] | str | Path
Callbacks = Observer | Sequence[Observer] | None


def search(
    settings: Settings | None = None,
    scorer: Scorer | None = None,
    observer: Callbacks = None,
    *,
    resume: bool = False,
    **sections: Mapping[str, Any] | str | None,
) -> Result:
    """Search a prompt in this process, and write it down in a run directory.

    `settings` are a Config, a tree, or the path of a YAML file; `sections` are laid over them:

        cliptune.search(task={"name": "sst2", "data": "sst2/16-42"}, search={"budget": 600})

    Without any, it is the search of the embedded task. A section `cluster` in them, as the command
    has it, does not count here. `observer` is one or several that are told how it goes; `scorer`
    one that works elsewhere. With `resume`, it goes on with the search in `run_dir`. Raises
    CliptuneError, whose text says what to do.
    """
    config = configured(Config, settings, sections) if scorer is None else scorer.config
    return loop.search(config, scorer, told(observer), resume=resume)


def configured(kind: type[C], settings: Settings | None, sections: Mapping[str, Any]) -> C:
    """Settings, however they are given, as a config of some kind."""
    if isinstance(settings, kind) and not sections:
        return settings
    if isinstance(settings, Config):
        tree: Mapping[str, Any] = settings.model_dump()
    elif isinstance(settings, str | Path):
        tree = read_file(Path(settings))
    elif isinstance(settings, Mapping):
        tree = settings
    elif settings is None:
        tree = {}
    else:
        raise ConfigError(
            "Settings are a Config, a mapping of sections or the path of a YAML file; found "
            f"{settings!r:.60}."
        )
    return validate(kind, merge(_here(kind, tree), sections))


def _here(kind: type[Config], tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without the machines of a search on Ray: they change nothing of what it finds."""
    return {name: tree[name] for name in tree if kind is not Config or name != "cluster"}


def told(observer: Callbacks) -> Observer | None:
    """One observer, or several as one."""
    if observer is None or isinstance(observer, Observer):
        return observer
    return Observers(observer)
