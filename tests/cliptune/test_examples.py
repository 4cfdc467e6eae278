"""Where examples come from: folders and files, and what is said where there is nothing."""

from pathlib import Path

import datasets
import pytest
from numbered import load, names, refusal, rows, write

from cliptune.config import TaskConfig
from cliptune.errors import TaskError
from cliptune.task import SPLITS, load_task

# Folders


@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "tsv", "parquet", "arrow"])
def test_a_folder_holds_a_file_a_split_in_any_format(form: str, tmp_path: Path) -> None:
    for name in SPLITS:
        write(tmp_path / f"{name}.{form}")
    task = load(tmp_path)
    assert names(task) == list(SPLITS)
    assert [len(split) for split in task.splits.values()] == [4, 4, 8]
    assert [split.source for split in task.splits.values()] == [
        str(tmp_path / f"{name}.{form}") for name in SPLITS
    ]


def test_each_split_may_be_of_another_format(tmp_path: Path) -> None:
    for name in ("train.csv", "dev.parquet", "test.jsonl"):
        write(tmp_path / name)
    assert names(load(tmp_path)) == ["train", "dev", "test"]


def test_json_lines_come_first_where_there_are_several(tmp_path: Path) -> None:
    for name in ("train.csv", "test.csv"):
        write(tmp_path / name)
    write(tmp_path / "train.jsonl", rows("lines"))
    assert names(load(tmp_path, k=1))[0] == "lines"


@pytest.mark.parametrize("name", ["validation", "valid", "dev", "val"])
def test_the_validation_split_has_several_usual_names(name: str, tmp_path: Path) -> None:
    for one in ("train", name, "test"):
        write(tmp_path / f"{one}.csv")
    assert names(load(tmp_path)) == ["train", name, "test"]


def test_without_a_validation_split_it_is_drawn_from_the_training_split(tmp_path: Path) -> None:
    write(tmp_path / "train.csv")
    write(tmp_path / "test.csv")
    task = load(tmp_path)
    assert names(task) == ["train", "train", "test"]
    assert not set(task["train"].texts) & set(task["validation"].texts)


def test_a_training_split_alone_is_shared_out_among_all(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", rows("train", 12))
    task = load(tmp_path)
    assert names(task) == ["train", "train", "train"]
    assert len({text for split in task.splits.values() for text in split.texts}) == 12


@pytest.mark.parametrize("name", ["seen", "seen.csv"])
def test_splits_may_be_called_otherwise(name: str, tmp_path: Path) -> None:
    for one in ("seen.csv", "tune.tsv", "held.v2.jsonl", "train.csv", "validation.csv"):
        write(tmp_path / one)
    splits = {"train": name, "validation": "tune", "test": "held.v2"}
    assert names(load(tmp_path, splits=splits)) == ["seen", "tune", "held.v2"]


def test_what_another_split_was_given_is_no_validation_split(tmp_path: Path) -> None:
    for one in ("train", "validation"):
        write(tmp_path / f"{one}.csv")
    task = load(tmp_path, splits={"test": "validation"})
    assert names(task) == ["train", "train", "validation"]
    assert len(task["test"]) == 8


def test_one_file_by_two_names_is_still_one_file(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", rows("train", 12))
    (tmp_path / "validation.csv").symlink_to(tmp_path / "train.csv")
    task = load(tmp_path, splits={"test": f"../{tmp_path.name}/train.csv"})
    texts = [text for split in task.splits.values() for text in split.texts]
    assert len(texts) == len(set(texts)) == 12


def test_the_test_set_may_lie_one_folder_up(tmp_path: Path) -> None:
    for name in ("16-1/train.csv", "16-1/dev.csv", "test.parquet", "other.csv"):
        write(tmp_path / name)
    assert names(load(tmp_path / "16-1"))[2] == "test"
    assert names(load(tmp_path / "16-1", splits={"test": "other"}))[2] == "other"


def test_the_folders_own_test_set_comes_first(tmp_path: Path) -> None:
    for name in ("16-1/train.csv", "16-1/dev.csv", "16-1/test.csv"):
        write(tmp_path / name)
    write(tmp_path / "test.jsonl", rows("shared"))
    assert names(load(tmp_path / "16-1"))[2] == "test"


def test_what_is_learnt_from_is_never_taken_from_one_folder_up(tmp_path: Path) -> None:
    for name in ("train.csv", "validation.csv", "test.csv", "16-1/other.csv"):
        write(tmp_path / name)
    said = refusal(tmp_path / "16-1")
    assert said.startswith(
        f"No train examples for the task: looked for {tmp_path / '16-1' / 'train'} with .jsonl, "
    )
    assert "the folder holds other.csv. Set task.data to the folder" in said
    task = load(tmp_path / "16-1", splits={"train": "other"})
    assert names(task) == ["other", "other", "test"]


def test_a_missing_test_set_names_both_places(tmp_path: Path) -> None:
    for name in ("16-1/train.csv", "16-1/dev.csv"):
        write(tmp_path / name)
    said = refusal(tmp_path / "16-1")
    assert f"looked for {tmp_path / '16-1' / 'test'} and {tmp_path / 'test'} with" in said
    assert "task.splits.test to the name of the file" in said


def test_a_name_that_a_split_was_given_must_be_there(tmp_path: Path) -> None:
    for one in SPLITS:
        write(tmp_path / f"{one}.csv")
    assert "looked for " + str(tmp_path / "dev") in refusal(tmp_path, splits={"validation": "dev"})


def test_a_task_without_examples_asks_for_them() -> None:
    config = TaskConfig(name="sst2", template="{text}", label_words=("a", "b"))
    with pytest.raises(TaskError, match=r"task.data is needed: task sst2 brings no examples"):
        load_task(config)


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "reviews.csv", rows("mine", 12))
    assert names(load("~/reviews.csv"))[0] == "mine"


# Single files


@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "tsv", "parquet", "arrow"])
def test_a_single_file_is_shared_out_without_overlap(form: str, tmp_path: Path) -> None:
    file = write(tmp_path / f"reviews.{form}", rows("mine", 20))
    write(tmp_path / f"validation.{form}")  # is not asked for
    task = load(file, k=3)
    assert [len(split) for split in task.splits.values()] == [6, 6, 8]
    assert len({text for split in task.splits.values() for text in split.texts}) == 20
    assert {split.source for split in task.splits.values()} == {str(file)}


def test_a_single_file_has_no_splits_to_be_named(tmp_path: Path) -> None:
    file = write(tmp_path / "reviews.csv")
    said = refusal(file, splits={"test": "held"})
    assert said.startswith("task.splits.test names a file of a folder")
    assert f"the single file {file}. Set task.data to its folder." in said


def test_subsets_are_not_for_what_lies_here(tmp_path: Path) -> None:
    write(tmp_path / "train.csv")
    assert refusal(tmp_path, subset="sst2").startswith("task.subset is for datasets of the hub")


# Paths


@pytest.mark.parametrize(
    "name",
    [
        "./reviews",
        "/reviews",
        "~/reviews",
        "a/b/c",
        "reviews.csv",
        "some/reviews.jsonl",
        "here/reviews",
    ],
)
def test_what_can_only_be_a_path_is_not_looked_for_on_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(datasets, "load_dataset", None)
    said = refusal(name)
    where = "" if name.startswith(("/", "~")) else f" in {tmp_path}"
    name = name.replace("~", str(Path.home()))
    assert said == f"task.data: there is no folder or file {name}{where}."


def test_a_path_that_is_nearly_right_is_put_right(tmp_path: Path) -> None:
    write(tmp_path / "reviews.csv")
    assert said_at_end(refusal(tmp_path / "review.csv")) == "(did you mean reviews.csv?)."


def said_at_end(sentence: str) -> str:
    return sentence[sentence.rindex("(") :]


def test_the_name_of_a_format_is_no_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`datasets` would take the files of the working directory instead."""
    write(tmp_path / "train.csv", rows("here", 20))
    monkeypatch.chdir(tmp_path)
    assert refusal("csv").startswith("task.data: csv is the name of a format, not of a dataset")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x" * 300, "xxx cannot be read: File name too long."),
        ("~nobody/here", "task.data: there is no folder or file ~nobody/here"),
        ("a\0b", "task.data: there is no folder or file a\0b"),
    ],
    ids=["long", "nobody's", "null"],
)
def test_a_name_that_no_file_can_have_is_a_sentence(name: str, said: str) -> None:
    assert said in refusal(name)
