"""Functions of the user's own beside ours, by a name or by where they are written.

    @cliptune.mixer("trimmed")                known in this process, by ensemble.mixer=trimmed
    ensemble.mixer=package.module:trimmed     found in every process
    ensemble.mixer=path/to/file.py:trimmed    as well, and packed with jobs
    [project.entry-points."cliptune.mixers"]  of an installed package: by its name, everywhere

The source of a function decides the results of a search as its settings do.
"""

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from cliptune.errors import ConfigError
from cliptune.wording import nearest

F = TypeVar("F")
Function = Callable[..., Any]

OF_A_FILE = "cliptune_user_"  # begins the name that a user's file is imported by


class Registry(Generic[F]):
    """What one setting can name."""

    def __init__(
        self, setting: str, group: str, ours: Sequence[str], table: str, checked: str
    ) -> None:
        """`ours` are the names in a table, `module:TABLE`, that is imported when it is needed.

        `checked` is a function beside it that makes of a user's function one like ours, which
        refuses odd results.
        """
        self.setting = setting
        self.ours = tuple(ours)
        self._group = group
        self._table = table
        self._checked = checked
        self._registered: dict[str, Function] = {}
        self._found: dict[str, F] = {}

    def __call__(self, name: str) -> Callable[[Function], Function]:
        """A decorator that gives a function a name; given again, it replaces the one before."""
        if name in self.ours or not re.fullmatch(r"\w[\w-]*", name):
            raise ConfigError(
                f"{self.setting}: a name for a function must be a word and none of ours "
                f"({', '.join(self.ours)}); found {name!r}."
            )

        def register(function: Function) -> Function:
            self._registered[name] = function
            self._found.pop(name, None)
            return function

        return register

    def settled(self, name: str) -> str:
        """The name as a config keeps it: for another process, wherever that can find it.

        Raises ValueError where nothing is called so; what a path leads to is not looked at.
        """
        if name in self.ours or re.fullmatch(r"[^:]+:\w+", name):
            return name
        if name in self._registered:
            return _importable(self._registered[name]) or name
        if self._entry_point(name) is None:
            known = [*self.ours, *self._registered, *entry_points(group=self._group).names]
            raise ValueError(
                f"expected {', '.join(known)}, or a function of your own as module:function or "
                f"path/to/file.py:function; found {name!r}{nearest(name, known)}"
            )
        return name

    def find(self, name: str) -> F:
        """The function of that name; ConfigError where there is none."""
        if name not in self._found:
            home, _, table = self._table.partition(":")
            module = importlib.import_module(home)
            if name in self.ours:
                self._found[name] = getattr(module, table)[name]
            else:
                self._found[name] = getattr(module, self._checked)(name, self._function(name))
        return self._found[name]

    def is_here_only(self, name: str) -> bool:
        """Whether no other process would find it."""
        return name in self._registered and _importable(self._registered[name]) is None

    def source_digest(self, name: str) -> str | None:
        """SHA-256 of what the user's own function is written in; None for ours."""
        if name in self.ours:
            return None
        function = self._function(name)
        try:
            file = inspect.getsourcefile(inspect.unwrap(function))
        except TypeError:  # of what is callable, but no function
            file = inspect.getsourcefile(type(function))
        if file is not None and Path(file).is_file():
            return hashlib.sha256(Path(file).read_bytes()).hexdigest()
        try:
            return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()
        except (OSError, TypeError):  # of a prompt that keeps no lines
            return None

    def _function(self, name: str) -> Function:
        where, _, function = name.rpartition(":")
        try:
            if where:
                found = getattr(_module(where), function)
            elif name in self._registered:
                found = self._registered[name]
            elif (point := self._entry_point(name)) is not None:
                found = point.load()
            else:
                raise LookupError("nothing of that name is registered in this process")
        except Exception as error:
            raise ConfigError(
                f"{self.setting}: {name} cannot be imported: {error or type(error).__name__}. "
                f"Expected {', '.join(self.ours)}, or the path of a function of your own."
            ) from error
        if not callable(found):
            raise ConfigError(f"{self.setting}: {name} must be a function; found {found!r:.60}.")
        return found  # type: ignore[no-any-return]

    def _entry_point(self, name: str) -> EntryPoint | None:
        return next(iter(entry_points(group=self._group, name=name)), None)


def called(setting: str, name: str, function: Function, **arrays: Any) -> Any:
    """What a user's function makes of copies of some arrays, in the order that they are given."""
    try:
        return function(*(array.copy() for array in arrays.values()))
    except Exception as error:
        given = " and ".join(f"{what} {array.shape}" for what, array in arrays.items())
        raise ConfigError(
            f"{setting}: {name} failed on {given}: {type(error).__name__}: {error}"
        ) from error


def _importable(function: Function) -> str | None:
    """`module:function`, where that leads another process to it."""
    module, name = getattr(function, "__module__", None), getattr(function, "__name__", "")
    if not module or module == "__main__" or module.startswith(OF_A_FILE):
        return None
    return f"{module}:{name}" if getattr(sys.modules[module], name, None) is function else None


def _module(where: str) -> Any:
    if not where.endswith(".py"):
        return _import(where)
    path = Path(where).resolve()
    name = f"{OF_A_FILE}{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _import(name: str) -> Any:
    """A module that is installed, or lies in the folder where the user stands."""
    here = str(Path.cwd())
    if here in sys.path:
        return importlib.import_module(name)
    sys.path.append(here)  # last, so that nothing there hides an installed one
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(here)
