"""Where examples come from: folders, files, saved datasets and datasets of the hub."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Value

from cliptune.config import TaskConfig
from cliptune.errors import TaskError
from cliptune.task import SPLITS, Task, load_split, load_task

Row = dict[str, Any]
PLAIN = {"text": Value("string"), "label": Value("int64")}
CLASSES = {"sentence": Value("string"), "label": ClassLabel(names=["no", "yes"])}


def rows(name: str, count: int = 8, **more: Any) -> list[Row]:
    return [{"text": f"{name} {i}", "label": i % 2, **more} for i in range(count)]


def write(path: Path, content: Sequence[Row] | None = None) -> Path:
    """Examples that carry the name of their file, in the format that the name says."""
    content = rows(path.stem) if content is None else content
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
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


def load(data: Path | str, **settings: Any) -> Task:
    tree = {"template": "{text}", "label_words": ("bad", "great"), "k": 2, **settings}
    return load_task(TaskConfig(name="mine", data=str(data), **tree))


def refusal(data: Path | str, **settings: Any) -> str:
    with pytest.raises(TaskError) as error:
        load(data, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def names(task: Task) -> list[str]:
    """The first word of each split's texts: what they were called where they come from."""
    return [split.texts[0].split()[0] for split in task.splits.values()]


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


# Saved datasets


def dataset(name: str, count: int = 8) -> Dataset:
    return Dataset.from_list(rows(name, count), features=datasets.Features(PLAIN))


def test_a_saved_dataset_is_read_by_its_splits(tmp_path: Path) -> None:
    splits = {name: dataset(name) for name in ("train", "dev", "test")}
    DatasetDict(splits).save_to_disk(tmp_path / "saved")
    task = load(tmp_path / "saved")
    assert names(task) == ["train", "dev", "test"]
    assert task["test"].source == f"{tmp_path / 'saved'}, split test"


def test_a_saved_dataset_without_splits_is_shared_out(tmp_path: Path) -> None:
    dataset("mine", 20).save_to_disk(tmp_path / "saved")
    task = load(tmp_path / "saved")
    assert [len(split) for split in task.splits.values()] == [4, 4, 12]


def test_a_saved_dataset_keeps_the_order_that_it_was_given(tmp_path: Path) -> None:
    shuffled = {name: dataset(name).select([3, 2, 1, 0]) for name in SPLITS}
    DatasetDict(shuffled).save_to_disk(tmp_path / "saved")
    assert load(tmp_path / "saved")["test"].texts == ("test 3", "test 2", "test 1", "test 0")


def test_a_broken_saved_dataset_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert refusal(tmp_path).startswith(f"{tmp_path} cannot be read as a folder of save_to_disk: ")


def test_subsets_are_not_for_what_lies_here(tmp_path: Path) -> None:
    write(tmp_path / "train.csv")
    assert refusal(tmp_path, subset="sst2").startswith("task.subset is for datasets of the hub")


# Datasets of the hub, as they lie in the cache


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `datasets` looks for what it has downloaded before."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    return folder


def classified(name: str, labels: Sequence[int]) -> list[Row]:
    return [{"sentence": f"{name} {i}", "label": label} for i, label in enumerate(labels)]


def test_a_dataset_of_the_hub_is_loaded_by_its_name(cache: Path) -> None:
    splits = {name: rows(name) for name in SPLITS}
    hub.put(cache, "someone/reviews", splits, PLAIN)
    task = load("someone/reviews")
    assert names(task) == list(SPLITS)
    assert [len(split) for split in task.splits.values()] == [4, 4, 8]
    assert task["train"].source == "someone/reviews, split train"


def test_a_name_without_a_namespace_is_one_too(cache: Path) -> None:
    hub.put(cache, "reviews", {"train": rows("train", 20)}, PLAIN)
    assert [len(split) for split in load("reviews").splits.values()] == [4, 4, 12]


def test_what_lies_here_comes_before_the_hub(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.put(cache, "reviews", {"train": rows("hub", 20)}, PLAIN)
    write(tmp_path / "reviews" / "train.csv", rows("here", 20))
    monkeypatch.chdir(tmp_path)
    assert names(load("reviews"))[0] == "here"


def test_a_subset_is_chosen_by_its_name(cache: Path) -> None:
    for subset in ("film", "food"):
        hub.put(cache, "some/one", {"train": rows(subset, 20)}, PLAIN, subset)
    assert names(load("some/one", subset="food"))[0] == "food"
    assert load("some/one", subset="film")["test"].source == "some/one/film, split train"
    said = refusal("some/one")
    assert said.startswith("task.data: the dataset some/one cannot be loaded with task.subset null")
    assert "film, food" in said
    said = refusal("some/one", subset="music")
    assert "with task.subset music: " in said
    assert "['film', 'food']" in said


def test_class_labels_are_numbers_and_unlabelled_rows_are_left_out(cache: Path) -> None:
    splits = {
        "train": classified("train", [-1, 0, 1, -1, 1, 0]),
        "validation": classified("dev", [1, 0, 1, 0]),
        "test": classified("test", [-1, -1, -1]),
    }
    hub.put(cache, "nlu", splits, CLASSES)
    settings = {"columns": {"text": "sentence"}, "k": 1}
    said = refusal("nlu", **settings)
    assert said.startswith("nlu, split test holds no examples (unlabelled rows left out: 3)")
    assert "task.splits.test" in said
    task = load("nlu", splits={"test": "validation"}, **settings)
    assert names(task) == ["train", "train", "dev"]
    assert task["test"].labels.tolist() == [1, 0, 1, 0]
    assert task["train"].available == 4
    assert task["train"].source == "nlu, split train (unlabelled rows left out: 2)"


def test_a_bad_row_is_counted_among_the_unlabelled_ones(cache: Path) -> None:
    bad = [*classified("a", [-1, 0, 1, -1]), {"sentence": " ", "label": 1}]
    hub.put(cache, "nlu", {"train": bad}, CLASSES)
    said = refusal("nlu", columns={"text": "sentence"})
    assert said.startswith("nlu, split train, row 5: sentence must be a text")


def test_a_split_or_column_that_a_dataset_lacks_is_named_with_those_that_are_there(
    cache: Path,
) -> None:
    hub.put(cache, "nlu", {"train": rows("a"), "validation": rows("b")}, PLAIN)
    said = refusal("nlu")
    assert said.startswith("No test examples for the task: nlu has no split test; found train, val")
    assert "task.splits.test" in said
    assert "has no split dev" in refusal("nlu", splits={"validation": "dev"})
    said = refusal("nlu", splits={"test": "validation"}, columns={"text": "txt"})
    assert said.startswith("nlu, split train lacks the column txt; found label, text (did you mean")


@pytest.mark.parametrize("name", ["nowhere", "no/where", "No_where-2.1"])
def test_what_is_neither_here_nor_on_the_hub_is_said_to_be_neither(
    name: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refusal(name)
    assert said.startswith(f"task.data: {name} is no folder or file here ({tmp_path / name}), and ")
    assert "no dataset of that name can be had: Couldn't reach" in said


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


@pytest.mark.parametrize("name", ["x" * 300, "~nobody/here", "a\0b"])
def test_a_name_that_no_file_can_have_is_a_sentence(name: str) -> None:
    assert refusal(name)


# Whole splits, that nothing is drawn from


def whole(data: Path | str, split: str = "test", **settings: Any) -> list[str]:
    """The texts of a task with one split alone."""
    tree = {"template": "{text}", "label_words": ("bad", "great"), "k": 2, **settings}
    task = load_split(TaskConfig(name="mine", data=str(data), **tree), split)
    assert list(task.splits) == [split]
    return list(task[split].texts)


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
