"""Tasks: templates, files, the draw of k examples a class, and what is said of bad input."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from cliptune.config import Config, TaskConfig, validate
from cliptune.errors import TaskError
from cliptune.task import Split, Task, Template, load_task

WORDS = ("bad", "great")
Row = dict[str, Any]


def rows(count: int, name: str = "row") -> list[Row]:
    """Examples of two classes in turn, numbered in the order of the file."""
    return [{"text": f"{name} {i}", "label": i % 2} for i in range(count)]


def write(file: Path, content: Sequence[Row] | str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = content if isinstance(content, str) else "".join(json.dumps(r) + "\n" for r in content)
    file.write_text(lines, encoding="utf-8")


def load(data: Path, **settings: Any) -> Task:
    tree = {"template": "{text} {mask}", "label_words": WORDS, "k": 2, **settings}
    return load_task(TaskConfig(name="mine", data=str(data), **tree))


def refusal(data: Path, **settings: Any) -> str:
    """The one sentence that is said of this task."""
    with pytest.raises(TaskError) as error:
        load(data, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files with just two examples a class."""
    for split in ("train", "validation", "test"):
        write(tmp_path / "mine" / f"{split}.jsonl", rows(4, split))
    return tmp_path / "mine"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Files with twenty examples a class, the same in train and validation."""
    for split in ("train", "validation", "test"):
        write(tmp_path / "large" / f"{split}.jsonl", rows(40))
    return tmp_path / "large"


# Templates


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "{text} {label}",
            r"knows \{text\}, \{text_pair\} and \{mask\}.*found another field, 'label'",
        ),
        ("{text} {}", r"found another field, '', in"),
        ("{text} {mask!r}", "just as they are; found another field, 'mask'"),
        ("{text} {mask:>9}", "just as they are; found another field, 'mask'"),
        ("{mask} news", r"must hold \{text\} once"),
        ("{text_pair} {mask}", r"must hold \{text\} once"),
        ("{text} {text}", r"must hold \{text\} once"),
        ("{text} {mask} {mask}", r"\{mask\} at most once"),
        ("{text} {text_pair} {text_pair}", r"\{text_pair\} and \{mask\} at most once"),
        ("{text} {mask", "cannot be read: .*found '{text} {mask'"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(source: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Template(source)


def test_rendering_remembers_where_the_parts_lie() -> None:
    template = Template("{text} ? {mask} , {text_pair} !")
    rendered = template.render("one two", "three", "[MASK]")
    assert rendered.string == "one two ? [MASK] , three !"
    assert [rendered.string[slice(*span)] for span in rendered.text_spans] == ["one two", "three"]
    assert rendered.mask_span is not None
    assert rendered.string[slice(*rendered.mask_span)] == "[MASK]"


def test_a_texts_own_braces_are_left_alone() -> None:
    rendered = Template("say: {text}").render("{mask} {0} }{", None, "[MASK]")
    assert rendered.string == "say: {mask} {0} }{"
    assert rendered.mask_span is None


def test_the_text_comes_first_among_the_spans_wherever_it_stands() -> None:
    rendered = Template("{text_pair} so {text}").render("one", "two", "")
    assert [rendered.string[slice(*span)] for span in rendered.text_spans] == ["one", "two"]


def test_a_template_says_what_it_needs() -> None:
    both = Template("{text} {mask} {text_pair}")
    assert (both.has_mask, both.has_pair) == (True, True)
    neither = Template("{text}")
    assert (neither.has_mask, neither.has_pair) == (False, False)


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
    pairs = [{**row, "text_pair": f"pair of {row['text']}"} for row in rows(20)]
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
        ([*rows(2), {"text": "c", "label": 2}], "line 3: label .* from 0 to 1 .*found 2"),
        ([*rows(2), {"text": "c", "label": -1}], "line 3: label .*found -1"),
        ([*rows(2), {"text": "c"}], "line 3: label .*found None"),
        ([{"text": "a", "label": "1"}], r"line 1: label .*\(bad, great\) unless .*found '1'"),
        ([*rows(2), {"text": "c", "label": "great"}], "line 3: label .*found 'great'"),
        ([*rows(2), {"text": "c", "label": 1.0}], "line 3: label .* from 0 to 1 .*found 1.0"),
        ([*rows(2), {"text": "c", "label": [1]}], r"line 3: label .*found \[1\]"),
        ([{"text": "a", "label": True}], "line 1: label .*found True"),
        ([*rows(1), {"text": " \n", "label": 1}], r"line 2: text must be .* not empty; found ' "),
        ([*rows(1), {"label": 1}], "line 2: text must be .* not empty; found None"),
        ([{"text": 5, "label": 1}], "line 1: text must be a text .*found 5"),
        ([{"text": {"a": 1}, "label": 1}], "line 1: text must be a text .*found {'a': 1}"),
        ([*rows(1), {"text": "\ud83d", "label": 1}], r"line 2: text .* half a surrogate .*ud83d"),
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
    write(folder / "train.jsonl", [{**row, "text_pair": ""} for row in rows(4)])
    with pytest.raises(TaskError, match="line 1: text_pair must be a text that is not empty"):
        load(folder, template="{text} {text_pair}")


# Labels


def lines(*labels: Any) -> list[Row]:
    return [{"text": f"row {i}", "label": label} for i, label in enumerate(labels)]


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
    write(folder / "test.jsonl", lines(*column))
    if labels is not None:
        for split in ("train", "validation"):
            write(folder / f"{split}.jsonl", lines(*column))
    assert load(folder, labels=labels)["test"].labels.tolist() == [0, 1, 1, 0]


def test_columns_may_be_called_otherwise(folder: Path) -> None:
    renamed = [{"body": row["text"], "class": row["label"], "text": "not this"} for row in rows(4)]
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
    write(folder / "train.jsonl", [*lines(*labels), {"text": "c", "label": value}])
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


# The draw of k examples


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
    write(folder / f"{split}.jsonl", rows(3))
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
        write(large / f"{name}.jsonl", rows(40, name))
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
    write(large / "train.jsonl", lines(0, 1, 1, 1, 0))
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
    write(large / f"{split}.jsonl", lines(0, 0))
    assert f"Each class needs an example, but {split} has 0 of class 1" in refusal(large, k="all")


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
    assert load_task(config.task).digest() == expected


def changed(
    split: Callable[[Split], Split] = lambda split: split,
    template: str = "{text}",
    words: tuple[str, ...] = WORDS,
    name: str = "mine",
) -> str:
    whole = Split(("a", "b"), ("c", "d"), np.array([0, 1]))
    return Task(name, Template(template), words, {"train": split(whole)}).digest()


@pytest.mark.parametrize(
    "other",
    [
        changed(lambda s: Split(("a", "B"), s.pairs, s.labels)),
        changed(lambda s: Split(s.texts, ("c", "D"), s.labels)),
        changed(lambda s: Split(s.texts, None, s.labels)),
        changed(lambda s: Split(s.texts, s.pairs, np.array([1, 0]))),
        changed(lambda s: Split(("b", "a"), s.pairs, s.labels)),
        changed(template="{text} "),
        changed(words=("bad", "good")),
        changed(words=("great", "bad")),
    ],
)
def test_the_digest_changes_with_whatever_is_classified(other: str) -> None:
    assert other != changed()


def test_the_digest_is_of_the_content_not_of_the_name_or_the_place(
    folder: Path, tmp_path: Path
) -> None:
    assert changed(name="other") == changed()
    before = load(folder).digest()
    assert load(folder.rename(tmp_path / "moved")).digest() == before
