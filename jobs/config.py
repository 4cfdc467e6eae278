"""A whole tree from a YAML file and `key=value` words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from cliptune.config import merge, validate
from cliptune.errors import ConfigError
from cliptune.settings import NOT_YAML, read_file, safe_load
from cluster.config import ClusterSearch

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


def parse_word(word: str) -> dict[str, Any]:
    key, _, text = word.partition("=")
    parts = key.split(".")
    if not all(parts):
        raise ConfigError(f"Expected section.setting=value, e.g. search.seed=1; found {word!r}.")
    if _is_text(parts) and text[:1] not in ("'", '"'):
        value: Any = None if text in ("", "~", "null") else text
    else:
        try:
            value = safe_load(text)
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
