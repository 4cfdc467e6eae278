"""`cliptune config`: every setting with its type, default and meaning, read off the models."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cliptune.errors import ConfigError
from cluster.config import ClusterSearch

REQUIRED = "by task"  # no default: a task's preset has it, or the user gives it
GAP = 2  # blanks between columns
NAMES = {"integer": "whole number", "string": "text", "boolean": "true or false"}
BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


@dataclass(frozen=True)
class Setting:
    """One leaf of the tree."""

    name: str  # as one types it: search.budget
    type: str  # in words
    required: bool
    default: Any  # a JSON value; null where it is required
    meaning: str

    @property
    def shown_default(self) -> str:
        """The default as one types it."""
        return REQUIRED if self.required else _typed(self.default)


@dataclass(frozen=True)
class Group:
    """A section's own settings; a section inside it is a group of its own."""

    name: str  # empty for the settings outside of all sections
    meaning: str
    settings: tuple[Setting, ...]


def main(names: Sequence[str], *, as_json: bool) -> None:
    """Print the settings of these names, each a section's or a setting's; all without any."""
    groups = choose(tree(), names)
    if as_json:
        settings = [setting for group in groups for setting in group.settings]
        print(json.dumps(dict(map(_json, settings)), indent=2, ensure_ascii=False))
    else:
        _print_tables(groups)


def tree() -> list[Group]:
    """All settings of a search; a section comes before those inside it."""
    schema = ClusterSearch.model_json_schema()
    return list(_groups("", schema, schema["$defs"]))


def choose(groups: Sequence[Group], names: Sequence[str]) -> list[Group]:
    """What these names name, in the tree's order and once each."""
    known = [group.name for group in groups if group.name]
    known += [setting.name for group in groups for setting in group.settings]
    for name in names:
        if name not in known:
            raise ConfigError(f"Unknown setting or section {name}{_nearest(name, known)}.")
    chosen = []
    for group in groups:
        settings = tuple(s for s in group.settings if not names or _named(s.name, names))
        if settings:
            chosen.append(replace(group, settings=settings))
    return chosen


def _named(setting: str, names: Sequence[str]) -> bool:
    return any(f"{setting}.".startswith(f"{name}.") for name in names)


def _nearest(name: str, known: Sequence[str]) -> str:
    """What ends in the same word, wherever it is, else what is spelt alike."""
    found = [other for other in known if other.endswith(f".{name.rpartition('.')[2]}")]
    if found := found or get_close_matches(name, known, n=1):
        return f" (did you mean {' or '.join(found)}?)"
    return f" (known: {', '.join(other for other in known if '.' not in other)})"


def _groups(name: str, model: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[Group]:
    """The groups of a model's JSON schema."""
    settings: list[Setting] = []
    inner: dict[str, Mapping[str, Any]] = {}
    for key, field in model["properties"].items():
        path = f"{name}.{key}" if name else key
        if "$ref" in field:
            inner[path] = models[field["$ref"].rpartition("/")[2]]
        else:
            required = key in model.get("required", [])
            default, meaning = field.get("default"), field.get("description", "")
            words = in_words(_whole(field, models))
            settings.append(Setting(path, words, required, default, meaning))
    yield Group(name, model.get("description", ""), tuple(settings))
    for path, section in inner.items():
        yield from _groups(path, section, models)


def _whole(field: Mapping[str, Any], models: Mapping[str, Any]) -> Mapping[str, Any]:
    """A field with what it refers to among its alternatives put in."""
    kinds = [
        models[kind["$ref"].rpartition("/")[2]] if "$ref" in kind else kind
        for kind in field.get("anyOf", field.get("oneOf", []))
    ]
    return {**field, "anyOf": kinds} if kinds else field


def in_words(kind: Mapping[str, Any]) -> str:
    """What values a JSON schema admits, e.g. `whole number >= 1 or null`."""
    if "anyOf" in kind:
        return " or ".join(map(in_words, kind["anyOf"]))
    if "properties" in kind:
        return f"{{{', '.join(kind['properties'])}}}"
    if "const" in kind:
        return str(kind["const"])
    if "enum" in kind:
        return f"one of {', '.join(map(str, kind['enum']))}"
    if kind["type"] == "array":
        item = in_words(kind["items"])
        least = f"; {kind['minItems']} or more" if "minItems" in kind else ""
        return f"list of {f'({item})' if ' or ' in item else item}{least}"
    if kind.get("format") == "path":
        return "path"
    name = NAMES.get(kind["type"], kind["type"])
    limits = [f"{sign} {_number(kind[key])}" for key, sign in BOUNDS.items() if key in kind]
    return f"{name} {' and '.join(limits)}".rstrip()


def _number(value: float) -> str:
    exponent = int(value).bit_length() - 1
    return f"2^{exponent}" if exponent >= 31 and value == 2**exponent else str(value)


def _typed(value: Any) -> str:
    """A JSON value as one types it into YAML."""
    if isinstance(value, list):
        return f"[{', '.join(map(_typed, value))}]"
    return value if isinstance(value, str) else json.dumps(value)


def _json(setting: Setting) -> tuple[str, dict[str, Any]]:
    """A required setting has no default."""
    default = {} if setting.required else {"default": setting.default}
    return setting.name, {"type": setting.type, **default, "meaning": setting.meaning}


def _print_tables(groups: Sequence[Group]) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    for group in groups:
        name = Text(group.name, style="bold")
        console.print(Text(": ").join([name, Text(group.meaning)]) if group.name else group.meaning)
        console.print(_table(group.settings, console.width))
        console.print()
    if any(setting.required for group in groups for setting in group.settings):
        console.print(f"{REQUIRED}: the preset of task.name brings it, or you give it.")
    console.print("A task's preset is laid over the defaults, and what you give over both.")


def _table(settings: Sequence[Setting], width: int) -> Table:
    """Columns as wide as whole words need; what is left is the meaning's."""
    names = ["setting", *(s.name for s in settings)]
    types = ["type", *(s.type for s in settings)]
    defaults = ["default", *(s.shown_default for s in settings)]
    meanings = ["meaning", *(s.meaning for s in settings)]
    widths = [_longest(names), _column(types, 2 * width // 9), _column(defaults, width // 8)]
    widths.append(_column(meanings, width - sum(widths) - 3 * GAP))
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    titles, *rows = zip(names, types, defaults, meanings, strict=True)
    for title, size in zip(titles, widths, strict=True):
        table.add_column(title, width=size)
    for row in rows:
        table.add_row(*row)
    return table


def _column(cells: Sequence[str], most: int) -> int:
    """Wide enough for every word, and for every cell if `most` allows."""
    return max(_longest(" ".join(cells).split()), min(_longest(cells), most))


def _longest(texts: Sequence[str]) -> int:
    return max(map(len, texts))
