"""The draw of k examples a class."""

from pathlib import Path

import numpy as np
import pytest
from numbered import labelled, load, refusal, rows, write, write_splits

from cliptune.errors import TaskError
from cliptune.task import Task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files with just two examples a class."""
    return write_splits(tmp_path / "mine", 4)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Files with twenty examples a class, the same in train and validation."""
    return write_splits(tmp_path / "large", 40, "row")


def test_just_k_examples_a_class_are_used_as_they_are(folder: Path) -> None:
    for seed in range(3):
        task = load(folder, seed=seed)
        assert task["train"].texts == ("train 0", "train 1", "train 2", "train 3")
        assert task["validation"].texts[3] == "validation 3"


def test_the_draw_is_balanced_and_keeps_the_order_of_the_file(large: Path) -> None:
    train = load(large, k=5)["train"]
    numbers = [int(text.split()[1]) for text in train.texts]
    assert np.bincount(train.labels).tolist() == [5, 5]
    assert numbers == sorted(set(numbers))
    assert [number % 2 for number in numbers] == train.labels.tolist()  # labels stay with texts
    assert numbers != list(range(10))  # drawn, not cut off


def test_the_same_seed_draws_the_same_examples_and_another_others(large: Path) -> None:
    first, again, other = (load(large, seed=seed)["train"].texts for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_train_and_validation_are_drawn_apart(large: Path) -> None:
    task = load(large, k=5)
    assert task["train"].texts != task["validation"].texts


def test_the_test_set_is_never_cut(large: Path) -> None:
    assert len(load(large, k=1)["test"]) == 40


@pytest.mark.parametrize("split", ["train", "validation"])
def test_too_few_examples_of_a_class_are_named(split: str, folder: Path) -> None:
    write(folder / f"{split}.jsonl", rows("row", 3))
    message = rf"asks for 2 .* but {split} has 1 of class 1 \(great\). Lower task.k or add"
    with pytest.raises(TaskError, match=message):
        load(folder)


def texts(task: Task) -> dict[str, set[str]]:
    return {name: set(split.texts) for name, split in task.splits.items()}


@pytest.mark.parametrize(
    ("splits", "sizes"),
    [
        ({"validation": "train"}, [10, 10, 40]),
        ({"test": "train"}, [10, 10, 30]),
        ({"validation": "train", "test": "train"}, [10, 10, 20]),
        ({"validation": "test"}, [10, 10, 30]),
    ],
)
def test_splits_out_of_one_file_never_overlap(
    splits: dict[str, str], sizes: list[int], large: Path
) -> None:
    for name in ("train", "validation", "test"):
        write(large / f"{name}.jsonl", rows(name, 40))
    for seed in range(5):
        task = load(large, k=5, splits=splits, seed=seed)
        assert [len(split) for split in task.splits.values()] == sizes
        assert len(set().union(*texts(task).values())) == sum(sizes)
        for name in ("train", "validation"):
            assert np.bincount(task[name].labels).tolist() == [5, 5]


def test_what_is_drawn_for_training_does_not_depend_on_what_else_is_drawn(large: Path) -> None:
    alone = load(large, k=5)
    shared = load(large, k=5, splits={"validation": "train", "test": "train"})
    assert shared["train"].texts == alone["train"].texts
    numbers = [int(text.split()[1]) for text in shared["test"].texts]
    assert numbers == sorted(numbers)  # test keeps the order of the file


def test_a_split_knows_what_it_was_drawn_from(large: Path) -> None:
    train = load(large, k=5)["train"]
    assert (train.source, train.available, len(train)) == (str(large / "train.jsonl"), 40, 10)


def test_too_few_for_two_splits_are_named_with_how_many_are_needed_in_all(large: Path) -> None:
    said = refusal(large, k=11, splits={"validation": "train"})
    assert said == (
        "task.k asks for 11 examples a class for train and as many for validation, 22 in all, but "
        f"{large / 'train.jsonl'} has 20 of class 0 (bad). Lower task.k or add examples."
    )


def test_something_must_be_left_for_the_test(large: Path) -> None:
    splits = {"validation": "train", "test": "train"}
    assert len(load(large, k=9, splits=splits)["test"]) == 4
    said = refusal(large, k=10, splits=splits)
    assert "has 40 examples, and train and validation use all of them: none is left" in said
    assert "none is left for test" in refusal(large, k=20, splits={"test": "train"})


def test_all_takes_splits_whole_and_in_their_order(large: Path) -> None:
    write(large / "train.jsonl", labelled(0, 1, 1, 1, 0))
    task = load(large, k="all")
    assert task["train"].texts == tuple(f"row {i}" for i in range(5))
    assert len(task["validation"]) == 40


def test_all_needs_a_place_for_each_split(large: Path) -> None:
    said = refusal(large, k="all", splits={"validation": "train"})
    assert said.startswith("task.k=all takes splits whole, but train, validation come from one")
    assert "task.splits.validation" in said
    (large / "validation.jsonl").unlink()
    assert refusal(large, k="all") == said


@pytest.mark.parametrize("split", ["train", "validation"])
def test_all_needs_an_example_of_each_class(split: str, large: Path) -> None:
    write(large / f"{split}.jsonl", labelled(0, 0))
    assert f"Each class needs an example, but {split} has 0 of class 1" in refusal(large, k="all")
