"""Numbered examples of two classes, files of them in every format, and the task made of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Value

from cliptune.config import TaskConfig
from cliptune.errors import TaskError
from cliptune.task import SPLITS, Task, load_split, load_task

Row = dict[str, Any]
WORDS = ("bad", "great")
FEATURES = {"text": Value("string"), "label": Value("int64")}


def rows(name: str, count: int = 8, **more: Any) -> list[Row]:
    """Examples of two classes in turn, numbered in the order of the file."""
    return [{"text": f"{name} {i}", "label": i % 2, **more} for i in range(count)]


def labelled(*labels: Any) -> list[Row]:
    """Examples with these labels."""
    return [{"text": f"row {i}", "label": label} for i, label in enumerate(labels)]


def write(path: Path, content: Sequence[Row] | str | None = None) -> Path:
    """Examples that carry the name of their file, in the format that the name says."""
    content = rows(path.stem) if content is None else content
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(content)), path)
    elif path.suffix == ".arrow":
        table = pa.Table.from_pylist(list(content))
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    elif path.suffix in (".csv", ".tsv"):
        by = {".csv": ",", ".tsv": "\t"}[path.suffix]
        lines = [
            by.join(map(str, record)) for record in (content[0], *(r.values() for r in content))
        ]
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        path.write_text("\n".join(map(json.dumps, content)), encoding="utf-8")
    return path


def write_splits(folder: Path, count: int, name: str | None = None) -> Path:
    """A folder with a file a split of this many examples, called like the split or otherwise."""
    for split in SPLITS:
        write(folder / f"{split}.jsonl", rows(name or split, count))
    return folder


def dataset(name: str, count: int = 8) -> Dataset:
    return Dataset.from_list(rows(name, count), features=datasets.Features(FEATURES))


def _config(data: Path | str, **settings: Any) -> TaskConfig:
    tree = {"template": "{text}", "label_words": WORDS, "k": 2, **settings}
    return TaskConfig(name="mine", data=str(data), **tree)


def load(data: Path | str, **settings: Any) -> Task:
    return load_task(_config(data, **settings))


def whole(data: Path | str, split: str = "test", **settings: Any) -> list[str]:
    """The texts of a task with one split alone."""
    task = load_split(_config(data, **settings), split)
    assert list(task.splits) == [split]
    return list(task[split].texts)


def refusal(data: Path | str, **settings: Any) -> str:
    """The one sentence that is said of this task."""
    with pytest.raises(TaskError) as error:
        load(data, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def names(task: Task) -> list[str]:
    """The first word of each split's texts: what they were called where they come from."""
    return [split.texts[0].split()[0] for split in task.splits.values()]
