"""The embedded example: support tickets in six classes, all texts different."""

import json
import re
from collections import Counter, defaultdict
from importlib import resources
from itertools import pairwise

import pytest

from cliptune.config import Config, validate
from cliptune.task import SPLITS, load_task

CLASSES = 6
FOLDER = resources.files("cliptune") / "data" / "tickets"


def rows(split: str) -> list[dict[str, str | int]]:
    text = (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def texts() -> list[str]:
    return [str(row["text"]) for split in SPLITS for row in rows(split)]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


@pytest.mark.parametrize("split", ["train", "validation"])
def test_sixteen_examples_a_class_to_learn_from_and_to_choose_by(split: str) -> None:
    assert Counter(row["label"] for row in rows(split)) == dict.fromkeys(range(CLASSES), 16)


def test_at_least_fifty_test_examples_a_class() -> None:
    counts = Counter(row["label"] for row in rows("test"))
    assert sorted(counts) == list(range(CLASSES))
    assert min(counts.values()) >= 50


@pytest.mark.parametrize("split", SPLITS)
def test_classes_are_mixed_in_the_files(split: str) -> None:
    labels = [row["label"] for row in rows(split)]
    assert labels != sorted(labels)  # type: ignore[type-var]


def test_a_row_is_a_text_and_a_label() -> None:
    assert all(set(row) == {"text", "label"} for split in SPLITS for row in rows(split))


def test_texts_are_one_line_of_3_to_75_words() -> None:
    for text in texts():
        assert text == text.strip()
        assert "\n" not in text
        assert 3 <= len(text.split()) <= 75, text


def test_no_text_stands_twice() -> None:
    seen = Counter(" ".join(words(text)) for text in texts())
    assert [text for text, count in seen.items() if count > 1] == []


def test_no_two_texts_are_nearly_the_same() -> None:
    """Jaccard similarity of their sets of word pairs is below 0.2, within and across splits."""
    every = texts()
    pairs = [set(pairwise(w)) for w in map(words, every)]
    holders: dict[tuple[str, str], list[int]] = defaultdict(list)
    common: Counter[tuple[int, int]] = Counter()
    for i, own in enumerate(pairs):
        for pair in own:
            common.update((j, i) for j in holders[pair])
            holders[pair].append(i)
    alike = [
        (every[i], every[j])
        for (i, j), count in common.items()
        if count >= 0.2 * (len(pairs[i]) + len(pairs[j]) - count)
    ]
    assert alike == []


def test_the_preset_loads_the_embedded_files() -> None:
    task = load_task(validate(Config, {}).task)
    assert task.classes == CLASSES
    assert len(task["train"]) == len(task["validation"]) == 16 * CLASSES
    assert list(task["test"].texts) == [row["text"] for row in rows("test")]
