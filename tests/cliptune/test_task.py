"""Tasks: templates, files, the draw of k examples a class, and what is said of bad input."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from cliptune.config import TaskConfig
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


def load(folder: Path, template: str = "{text} {mask}", k: int = 2, **settings: Any) -> Task:
    config = TaskConfig(
        name="mine", data=folder, template=template, label_words=WORDS, k=k, **settings
    )
    return load_task(config)


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
    train = load(tmp_path, "{text} ? {mask} , {text_pair}")["train"]
    assert train.pairs == tuple(f"pair of {text}" for text in train.texts)
    assert len(train) == 4


def test_second_sentences_are_not_read_where_the_template_has_none(tmp_path: Path) -> None:
    tiny.save_task(tmp_path, pair=True)
    assert load(tmp_path)["train"].pairs is None


def test_the_test_set_may_lie_one_folder_up(folder: Path) -> None:
    (folder / "test.jsonl").rename(folder.parent / "test.jsonl")
    assert load(folder)["test"].texts == ("test 0", "test 1", "test 2", "test 3")


def test_the_folders_own_test_set_comes_first(folder: Path) -> None:
    write(folder.parent / "test.jsonl", rows(2, "shared"))
    assert load(folder)["test"].texts[0] == "test 0"


@pytest.mark.parametrize("split", ["train", "validation"])
def test_what_is_learnt_from_is_never_taken_from_one_folder_up(folder: Path, split: str) -> None:
    (folder / f"{split}.jsonl").rename(folder.parent / f"{split}.jsonl")
    write(folder.parent / "test.jsonl", rows(4))
    with pytest.raises(TaskError, match=rf"No {split}.jsonl .*looked for .*Set task.data"):
        load(folder)


def test_a_missing_test_set_names_both_places(folder: Path) -> None:
    (folder / "test.jsonl").unlink()
    with pytest.raises(TaskError, match=r"No test.jsonl") as error:
        load(folder)
    assert f"{folder / 'test.jsonl'} and {folder.parent / 'test.jsonl'}" in str(error.value)


def test_a_task_without_examples_asks_for_a_folder() -> None:
    config = TaskConfig(name="sst2", template="{text}", label_words=WORDS)
    with pytest.raises(TaskError, match=r"task.data is needed: task sst2 brings no examples"):
        load_task(config)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"sentence": "a", "label": 0}], "lacks the column text; found label, sentence"),
        ([{"text": "a", "gold": 0}], "lacks the column label; found gold, text"),
        ([*rows(2), {"text": "c", "label": 2}], "line 3: label .* from 0 to 1 .*found 2"),
        ([*rows(2), {"text": "c", "label": -1}], "line 3: label .*found -1"),
        ([*rows(2), {"text": "c"}], "line 3: label .*found None"),
        ([{"text": "a", "label": "great"}], "line 1: label .*found 'great'"),
        ([{"text": "a", "label": True}], "line 1: label .*found True"),
        ([*rows(1), {"text": " \n", "label": 1}], r"line 2: text must be .* not empty; found ' "),
        ([*rows(1), {"label": 1}], "line 2: text must be .* not empty; found None"),
        ([{"text": 5, "label": 1}], "line 1: text must be a text .*found 5"),
        ('{"text": "a", "label": 0}\n{"text": "b",', "cannot be read as JSON lines: "),
        ("", "cannot be read as JSON lines: "),
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
        load(folder, "{text} {text_pair}")


def test_an_empty_second_sentence_is_named(folder: Path) -> None:
    write(folder / "train.jsonl", [{**row, "text_pair": ""} for row in rows(4)])
    with pytest.raises(TaskError, match="line 1: text_pair must be a text that is not empty"):
        load(folder, "{text} {text_pair}")


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


# The digest


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
