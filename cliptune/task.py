"""A few-shot task: template, label words, and k examples a class out of a folder's files."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np

from cliptune.config import TaskConfig, digest
from cliptune.errors import TaskError
from cliptune.randomness import generator
from cliptune.types import Labels

SPLITS = ("train", "validation", "test")
FIELDS = ("text", "text_pair", "mask")


@dataclass(frozen=True)
class Rendered:
    """An example in its template, as one string; spans are [start, end) in characters."""

    string: str
    text_spans: tuple[tuple[int, int], ...]  # what truncation may shorten
    mask_span: tuple[int, int] | None


@dataclass(frozen=True)
class Template:
    """How an example is put into words, e.g. `{text} . It was {mask} .`"""

    source: str

    def __post_init__(self) -> None:
        try:
            parsed = [part for part in Formatter().parse(self.source) if part[1] is not None]
        except ValueError as error:
            raise TaskError(
                f"task.template cannot be read: {error}; found {self.source!r}."
            ) from None
        fields = [str(name) for _, name, _, _ in parsed]
        decorated = [name for _, name, form, conversion in parsed if form or conversion]
        if unknown := [name for name in fields if name not in FIELDS] + decorated:
            raise TaskError(
                "task.template knows {text}, {text_pair} and {mask}, just as they are; "
                f"found another field, {unknown[0]!r}, in {self.source!r}."
            )
        if fields.count("text") != 1 or max(map(fields.count, FIELDS)) > 1:
            raise TaskError(
                "task.template must hold {text} once, and {text_pair} and {mask} at most once; "
                f"found {self.source!r}."
            )

    @property
    def has_mask(self) -> bool:
        return "mask" in self.fields

    @property
    def has_pair(self) -> bool:
        return "text_pair" in self.fields

    @property
    def fields(self) -> set[str]:
        """Names of what the template has places for."""
        return {name for _, name, _, _ in Formatter().parse(self.source) if name is not None}

    def render(self, text: str, pair: str | None, mask: str) -> Rendered:
        """Fill the template, and remember where its parts came to lie."""
        values = {"text": text, "text_pair": pair or "", "mask": mask}
        string = ""
        spans: dict[str, tuple[int, int]] = {}
        for literal, name, _, _ in Formatter().parse(self.source):
            string += literal
            if name is not None:
                spans[name] = (len(string), len(string) + len(values[name]))
                string += values[name]
        texts = tuple(spans[name] for name in ("text", "text_pair") if name in spans)
        return Rendered(string, texts, spans.get("mask"))


@dataclass(frozen=True)
class Split:
    """Examples in a fixed order."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None  # second sentences, of sentence-pair tasks
    labels: Labels

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Task:
    """All that a scorer needs to know of a classification task."""

    name: str
    template: Template
    label_words: tuple[str, ...]
    splits: Mapping[str, Split]
    max_tokens: int | None = None

    def __getitem__(self, split: str) -> Split:
        return self.splits[split]

    @property
    def classes(self) -> int:
        return len(self.label_words)

    def digest(self) -> str:
        """SHA-256 of the examples, the template and the label words."""
        examples = {
            name: [split.texts, split.pairs, split.labels.tolist()]
            for name, split in self.splits.items()
        }
        return digest([self.template.source, self.label_words, examples])


def load_task(config: TaskConfig) -> Task:
    """Read the task's files; train and validation are cut to k examples a class."""
    template = Template(config.template)
    folder = _folder(config)
    splits = {}
    for name in SPLITS:
        split = _read(_find(folder, name), template, len(config.label_words))
        splits[name] = split if name == "test" else _sample(split, name, config)
    return Task(config.name, template, config.label_words, splits, config.max_tokens)


def _folder(config: TaskConfig) -> Path:
    if config.data is not None:
        return config.data
    embedded = Path(str(resources.files("cliptune"))) / "data" / config.name
    if (embedded / "train.jsonl").is_file():
        return embedded
    raise TaskError(
        f"task.data is needed: task {config.name} brings no examples of its own. "
        "Give a folder with train.jsonl and validation.jsonl; test.jsonl there or one folder up."
    )


def _find(folder: Path, name: str) -> Path:
    """`<name>.jsonl` in the folder; the test set may lie one folder up, shared by all seeds."""
    places = [folder / f"{name}.jsonl"]
    if name == "test":
        places.append(folder.resolve().parent / "test.jsonl")
    for place in places:
        if place.is_file():
            return place
    raise TaskError(
        f"No {name}.jsonl for the task: looked for {' and '.join(map(str, places))}. "
        "Set task.data to the folder that holds the splits."
    )


def _read(path: Path, template: Template, classes: int) -> Split:
    columns = _load_columns(path)
    needed = ["text", "label"] + (["text_pair"] if template.has_pair else [])
    if missing := [name for name in needed if name not in columns]:
        raise TaskError(
            f"{path} lacks the column {missing[0]}; found {', '.join(sorted(columns))}."
        )
    for row, label in enumerate(columns["label"], start=1):
        if type(label) is not int or not 0 <= label < classes:
            raise TaskError(
                f"{path}, line {row}: label must be a whole number from 0 to {classes - 1} "
                f"(there are {classes} label words); found {label!r}."
            )
    for name in needed:
        for row, text in enumerate(columns[name], start=1):
            if name != "label" and not (isinstance(text, str) and text.strip()):
                raise TaskError(
                    f"{path}, line {row}: {name} must be a text that is not empty; found {text!r}."
                )
    pairs = tuple(columns["text_pair"]) if template.has_pair else None
    return Split(tuple(columns["text"]), pairs, np.asarray(columns["label"], dtype=np.int64))


def _load_columns(path: Path) -> dict[str, list[Any]]:
    import datasets

    datasets.disable_progress_bars()
    try:
        with tempfile.TemporaryDirectory() as cache:
            loaded = datasets.Dataset.from_json(str(path), cache_dir=cache, keep_in_memory=True)
            return dict(loaded.to_dict())
    except Exception as error:
        raise TaskError(
            f"{path} cannot be read as JSON lines: {error.__cause__ or error}"
        ) from error


def _sample(split: Split, name: str, config: TaskConfig) -> Split:
    """Draw k examples of every class, in the order of the file; all, where there are just k."""
    rng = generator("examples", config.seed, name)
    chosen: list[int] = []
    for label, word in enumerate(config.label_words):
        rows = np.flatnonzero(split.labels == label)
        if len(rows) < config.k:
            raise TaskError(
                f"task.k asks for {config.k} examples a class, but {name} has {len(rows)} of class "
                f"{label} ({word}). Lower task.k or add examples."
            )
        chosen.extend(rng.permutation(rows)[: config.k].tolist())
    chosen.sort()
    pairs = tuple(split.pairs[i] for i in chosen) if split.pairs is not None else None
    return Split(tuple(split.texts[i] for i in chosen), pairs, split.labels[chosen])
