"""A whole tree from a YAML file and `key=value` words."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

import yaml

from cliptune.config import merge, validate
from cliptune.errors import ConfigError
from cluster.config import ClusterSearch


class Loader(yaml.SafeLoader):
    """YAML where `Yes`, `off`, `2024-11-05`, `0012` and `12:30` are the texts that they look like.

    A key that stands twice is refused: YAML itself would forget the first one.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"a key must be one word{key.start_mark}")
            if key.value in seen:
                raise yaml.YAMLError(f"{key.value} stands there twice, again in{key.start_mark}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


NUMBERS = {
    "int": r"^[-+]?(?:0|[1-9][0-9]*)$",
    "float": r"^[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
    r"|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$",
    "bool": r"^(?:true|True|TRUE|false|False|FALSE)$",
}
Loader.yaml_implicit_resolvers = {
    first: [one for one in resolvers if one[0].rpartition(":")[2] in ("null", "merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for tag, pattern in NUMBERS.items():
    Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{tag}", re.compile(pattern), list("-+.0123456789tTfF")
    )

NOT_YAML = (yaml.YAMLError, ValueError, TypeError, AttributeError)  # the last two of odd tags
RESOLVED_ANEW = ("address", "actors", "gpus_per_actor")  # of cluster; they change no result


def read(words: Sequence[str], resume: str | None = None) -> ClusterSearch:
    """`[CONFIG.yaml] [key=value ...]`, later words over earlier ones, all over the file.

    With the run directory of a search to resume, all of that over the settings of the run, but for
    the machines it had.
    """
    tree = read_tree(words, {} if resume is None else of_run(resume))
    if resume is not None:
        if (given := tree.get("run_dir")) is not None and _path(given) != _path(resume):
            raise ConfigError(
                f"run_dir is {given}, but the search of {resume} is gone on with where "
                "it is. Leave run_dir out, or copy the folder first."
            )
        tree["run_dir"] = resume
    return validate(ClusterSearch, tree)


def read_tree(words: Sequence[str], below: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the words give, as they are written there, over those below them."""
    files = [word for word in words if "=" not in word]
    if len(files) > 1:
        raise ConfigError(
            f"One CONFIG.yaml at most, then key=value words; found {' and '.join(files)}."
        )
    tree = merge(below, read_file(Path(files[0]))) if files else dict(below)
    for word in words:
        if "=" in word:
            tree = merge(tree, parse_word(word))
    return tree


def read_or_continue(words: Sequence[str]) -> tuple[ClusterSearch, bool]:
    """The settings of a search, and whether it has begun in its run_dir: then as for a resume.

    What the words leave out is then the run's only where it changes no result or was on auto, so
    that the same words are the same search, and others are refused.
    """
    from cliptune.identity import refuse_other_settings
    from cliptune.record import is_run

    config = read(words)
    place = config.run_dir
    if place is None:
        raise ConfigError(
            "--continue needs run_dir, the folder or URI of the run: in it stands whether the "
            "search has begun."
        )
    if not is_run(place):
        return config, False
    refuse_other_settings(place, before=read([], place), now=config)
    return read(words, place), True


def _path(place: Any) -> Path:
    return Path(str(place)).expanduser()


def of_run(place: str) -> dict[str, Any]:
    from cliptune.record import read_config

    tree = {key: value for key, value in read_config(place).items() if key != "run_dir"}
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
    except NOT_YAML as error:
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


def parse_word(word: str) -> dict[str, Any]:
    key, _, text = word.partition("=")
    parts = key.split(".")
    if not all(parts):
        raise ConfigError(f"Expected section.setting=value, e.g. search.seed=1; found {word!r}.")
    if _is_text(parts) and text[:1] not in ("'", '"'):
        value: Any = None if text in ("", "~", "null") else text
    else:
        try:
            value = _safe_load(text)
        except NOT_YAML:
            value = text
    for part in reversed(parts):
        value = {part: value}
    tree: dict[str, Any] = value
    return tree


def _is_text(parts: Sequence[str]) -> bool:
    """Whether a setting holds a text, in which nothing of YAML is meant."""
    section: Any = ClusterSearch
    for part in parts:
        field = getattr(section, "model_fields", {}).get(part)
        section = field.annotation if field else None
    kinds = set(get_args(section) or [section]) - {NoneType}
    return bool(kinds) and all(_bare(kind) in (str, Path) for kind in kinds)


def _bare(kind: Any) -> Any:
    """A type without what Annotated says of it."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind
