"""What a tree of settings is laid over: the preset of its task, or what was registered for it."""

from collections.abc import Callable, Mapping
from importlib import resources
from importlib.metadata import entry_points
from typing import Any, TypeVar

import yaml

from cliptune.errors import ConfigError

Make = TypeVar("Make", bound=Callable[[], Mapping[str, Any]])

TASKS: dict[str, Mapping[str, Any]] = {}  # that were registered


def register_task(name: str, settings: Mapping[str, Any] | None = None) -> Callable[[Make], Make]:
    """Have `task.name: NAME` bring these settings, as a preset does.

    Or decorate with `@register_task(NAME)` a function of no arguments that returns them. A run's
    config.yaml holds them, so that no other process has to know the name. Installed packages bring
    theirs as entry points of the group `cliptune.tasks`, each a mapping.
    """
    if name in presets():
        raise ConfigError(f"{name} is a task of ours; register yours by another name.")
    if settings is not None:
        TASKS[name] = settings

    def register(make: Make) -> Make:
        TASKS[name] = make()
        return make

    return register


def preset(name: str) -> dict[str, Any]:
    """The settings that go with a task's name; empty for a name of the user's own."""
    tree: Mapping[str, Any] = {}
    if name in presets():
        file = resources.files("cliptune") / "presets" / f"{name}.yaml"
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    elif name in TASKS:
        tree = TASKS[name]
    elif point := next(iter(entry_points(group="cliptune.tasks", name=name)), None):
        tree = point.load()
    return merge(tree, {"task": {"name": name}}) if tree else {}


def presets() -> list[str]:
    """Names of the tasks that come with a template and label words."""
    folder = resources.files("cliptune") / "presets"
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one tree over another: sections are joined, values of the upper one win."""
    merged = dict(below)
    for key, value in above.items():
        lower = merged.get(key)
        both = isinstance(lower, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(lower, value) if both else value  # type: ignore[arg-type]
    return merged
