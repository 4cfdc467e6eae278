"""A whole tree from a YAML file and `key=value` words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from cliptune.config import merge, validate
from cliptune.errors import ConfigError
from cluster.config import ClusterSearch


def read(words: Sequence[str]) -> ClusterSearch:
    """`[CONFIG.yaml] [key=value ...]`, later words over earlier ones, all over the file."""
    files = [word for word in words if "=" not in word]
    if len(files) > 1:
        raise ConfigError(
            f"One CONFIG.yaml at most, then key=value words; found {' and '.join(files)}."
        )
    tree = read_file(Path(files[0])) if files else {}
    for word in words:
        if "=" in word:
            tree = merge(tree, _parse(word))
    return validate(ClusterSearch, tree)


def read_file(path: Path) -> dict[str, Any]:
    """A YAML file's tree."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text; expected a YAML file.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path} must hold sections such as task: and search:; found {tree!r:.60}."
        )
    return tree


def _parse(word: str) -> dict[str, Any]:
    key, _, text = word.partition("=")
    parts = key.split(".")
    if not all(parts):
        raise ConfigError(f"Expected section.setting=value, e.g. search.seed=1; found {word!r}.")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        value = text
    for part in reversed(parts):
        value = {part: value}
    tree: dict[str, Any] = value
    return tree
