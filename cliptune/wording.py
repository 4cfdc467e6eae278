"""Parts of the sentences that say what is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

EXPECTED = {  # pydantic's own words are for programmers
    "model_type": "expected settings of its own, by name",
    "model_attributes_type": "expected settings of its own, by name",
    "dict_type": "expected settings of its own, by name",
    "tuple_type": "expected a list, such as [a, b]",
    "string_type": "expected a text; in YAML, put it in quotes",
}


def some(names: Sequence[str], most: int = 12) -> str:
    """A list in words, cut where it is long."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "none"


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """A question that follows a list of names, where one of them is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {prefix}{close[0]}?)" if close else ""


def one_line(error: BaseException) -> str:
    """What an error of a library says, as one line of a sentence."""
    return " ".join(str(error).split())[:300].rstrip(".")


def shown(value: object) -> str:
    """A value as it stands, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def complaint(kind: type[BaseModel], error: ValidationError, hints: Mapping[str, str]) -> str:
    """What pydantic finds wrong with a tree of settings, one line a setting.

    What it says of each alternative type is joined by "or"; `hints` say why a setting is needed.
    """
    lines: dict[str, str] = {}
    for problem in error.errors():
        path = _setting(kind, problem["loc"])
        where = ".".join(path) or "the configuration"
        message = EXPECTED.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
        found = f", found {shown(problem['input'])}"
        if problem["type"] == "extra_forbidden":
            unknown = [*path, str(problem["loc"][-1])]
            where = ".".join(unknown)
            lines[where] = f"Unknown setting {where}{_nearest(kind, unknown)}."
        elif problem["type"] == "missing" and where in hints:
            lines[where] = f"{where} is missing: {hints[where]}."
        elif problem["type"] in ("missing", "value_error"):
            lines.setdefault(where, f"{where}: {message}.")
        elif where not in lines:
            lines[where] = f"{where}: {message}{found}."
        elif _alternative(problem["loc"], path):
            lines[where] = lines[where].removesuffix(f"{found}.") + f" or {message}{found}."
    return "\n".join(lines.values())


def _setting(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The part of a location that names a setting, without list items and alternative types."""
    path: list[str] = []
    section: Any = kind
    for part in location:
        field = _fields(section).get(part)
        if field is not None:
            path.append(str(part))
            section = field.annotation
    return path


def _fields(section: Any) -> dict[int | str, Any]:
    """The settings of a section, or of all that a setting may be."""
    kinds = (section, *get_args(section))
    return {name: field for kind in kinds for name, field in _own_fields(kind).items()}


def _own_fields(kind: Any) -> dict[str, Any]:
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return dict(getattr(kind, "model_fields", {}))


def _alternative(location: tuple[int | str, ...], path: list[str]) -> bool:
    return len(location) > len(path) and isinstance(location[len(path)], str)


def _nearest(kind: type[BaseModel], path: list[str]) -> str:
    section: Any = kind
    for part in path[:-1]:
        field = _fields(section).get(part)
        section = field.annotation if field else None
    known = [str(name) for name in _fields(section)]
    likely = nearest(path[-1], known, ".".join([*path[:-1], ""]))
    return likely or (f" (known here: {', '.join(known)})" if known else "")


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"search.seed": 0, ...}`."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, Mapping)
        leaves |= flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return leaves
