"""Labels: numbers, label words or values of one's own, in formats with and without types."""

from pathlib import Path
from typing import Any

import pytest
from numbered import labelled, load, refusal, write, write_splits


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files with just two examples a class."""
    return write_splits(tmp_path / "mine", 4)


@pytest.mark.parametrize(
    ("labels", "column"),
    [
        (["neg", "pos"], ("neg", "pos", "pos", "neg")),
        (["pos", "neg"], ("pos", "neg", "neg", "pos")),
        ([5, 3], (5, 3, 3, 5)),
        ([3, "none"], (3, "none", "none", 3)),
        (["1", "0"], ("1", "0", "0", "1")),
        (None, ("bad", "great", "great", "bad")),
        (None, (0, 1, 1, 0)),
    ],
)
def test_labels_count_in_the_order_of_the_label_words(
    labels: list[int | str] | None, column: tuple[int | str, ...], folder: Path
) -> None:
    write(folder / "test.jsonl", labelled(*column))
    if labels is not None:
        for split in ("train", "validation"):
            write(folder / f"{split}.jsonl", labelled(*column))
    assert load(folder, labels=labels)["test"].labels.tolist() == [0, 1, 1, 0]


def test_columns_may_be_called_otherwise(folder: Path) -> None:
    renamed = [{"body": f"row {i}", "class": i % 2, "text": "not this"} for i in range(4)]
    for split in ("train", "validation", "test"):
        write(folder / f"{split}.jsonl", renamed)
    columns = {"text": "body", "label": "class"}
    assert load(folder, columns=columns)["test"].texts[3] == "row 3"
    write(folder / "test.jsonl", [{"body": "a", "class": 2}])
    assert "line 1: class must be a whole number" in refusal(folder, columns=columns)


@pytest.mark.parametrize(
    ("labels", "value", "message"),
    [
        (["neg", "pos"], "Pos", "label must be one of task.labels ('neg', 'pos'); found 'Pos'."),
        ([1, 2], "1", "label must be one of task.labels (1, 2); found '1'."),
        (["1", "2"], 1, "label must be one of task.labels ('1', '2'); found 1."),
        ([0, 1], True, "label must be one of task.labels (0, 1); found True."),
        ([0, 1], False, "found False."),
        ([0, 1], 1.0, "found 1.0."),
    ],
)
def test_only_the_labels_that_were_given_are_taken(
    labels: list[int | str], value: Any, message: str, folder: Path
) -> None:
    write(folder / "train.jsonl", [*labelled(*labels), {"text": "c", "label": value}])
    said = refusal(folder, labels=labels)
    assert f"{folder / 'train.jsonl'}, line 3: " in said
    assert said.endswith(message)


def csv(folder: Path, *labels: str) -> Path:
    file = folder / "labels.csv"
    write(file, "text,label\n" + "".join(f"row {i},{v}\n" for i, v in enumerate(labels)))
    return file


@pytest.mark.parametrize(
    ("labels", "column"),
    [
        (None, "0 1 1 0 0 1"),
        (None, "bad great great bad bad great"),
        ([3, -1], "3 -1 -1 3 3 -1"),
        (["x", "1.0"], "x 1.0 1.0 x x 1.0"),
    ],
)
def test_labels_of_a_text_format_are_read_as_the_numbers_or_words_that_they_are(
    labels: list[int | str] | None, column: str, tmp_path: Path
) -> None:
    task = load(csv(tmp_path, *column.split()), labels=labels, k=1)
    by_text = {
        text: int(label)
        for split in task.splits.values()
        for text, label in zip(split.texts, split.labels, strict=True)
    }
    assert [by_text[f"row {i}"] for i in range(6)] == [0, 1, 1, 0, 0, 1]


@pytest.mark.parametrize("odd", ["1.0", "01", " 1", "+1", "1e0", "", "great", "\u0660"])
def test_a_label_of_a_text_format_is_taken_only_as_it_would_be_written(
    odd: str, tmp_path: Path
) -> None:
    said = refusal(csv(tmp_path, "0", "1", odd))
    assert "labels.csv, line 4: label must be a whole number from 0 to 1 (" in said
    assert said.endswith(f"found {odd!r}.")


def test_numbers_as_label_words_and_in_a_text_format_must_be_explained(tmp_path: Path) -> None:
    file = csv(tmp_path, *"112212")
    said = refusal(file, label_words=("1", "2"), k=1)
    assert said.startswith("task.labels is needed: the label words (1, 2) could be taken for")
    task = load(file, label_words=("1", "2"), labels=[1, 2], k=1)
    assert sorted(label for s in task.splits.values() for label in s.labels) == [0, 0, 0, 1, 1, 1]
