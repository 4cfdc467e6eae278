"""Settings out of YAML files and into them; words are the texts that they look like."""

import re
from pathlib import Path
from typing import Any

import yaml

from cliptune.errors import ConfigError


class Loader(yaml.SafeLoader):
    """YAML where `Yes`, `off`, `2024-11-05`, `0012` and `12:30` are the texts that they look like.

    A key that stands twice is refused: YAML itself would forget the first one.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            line = f"line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"a key must be one word; found more in {line}.")
            if key.value in seen:
                raise yaml.YAMLError(f"{key.value} stands there twice, again in {line}.")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class Dumper(yaml.SafeDumper):
    """YAML that `Loader` reads as it was, too: a text such as `1e5`, a number to it, is quoted."""


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
    for kind in (Loader, Dumper):
        kind.add_implicit_resolver(
            f"tag:yaml.org,2002:{tag}", re.compile(pattern), list("-+.0123456789tTfF")
        )

NOT_YAML = (yaml.YAMLError, ValueError, TypeError, AttributeError)  # the last two of odd tags


def read_file(path: Path) -> dict[str, Any]:
    """A YAML file's tree."""
    try:
        tree = safe_load(path.read_text(encoding="utf-8"))
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


def safe_load(text: str) -> Any:
    """The value of a YAML text."""
    loader = Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def safe_dump(tree: Any, **style: Any) -> str:
    """A tree as YAML, in its own order."""
    text: str = yaml.dump(tree, Dumper=Dumper, sort_keys=False, allow_unicode=True, **style)
    return text
