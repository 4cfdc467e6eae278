"""A whole tree from a YAML file and `key=value` words."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from cliptune.config import merge, validate
from cliptune.errors import ConfigError
from cluster.config import ClusterSearch


class Loader(yaml.SafeLoader):
    """YAML where `Yes`, `off` and `2024-11-05` are the texts that they look like."""


Loader.yaml_implicit_resolvers = {
    first: [one for one in resolvers if one[0].rpartition(":")[2] not in ("bool", "timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)

RESOLVED_ANEW = ("address", "actors", "gpus_per_actor")  # of cluster; they change no result


def read(words: Sequence[str], resume: str | None = None) -> ClusterSearch:
    """`[CONFIG.yaml] [key=value ...]`, later words over earlier ones, all over the file.

    With the run directory of a search to resume, all of that over the settings of the run, but for
    the machines it had.
    """
    files = [word for word in words if "=" not in word]
    if len(files) > 1:
        raise ConfigError(
            f"One CONFIG.yaml at most, then key=value words; found {' and '.join(files)}."
        )
    tree: dict[str, Any] = {} if resume is None else _of_run(resume)
    tree = merge(tree, read_file(Path(files[0]))) if files else tree
    for word in words:
        if "=" in word:
            tree = merge(tree, _parse(word))
    if resume is not None:
        tree["run_dir"] = resume
    return validate(ClusterSearch, tree)


def _of_run(place: str) -> dict[str, Any]:
    from cliptune.record import read_config

    tree = read_config(place)
    cluster = tree.get("cluster")
    if isinstance(cluster, dict):
        kept = {key: value for key, value in cluster.items() if key not in RESOLVED_ANEW}
        tree = {**tree, "cluster": kept}
    return tree


def read_file(path: Path) -> dict[str, Any]:
    """A YAML file's tree."""
    try:
        tree = _safe_load(path.read_text(encoding="utf-8"))
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


def _safe_load(text: str) -> Any:
    loader = Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _parse(word: str) -> dict[str, Any]:
    key, _, text = word.partition("=")
    parts = key.split(".")
    if not all(parts):
        raise ConfigError(f"Expected section.setting=value, e.g. search.seed=1; found {word!r}.")
    try:
        value = _safe_load(text)
    except (yaml.YAMLError, ValueError):
        value = text
    for part in reversed(parts):
        value = {part: value}
    tree: dict[str, Any] = value
    return tree
