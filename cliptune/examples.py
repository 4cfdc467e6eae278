"""Where examples come from: what `task.data` names, and what in it each split is drawn from.

A local folder or file, a folder saved by `datasets`, or a dataset of the hub.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cliptune.errors import TaskError
from cliptune.formats import FORMATS, Rows, Wanted, from_table, need_columns, read_file
from cliptune.wording import nearest, one_line, some

if TYPE_CHECKING:
    from cliptune.config import SplitNames, TaskConfig

USUAL_NAMES = {
    "train": ("train",),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test",),
}
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


class Source(Protocol):
    """Something that has splits."""

    def find(self, name: str, split: str) -> Hashable | None:
        """Where the examples called `name` are; equal places hold the same examples."""

    def read(self, place: Any, wanted: Wanted) -> Rows:
        """The examples of a place that `find` gave."""

    def missing(self, name: str, split: str) -> str:
        """That nothing is called `name`, what there is, and the remedy."""


def read_examples(config: TaskConfig, wanted: Wanted) -> Iterator[tuple[tuple[str, ...], Rows]]:
    """All rows of each place that examples come from, with those of our splits it is for."""
    with _readable(config):
        yield from _read(config, wanted)


def read_whole(config: TaskConfig, wanted: Wanted, split: str) -> Rows:
    """All rows of a single file; of a folder or a dataset, those of one of our splits."""
    with _readable(config):
        source = _open(config)
        name = getattr(config.splits, split)
        usual = USUAL_NAMES[split] if name is None else (name,)
        found = [source.find(each, split) for each in usual]
        if name is None and isinstance(source, _File):
            found = [source.path]
        elif name is None and isinstance(source, _Dataset) and len(source.splits) == 1:
            found = list(source.splits)
        place = next((place for place in found if place is not None), None)
        if place is None:
            raise TaskError(source.missing(name or split, split))
        return _some(source.read(place, wanted), (split,))


def local_files(config: TaskConfig) -> dict[str, Path]:
    """The file that each split is drawn from, where that is a file here; else nothing."""
    if config.data is None or not Path(config.data).exists():
        return {}
    with _readable(config):
        places = _places(_open(config), config.splits)
        return {split: place for split, place in places.items() if isinstance(place, Path)}


@contextmanager
def _readable(config: TaskConfig) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = error.filename or config.data
        raise TaskError(f"{place} cannot be read: {error.strerror or one_line(error)}.") from error


def _read(config: TaskConfig, wanted: Wanted) -> Iterator[tuple[tuple[str, ...], Rows]]:
    source = _open(config)
    places = _places(source, config.splits)
    for place in dict.fromkeys(places[split] for split in USUAL_NAMES):
        splits = tuple(split for split in USUAL_NAMES if places[split] == place)
        yield splits, _some(source.read(place, wanted), splits)


def _some(rows: Rows, splits: Sequence[str]) -> Rows:
    """The rows, of which there must be at least one."""
    if not rows:
        note = f" ({rows.note})" if rows.note else ""
        raise TaskError(
            f"{rows.source} holds no examples{note}; expected those of {' and '.join(splits)}."
            f" Name another place in task.splits.{splits[0]}."
        )
    return rows


def _open(config: TaskConfig) -> Source:
    if config.data is None:
        return _Folder(_embedded(config.name))
    path = Path(config.data)
    if not path.exists():
        _refuse_what_is_meant_as_a_path(config.data, path)
        return _hub(config.data, config.subset)
    if config.subset is not None:
        raise TaskError(f"task.subset is for datasets of the hub, but task.data is {path}.")
    if path.is_file():
        return _File(path)
    saved = any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))
    return _saved(path) if saved else _Folder(path)


def _places(source: Source, names: SplitNames) -> dict[str, Hashable]:
    """Where each split is drawn from; without a name, validation leaves alone what others have."""
    places = {split: _need(source, name, split) for split, name in names if name is not None}
    if "train" not in places:
        places["train"] = _need(source, "train", "train")
    if "validation" not in places:
        usual = [source.find(name, "validation") for name in USUAL_NAMES["validation"]]
        free = [place for place in usual if place is not None and place not in places.values()]
        places["validation"] = free[0] if free else places["train"]
    if "test" not in places:
        alone = places["validation"] == places["train"] and source.find("test", "test") is None
        places["test"] = places["train"] if alone else _need(source, "test", "test")
    return places


def _need(source: Source, name: str, split: str) -> Hashable:
    place = source.find(name, split)
    if place is None:
        raise TaskError(source.missing(name, split))
    return place


@dataclass(frozen=True)
class _File:
    """One file, shared out among all splits."""

    path: Path

    def find(self, name: str, split: str) -> Path | None:
        return self.path if name == "train" else None

    def read(self, place: Path, wanted: Wanted) -> Rows:
        return read_file(place, wanted)

    def missing(self, name: str, split: str) -> str:
        return (
            f"task.splits.{split} names a file of a folder or a split of a dataset, found {name}; "
            f"but task.data is the single file {self.path}. Set task.data to its folder."
        )


class _Folder:
    """A file a split; the test set may lie one folder up, shared by several folders."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[Path, Path] = {}  # a file has one place, whatever leads to it

    def find(self, name: str, split: str) -> Path | None:
        for folder in self._folders(split):
            for file in (folder / name, *(folder / f"{name}{suffix}" for suffix in FORMATS)):
                if file.is_file():
                    return self._known.setdefault(file.resolve(), file)
        return None

    def read(self, place: Path, wanted: Wanted) -> Rows:
        return read_file(place, wanted)

    def missing(self, name: str, split: str) -> str:
        looked_for = " and ".join(str(folder / name) for folder in self._folders(split))
        found = sorted(f.name for f in self.path.iterdir() if f.suffix.lower() in FORMATS)
        return (
            f"No {split} examples for the task: looked for {looked_for} with {', '.join(FORMATS)}; "
            f"the folder holds {some(found)}. Set task.data to the folder that holds the splits, "
            f"or task.splits.{split} to the name of the file."
        )

    def _folders(self, split: str) -> list[Path]:
        return [self.path] + ([self.path.resolve().parent] if split == "test" else [])


@dataclass(frozen=True)
class _Dataset:
    """The splits of a dataset of the library `datasets`."""

    name: str
    splits: Mapping[str, Any]

    def find(self, name: str, split: str) -> str | None:
        return name if name in self.splits else None

    def read(self, place: str, wanted: Wanted) -> Rows:
        from datasets import ClassLabel

        dataset = self.splits[place]
        source = f"{self.name}, split {place}"
        need_columns(source, dataset.column_names, wanted)
        columns = list(set(wanted.values()))
        rows = from_table(source, dataset.select_columns(columns).with_format("arrow")[:], wanted)
        if isinstance(dataset.features[wanted["label"]], ClassLabel):
            return _labelled(rows)
        return rows

    def missing(self, name: str, split: str) -> str:
        return (
            f"No {split} examples for the task: {self.name} has no split {name}; found "
            f"{some(list(self.splits))}. Set task.splits.{split} to one of them: what several "
            "splits are drawn from is shared out among them."
        )


def _labelled(rows: Rows) -> Rows:
    """Without the rows that `datasets` marks as unlabelled by the class -1."""
    kept = [row for row, label in enumerate(rows.columns["label"]) if label != -1]
    if len(kept) == len(rows):
        return rows
    return replace(
        rows,
        columns={key: [values[row] for row in kept] for key, values in rows.columns.items()},
        numbers=[rows.numbers[row] for row in kept],
        note=f"unlabelled rows left out: {len(rows) - len(kept):,}",
    )


def _saved(path: Path) -> _Dataset:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:
        raise TaskError(
            f"{path} cannot be read as a folder of save_to_disk: {one_line(error)}."
        ) from error
    return _Dataset(str(path), loaded if isinstance(loaded, dict) else {"train": loaded})


def _hub(name: str, subset: str | None) -> _Dataset:
    import datasets
    import huggingface_hub
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES as READERS

    if name in READERS:  # else datasets would take whatever files lie in the working directory
        raise TaskError(
            f"task.data: {name} is the name of a format, not of a dataset; give a folder or file."
        )
    datasets.disable_progress_bars()
    try:
        with _quiet(datasets.logging), _quiet(huggingface_hub.logging):
            loaded = datasets.load_dataset(name, subset)
    except (ConnectionError, FileNotFoundError) as error:
        raise TaskError(
            f"task.data: {name} is no folder or file here ({Path(name).absolute()}), and no "
            f"dataset of that name can be had: {one_line(error)}."
        ) from error
    except Exception as error:
        raise TaskError(
            f"task.data: the dataset {name} cannot be loaded with task.subset "
            f"{subset or 'null'}: {one_line(error)}."
        ) from error
    return _Dataset(name if subset is None else f"{name}/{subset}", loaded)


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Keep warnings of a library back, e.g. of every attempt to reach the hub."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _embedded(name: str) -> Path:
    folder = Path(str(resources.files("cliptune"))) / "data" / name
    if (folder / "train.jsonl").is_file():
        return folder
    raise TaskError(
        f"task.data is needed: task {name} brings no examples of its own. Give a folder with "
        "train.jsonl, validation.jsonl and test.jsonl, a single file, or the name of a dataset."
    )


def _refuse_what_is_meant_as_a_path(data: str, path: Path) -> None:
    """Say what was looked for, where that cannot be the name of a dataset."""
    beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    if (
        not HUB_NAME.fullmatch(data)
        or path.suffix.lower() in FORMATS
        or ("/" in data and path.parent.is_dir())
    ):
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise TaskError(
            f"task.data: there is no folder or file {data}{where}{nearest(path.name, beside)}."
        )
