"""Whole splits, that nothing is drawn from."""

from pathlib import Path
from typing import Any

import pytest
from datasets import DatasetDict
from numbered import dataset, rows, whole, write

from cliptune.errors import TaskError
from cliptune.task import SPLITS


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_a_single_file_is_taken_whole_and_in_its_order(
    form: str, split: str, tmp_path: Path
) -> None:
    write(tmp_path / f"train.{form}")  # is not asked for
    file = write(tmp_path / f"reviews.{form}", rows("mine", 20))
    assert whole(file, split) == [f"mine {i}" for i in range(20)]


def test_a_split_of_a_folder_is_taken_whole_without_the_others(tmp_path: Path) -> None:
    write(tmp_path / "dev.jsonl", rows("dev", 20))
    assert whole(tmp_path, "validation") == [f"dev {i}" for i in range(20)]
    assert whole(tmp_path, "test", splits={"test": "dev"}) == [f"dev {i}" for i in range(20)]


def test_a_class_without_examples_is_no_obstacle(tmp_path: Path) -> None:
    file = write(tmp_path / "reviews.jsonl", [{"text": "mine", "label": 1}] * 3)
    assert whole(file) == ["mine"] * 3


def test_a_saved_dataset_is_taken_by_the_split_or_whole_where_it_has_none(tmp_path: Path) -> None:
    DatasetDict({"train": dataset("train"), "test": dataset("test")}).save_to_disk(tmp_path / "two")
    dataset("mine", 20).save_to_disk(tmp_path / "one")
    assert whole(tmp_path / "two") == [f"test {i}" for i in range(8)]
    assert whole(tmp_path / "one") == [f"mine {i}" for i in range(20)]


def no_split(data: Path, split: str, **settings: Any) -> str:
    with pytest.raises(TaskError) as error:
        whole(data, split, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_split_that_is_not_there_is_not_made_of_another(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl")
    said = no_split(tmp_path, "validation")
    assert said.startswith("No validation examples for the task: looked for ")
    DatasetDict({"train": dataset("a"), "held": dataset("b")}).save_to_disk(tmp_path / "saved")
    assert "has no split test; found train, held" in no_split(tmp_path / "saved", "test")


def test_bad_rows_of_a_whole_file_are_refused_as_those_of_others(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n\n", encoding="utf-8")
    assert "holds no examples" in no_split(tmp_path / "empty.jsonl", "test")
    file = write(tmp_path / "bad.jsonl", [*rows("mine", 2), {"text": "mine", "label": 5}])
    assert "bad.jsonl, line 3: label must be " in no_split(file, "test")
    assert "task.splits.test names a file" in no_split(file, "test", splits={"test": "held"})
