"""Examples out of datasets of the library `datasets`: saved in a folder, or of the hub."""

from collections.abc import Sequence
from pathlib import Path

import datasets
import hub
import pytest
from datasets import ClassLabel, DatasetDict, Value
from numbered import FEATURES, Row, dataset, load, names, refusal, rows, write

from cliptune.task import SPLITS

CLASSES = {"sentence": Value("string"), "label": ClassLabel(names=["no", "yes"])}


# Saved datasets


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
    hub.put(cache, "someone/reviews", splits, FEATURES)
    task = load("someone/reviews")
    assert names(task) == list(SPLITS)
    assert [len(split) for split in task.splits.values()] == [4, 4, 8]
    assert task["train"].source == "someone/reviews, split train"


def test_a_name_without_a_namespace_is_one_too(cache: Path) -> None:
    hub.put(cache, "reviews", {"train": rows("train", 20)}, FEATURES)
    assert [len(split) for split in load("reviews").splits.values()] == [4, 4, 12]


def test_what_lies_here_comes_before_the_hub(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.put(cache, "reviews", {"train": rows("hub", 20)}, FEATURES)
    write(tmp_path / "reviews" / "train.csv", rows("here", 20))
    monkeypatch.chdir(tmp_path)
    assert names(load("reviews"))[0] == "here"


def test_a_subset_is_chosen_by_its_name(cache: Path) -> None:
    for subset in ("film", "food"):
        hub.put(cache, "some/one", {"train": rows(subset, 20)}, FEATURES, subset)
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
    hub.put(cache, "nlu", {"train": rows("a"), "validation": rows("b")}, FEATURES)
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
