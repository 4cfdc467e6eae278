"""What a search needs of this machine's files, made ready to travel: a config.yaml and those files.

All paths in the package's config.yaml are relative to it. What is not here, the cluster's machines
have to find by themselves: a hub id, a path on a disk that they share.
"""

import hashlib
import importlib.util
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from cliptune.config import merge
from cliptune.errors import ConfigError
from cliptune.examples import HUB_NAME, local_files
from cliptune.formats import FORMATS
from cliptune.functions import FUNCTIONS
from cliptune.hashing import digest
from cliptune.settings import safe_dump
from cluster.config import ClusterSearch

CONFIG = "config.yaml"
LIMIT = 100 * 2**20  # bytes that Ray's dashboard accepts at once
CHUNK = 2**20
OF_A_MODEL = (".safetensors", ".json", ".txt", ".model", ".jinja")  # of its folder, what is loaded
PLACES = (
    "task.data",
    "model.name",
    "prompt.file",
    *(registry.setting for registry in FUNCTIONS.values()),
)


@dataclass(frozen=True)
class Package:
    """A search without what is peculiar to this machine."""

    tree: Mapping[str, Any]  # of config.yaml
    files: Mapping[str, Path]  # by their names in the package
    elsewhere: Mapping[str, str]  # settings that name what the cluster's machines have to find
    identity: Mapping[str, Any]  # the settings that decide the results

    def digest(self) -> str:
        """SHA-256 of what decides the results, as far as that is known here."""
        contents = {name: _sha256(path) for name, path in sorted(self.files.items())}
        return digest([self.identity, dict(self.elsewhere), contents])

    def write(self, archive: Path) -> int:
        """Write it as a zip file and return its size; equal packages give equal bytes.

        ConfigError as soon as it is larger than what Ray accepts.
        """
        with archive.open("wb") as raw:
            with ZipFile(raw, "w", ZIP_DEFLATED) as bundle:
                bundle.writestr(_entry(CONFIG), safe_dump(dict(self.tree)))
                for name, path in sorted(self.files.items()):
                    self._add(bundle, raw, name, path)
            size = raw.tell()
        if size > LIMIT:
            raise ConfigError(self._too_large())
        return size

    def _add(self, bundle: ZipFile, raw: BinaryIO, name: str, path: Path) -> None:
        try:
            with path.open("rb") as source, bundle.open(_entry(name), "w", force_zip64=True) as to:
                while chunk := source.read(CHUNK):
                    to.write(chunk)
                    if raw.tell() > LIMIT:
                        raise ConfigError(self._too_large())
        except OSError as error:
            raise _unreadable(path, error) from error

    def _too_large(self) -> str:
        sizes = sorted(((path.stat().st_size, path) for path in self.files.values()), reverse=True)
        largest = ", ".join(f"{path} ({size_words(size)})" for size, path in sizes[:3])
        return (
            f"The package is over the {size_words(LIMIT)} that Ray accepts; the largest of its "
            f"files: {largest}. Put them where all machines of the cluster find them and give that "
            "path (where it is one here too, with --as-is SETTING), or name a model or a dataset "
            "of the hub."
        )


def pack(config: ClusterSearch, as_is: Collection[str] = ()) -> Package:
    """Find the files that a config names and needs; `as_is` names settings to be left alone."""
    if unknown := set(as_is) - set(PLACES):
        raise ConfigError(
            f"--as-is is for settings that name files: {', '.join(PLACES)}; found "
            f"{', '.join(sorted(unknown))}."
        )
    packer = _Packer(set(as_is))
    changes = {
        "task": packer.task(config),
        "model": packer.model(config),
        "prompt": packer.prompt(config),
    }
    tree = merge(merge(config.model_dump(mode="json"), changes), packer.functions(config))
    del tree["run_dir"]  # given by the job's command
    del tree["cluster"]["address"]  # a job runs where it is sent
    return Package(tree, packer.files, packer.elsewhere, config.identity())


class _Packer:
    """Takes up files; each method returns what changes of a section."""

    def __init__(self, as_is: set[str]) -> None:
        self.files: dict[str, Path] = {}
        self.elsewhere: dict[str, str] = {}
        self._as_is = as_is

    def task(self, config: ClusterSearch) -> dict[str, Any]:
        task = config.task
        if task.data is None or not self._is_here("task.data", task.data, hub=True):
            return {}
        path = Path(task.data)
        if path.is_file():
            return {"data": self._take(path, "data")}
        drawn = local_files(task)
        if not drawn:  # saved by the library datasets
            return {"data": self._take_all(path, "data", sorted(path.rglob("*")))}
        names = {place: self._take(place, "data") for place in dict.fromkeys(drawn.values())}
        splits = {split: Path(names[place]).name for split, place in drawn.items()}
        return {"data": "data", "splits": splits}

    def model(self, config: ClusterSearch) -> dict[str, Any]:
        name = config.model.name
        if name == "minilm" or not self._is_here("model.name", name, hub=True):
            return {}
        path = Path(name)
        if not path.is_dir():
            raise ConfigError(f"model.name: {name} is a file; expected a folder or a hub id.")
        needed = [file for file in sorted(path.iterdir()) if file.suffix in OF_A_MODEL]
        return {"name": self._take_all(path, "model", needed)}

    def prompt(self, config: ClusterSearch) -> dict[str, Any]:
        file = config.prompt.file
        if file is None or not self._is_here("prompt.file", str(file)):
            return {}
        return {"file": self._take(file, "prompt")}

    def functions(self, config: ClusterSearch) -> dict[str, Any]:
        """Of all sections: the files that functions of the user's own are written in."""
        changes: dict[str, dict[str, Any]] = {}
        for section, setting in FUNCTIONS:
            name = getattr(getattr(config, section), setting)
            if packed := self._function(f"{section}.{setting}", name):
                changes.setdefault(section, {})[setting] = packed
        return changes

    def _function(self, setting: str, name: str) -> str | None:
        where, _, function = name.rpartition(":")
        if where.endswith(".py"):
            if self._is_here(setting, where):
                return f"{self._take(Path(where), setting.partition('.')[2])}:{function}"
        elif where:
            if importlib.util.find_spec(where.partition(".")[0]) is None:
                raise ConfigError(
                    f"{setting}: {where} is not installed, and so not on the cluster; give "
                    "it by its file, path/to/file.py:function, to have it packed."
                )
            self.elsewhere[setting] = name
        return None

    def _is_here(self, setting: str, place: str, *, hub: bool = False) -> bool:
        """Whether to pack it; what is not here may be what only the cluster has."""
        path = Path(place)
        if setting not in self._as_is and path.exists():
            return True
        if not (path.is_absolute() or (hub and _may_be_on_a_hub(place))):
            found = f"{place} is relative" if path.exists() else f"no {place} in {Path.cwd()}"
            raise ConfigError(
                f"{setting}: {found}; a path on the cluster's machines has to be absolute."
            )
        self.elsewhere[setting] = place
        return False

    def _take(self, path: Path, folder: str) -> str:
        """Pack one file; returns its name in the package."""
        if not path.is_file():
            raise ConfigError(f"{path} is not a file, and cannot be packed.")
        name, number = f"{folder}/{path.name}", 1
        while name in self.files:
            number += 1
            name = f"{folder}/{path.stem}-{number}{path.suffix}"
        self.files[name] = path
        return name

    def _take_all(self, root: Path, folder: str, paths: list[Path]) -> str:
        for path in paths:
            if path.is_file():
                self.files[f"{folder}/{path.relative_to(root)}"] = path
        return folder


def size_words(size: int) -> str:
    """Bytes, for people."""
    value = float(size)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _may_be_on_a_hub(name: str) -> bool:
    """Whether a name that is no path here is not meant as one."""
    path = Path(name)
    beside = "/" in name and path.parent.is_dir()
    return bool(HUB_NAME.fullmatch(name)) and path.suffix.lower() not in FORMATS and not beside


def _entry(name: str) -> ZipInfo:
    """A file that is always as old, and that others than its owner may only read."""
    entry = ZipInfo(name)
    entry.compress_type = ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path} cannot be read: {error.strerror}.")
