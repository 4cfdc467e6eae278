"""A few-shot task: template, label words, and k examples a class out of what there is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from string import Formatter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cliptune.errors import TaskError
from cliptune.examples import USUAL_NAMES, read_examples, read_whole
from cliptune.formats import Rows, Wanted
from cliptune.randomness import generator
from cliptune.types import Labels
from cliptune.wording import shown, some

if TYPE_CHECKING:
    from cliptune.config import TaskConfig

SPLITS = tuple(USUAL_NAMES)
FIELDS = ("text", "text_pair", "mask")
SURROGATE = re.compile("[\ud800-\udfff]")

LabelTokens = Literal["single", "first"]


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
    def ends_with_mask(self) -> bool:
        """Whether nothing stands behind the mask."""
        *_, (_, last, _, _) = Formatter().parse(self.source)
        return last == "mask"

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
    source: str = ""  # what they were drawn from
    available: int = 0  # how many examples that held
    values: tuple[int | str, ...] = ()  # what its label column has for each class

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: NDArray[np.int64]) -> Split:
        """Some of the examples."""
        texts = tuple(self.texts[row] for row in rows)
        pairs = None if self.pairs is None else tuple(self.pairs[row] for row in rows)
        return replace(self, texts=texts, pairs=pairs, labels=self.labels[rows])


@dataclass(frozen=True)
class Task:
    """All that a scorer needs to know of a classification task."""

    name: str
    template: Template
    label_words: tuple[str, ...]
    splits: Mapping[str, Split]
    max_tokens: int | None = None
    label_tokens: LabelTokens = "single"
    verbalizer: tuple[tuple[str, ...], ...] | None = None  # several words a class

    def __getitem__(self, split: str) -> Split:
        return self.splits[split]

    @property
    def classes(self) -> int:
        return len(self.label_words)

    @property
    def words(self) -> tuple[tuple[str, ...], ...]:
        """The words that each class is read from."""
        return self.verbalizer or tuple((word,) for word in self.label_words)

    @property
    def every_word(self) -> tuple[str, ...]:
        """Those of all classes, one class after the other."""
        return tuple(word for words in self.words for word in words)

    @property
    def words_setting(self) -> str:
        """Which setting says them."""
        return "task.label_words" if self.verbalizer is None else "task.verbalizer"


def load_task(config: TaskConfig) -> Task:
    """Read the task's examples; train and validation are cut to k a class."""
    template = Template(config.template)
    wanted = _wanted(template, config)
    splits: dict[str, Split] = {}
    for names, rows in read_examples(config, wanted):
        splits |= _share_out(_checked(rows, wanted, config), names, config)
    return _task(template, {name: splits[name] for name in SPLITS}, config)


def load_split(config: TaskConfig, name: str) -> Task:
    """A task with one split, nothing drawn from it: a whole file, or one of a folder or dataset.

    For scoring a prompt on other examples than those that it was searched with.
    """
    template = Template(config.template)
    wanted = _wanted(template, config)
    split = _checked(read_whole(config, wanted, name), wanted, config)
    return _task(template, {name: split}, config)


def without_examples(config: TaskConfig) -> Task:
    """The task as far as it is known without its data: enough to classify other texts."""
    return _task(Template(config.template), {}, config)


def text_columns(config: TaskConfig) -> Wanted:
    """What the columns of the texts are called, of one or of two."""
    wanted = _wanted(Template(config.template), config)
    return {field: column for field, column in wanted.items() if field != "label"}


def unlabelled(rows: Rows, wanted: Wanted) -> Split:
    """Examples whose class is not known; their texts are checked as those of a task are."""
    texts = {field: _texts(rows, field, column) for field, column in wanted.items()}
    labels = np.full(len(rows), -1, dtype=np.int64)
    return Split(texts["text"], texts.get("text_pair"), labels, rows.source, len(rows))


def _wanted(template: Template, config: TaskConfig) -> Wanted:
    fields = ("text", "text_pair", "label") if template.has_pair else ("text", "label")
    return {field: getattr(config.columns, field) for field in fields}


def _task(template: Template, splits: Mapping[str, Split], config: TaskConfig) -> Task:
    return Task(
        config.name,
        template,
        config.label_words,
        splits,
        config.max_tokens,
        config.label_tokens,
        config.verbalizer,
    )


def _checked(rows: Rows, wanted: Wanted, config: TaskConfig) -> Split:
    """All rows as a split; the first that is not right is named."""
    labels, values = _labels(rows, wanted["label"], config)
    texts = {
        field: _texts(rows, field, column) for field, column in wanted.items() if field != "label"
    }
    source = f"{rows.source} ({rows.note})" if rows.note else rows.source
    return Split(texts["text"], texts.get("text_pair"), labels, source, len(rows), values)


def _texts(rows: Rows, field: str, column: str) -> tuple[str, ...]:
    for row, text in enumerate(rows.columns[field]):
        if not (isinstance(text, str) and text.strip()):
            raise TaskError(
                f"{rows.where(row)}: {column} must be a text that is not empty; "
                f"found {shown(text)}."
            )
        if SURROGATE.search(text):
            raise TaskError(
                f"{rows.where(row)}: {column} must be a text in Unicode; found half a surrogate "
                f"pair in {shown(text)}."
            )
    return tuple(rows.columns[field])


def _labels(rows: Rows, column: str, config: TaskConfig) -> tuple[Labels, tuple[int | str, ...]]:
    """The class of each row, and what the column has for each class."""
    given = rows.columns["label"]
    values, expected = _known_labels(given[0], rows.only_text, config)
    known = {str(v) if rows.only_text else v: label for label, v in enumerate(values)}
    labels = np.empty(len(given), dtype=np.int64)
    for row, value in enumerate(given):
        label = known.get(value) if type(value) in (int, str) else None
        if label is None:
            raise TaskError(
                f"{rows.where(row)}: {column} must be {expected}; found {shown(value)}."
            )
        labels[row] = label
    return labels, tuple(values)


def _known_labels(
    first: Any, only_text: bool, config: TaskConfig
) -> tuple[Sequence[int | str], str]:
    """The values that a label column may hold, one a class, and what to say of them.

    Without task.labels the column's first value tells whether it holds numbers or label words.
    """
    words = config.label_words
    values: Sequence[int | str]
    if config.labels is not None:
        values = config.labels
        expected = f"one of task.labels ({some([repr(value) for value in values])})"
    elif isinstance(first, str) and not (only_text and first.isdecimal()):
        values = words
        expected = (
            f"one of the label words ({some(words)}) unless task.labels gives the column's values"
        )
    elif only_text and any(word.isdecimal() for word in words):
        raise TaskError(
            f"task.labels is needed: the label words ({some(words)}) could be taken for the "
            "numbers of classes. Give the label column's values in the order of the label words."
        )
    else:
        values = range(len(words))
        expected = f"a whole number from 0 to {len(words) - 1} (there are {len(words)} label words)"
    return values, expected


def _share_out(whole: Split, names: tuple[str, ...], config: TaskConfig) -> dict[str, Split]:
    """Our splits out of one place, without overlap; test is what is left."""
    _refuse_too_few(whole, names, config)
    left = np.ones(len(whole), dtype=bool)
    splits = {}
    for name in names:
        if name == "test" or config.k == "all":
            chosen = np.flatnonzero(left)
        else:
            chosen = _draw(np.where(left, whole.labels, -1), config.k, name, config)
        left[chosen] = False
        splits[name] = whole.take(chosen)
    return splits


def _refuse_too_few(whole: Split, names: tuple[str, ...], config: TaskConfig) -> None:
    drawn = [name for name in names if name != "test"]
    if config.k == "all" and len(names) > 1:
        raise TaskError(
            f"task.k=all takes splits whole, but {', '.join(names)} come from one place, "
            f"{whole.source}. Name another in task.splits.{names[-1]}, or give task.k a number."
        )
    needed = len(drawn) * (1 if config.k == "all" else config.k)
    asked = f"task.k asks for {config.k} examples a class"
    if len(drawn) > 1:
        asked += f" for train and as many for validation, {needed} in all"
    elif config.k == "all":
        asked = "Each class needs an example"
    place = names[0] if len(names) == 1 else whole.source
    for label, word in enumerate(config.label_words):
        has = int((whole.labels == label).sum())
        if has < needed:
            raise TaskError(
                f"{asked}, but {place} has {has} of class {label} ({word}). "
                "Lower task.k or add examples."
            )
    if "test" in names and len(whole) == needed * len(config.label_words):
        raise TaskError(
            f"{place} has {len(whole)} examples, and {' and '.join(drawn)} use all of them: none "
            "is left for test. Lower task.k, add examples or set task.splits.test."
        )


def _draw(labels: Labels, k: int, name: str, config: TaskConfig) -> NDArray[np.int64]:
    """Rows of k examples of every class, in the order of the file; all, where there are just k."""
    rng = generator("examples", config.seed, name)
    classes = [np.flatnonzero(labels == label) for label in range(len(config.label_words))]
    return np.sort(np.concatenate([rng.permutation(rows)[:k] for rows in classes]))
