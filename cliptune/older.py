"""Settings that came or went after runs were written: such a run's, as it would say them now."""

from collections.abc import Mapping
from typing import Any

# settings that came, as it was before them, where that is not the default
CAME: Mapping[str, Any] = {"search.calibrate": False}
# settings that went, and the value that did nothing
WENT: Mapping[str, Any] = {"ensemble.pool": None}


def as_now(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run of any version as one of this version has them."""
    sections = dict(tree)
    for setting, value in CAME.items():
        section, name = setting.split(".")
        if isinstance(sections.get(section), dict):
            sections[section] = {name: value, **sections[section]}
    return sections


def without_gone(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those that went and did nothing, such as a run's config.yaml has them."""
    sections = dict(tree)
    for setting, value in WENT.items():
        section, name = setting.split(".")
        kept = sections.get(section)
        if isinstance(kept, Mapping) and name in kept and kept[name] == value:
            sections[section] = {key: each for key, each in kept.items() if key != name}
    return sections
