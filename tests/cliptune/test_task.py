"""Tasks: the examples of files, what is said of bad ones, and which are drawn."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny
from numbered import Row, load, rows, write, write_splits

from cliptune.config import Config, validate
from cliptune.errors import TaskError
from cliptune.hashing import digest
from cliptune.task import load_task

GOOD = rows("row", 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files with just two examples a class."""
    return write_splits(tmp_path / "mine", 4)


# Files


def test_texts_and_labels_are_read_as_they_stand(folder: Path) -> None:
    odd = [{"text": "  Größe {mask}\n", "label": 1, "id": 7}, {"text": "日本", "label": 0}]
    write(folder / "test.jsonl", odd)
    test = load(folder)["test"]
    assert test.texts == ("  Größe {mask}\n", "日本")
    assert test.labels.tolist() == [1, 0]
    assert test.labels.dtype == np.int64
    assert test.pairs is None


def test_second_sentences_stay_with_their_texts(tmp_path: Path) -> None:
    pairs = [{**row, "text_pair": f"pair of {row['text']}"} for row in rows("row", 20)]
    for split in ("train", "validation", "test"):
        write(tmp_path / f"{split}.jsonl", pairs)
    train = load(tmp_path, template="{text} ? {mask} , {text_pair}")["train"]
    assert train.pairs == tuple(f"pair of {text}" for text in train.texts)
    assert len(train) == 4


def test_second_sentences_are_not_read_where_the_template_has_none(tmp_path: Path) -> None:
    tiny.save_task(tmp_path, pair=True)
    assert load(tmp_path)["train"].pairs is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"sentence": "a", "label": 0}], "lacks the column text; found label, sentence"),
        ([{"text": "a", "gold": 0}], "lacks the column label; found gold, text"),
        ([*GOOD, {"text": "c", "label": 2}], "line 3: label .* from 0 to 1 .*found 2"),
        ([*GOOD, {"text": "c", "label": -1}], "line 3: label .*found -1"),
        ([*GOOD, {"text": "c"}], "line 3: label .*found None"),
        ([{"text": "a", "label": "1"}], r"line 1: label .*\(bad, great\) unless .*found '1'"),
        ([*GOOD, {"text": "c", "label": "great"}], "line 3: label .*found 'great'"),
        ([*GOOD, {"text": "c", "label": 1.0}], "line 3: label .* from 0 to 1 .*found 1.0"),
        ([*GOOD, {"text": "c", "label": [1]}], r"line 3: label .*found \[1\]"),
        ([{"text": "a", "label": True}], "line 1: label .*found True"),
        ([*GOOD, {"text": " \n", "label": 1}], r"line 3: text must be .* not empty; found ' "),
        ([*GOOD, {"label": 1}], "line 3: text must be .* not empty; found None"),
        ([{"text": 5, "label": 1}], "line 1: text must be a text .*found 5"),
        ([{"text": {"a": 1}, "label": 1}], "line 1: text must be a text .*found {'a': 1}"),
        ([*GOOD, {"text": "\ud83d", "label": 1}], r"line 3: text .* half a surrogate .*ud83d"),
        ('{"text": "a", "label": 0}\n\n{"text": "", "label": 1}', "line 3: text must be a text"),
        ('{"text": "a", "label": 0}\n{"text": "b",', "line 2: not JSON "),
        ("", "is empty; expected examples"),
        (" \n\n", "holds no examples; expected those of"),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_bad_file_is_named_with_the_line_and_what_was_found(
    content: Sequence[Row] | str, message: str, split: str, folder: Path
) -> None:
    write(folder / f"{split}.jsonl", content)
    with pytest.raises(TaskError, match=message) as error:
        load(folder)
    assert str(folder / f"{split}.jsonl") in str(error.value)


def test_a_missing_second_sentence_is_named(folder: Path) -> None:
    with pytest.raises(TaskError, match=r"train.jsonl lacks the column text_pair"):
        load(folder, template="{text} {text_pair}")


def test_an_empty_second_sentence_is_named(folder: Path) -> None:
    write(folder / "train.jsonl", [{**row, "text_pair": ""} for row in rows("row", 4)])
    with pytest.raises(TaskError, match="line 1: text_pair must be a text that is not empty"):
        load(folder, template="{text} {text_pair}")


# The digest


@pytest.mark.parametrize(
    ("k", "seed", "expected"),
    [
        (16, 0, "956f880cbc76e2cf5f7b2641cddb98057ff5c87de5e1be4421224df82721ad3b"),
        (4, 3, "2aa68fe04e00af8210f81eb050309cb98c09feca9fdb8c5711d4347dc62585f1"),
    ],
)
def test_the_embedded_examples_are_drawn_as_they_always_were(
    k: int, seed: int, expected: str
) -> None:
    """Older runs can be resumed only as long as this holds."""
    config = validate(Config, {"task": {"k": k, "seed": seed}})
    task = load_task(config.task)
    examples = {
        name: [split.texts, split.pairs, split.labels.tolist()]
        for name, split in task.splits.items()
    }
    assert digest([task.template.source, task.label_words, examples]) == expected
