"""A confusion matrix at the width of a terminal."""

import io
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from jobs.confusion import confusion_view

FOURTEEN = [
    *("Company", "Education", "Artist", "Athlete", "Office", "Transportation", "Building"),
    *("Natural", "Village", "Animal", "Plant", "Album", "Film", "Written"),
]


def shown(counts: Any, classes: list[str], width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    console.print(confusion_view(np.asarray(counts), classes, "tuned prompt", width))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_right_classes_are_rows_and_predicted_ones_columns() -> None:
    assert shown([[5, 1], [0, 12]], ["bad", "great [x]"]) == [
        "tuned prompt: right classes down, predicted ones across; examples",
        "            1  2",
        "1 bad       5  1",
        "2 great [x] · 12",
    ]


def test_fourteen_classes_fit_into_80_columns_with_their_names() -> None:
    lines = shown(np.diag([50] * 14) + 3, FOURTEEN)
    assert lines[0].endswith("; examples")
    assert max(map(cell_len, lines)) <= 80
    for number, name in enumerate(FOURTEEN, start=1):
        assert lines[number + 1].split()[:2] == [str(number), name]
        assert lines[number + 1].split()[2:].count("3") == 13


def test_counts_too_wide_for_the_terminal_become_shares_of_the_class() -> None:
    lines = shown(np.diag([4_500] * 14) + np.eye(14, k=1, dtype=int) * 500, FOURTEEN)
    assert lines[0].endswith("; % of a row")
    assert max(map(cell_len, lines)) <= 80
    assert lines[2].split() == ["1", "Company", "90", "10", *["·"] * 12]


def test_a_class_without_examples_has_no_shares() -> None:
    counts = np.zeros((14, 14), dtype=int)
    counts[0, 0] = 10**6
    lines = shown(counts, FOURTEEN)
    assert lines[2].split()[2] == "100"
    assert lines[3].split()[2:] == ["·"] * 14


def test_long_names_are_cut() -> None:
    lines = shown(np.full((14, 14), 10), ["a very long name of a class indeed " * 3] * 14)
    assert max(map(cell_len, lines)) <= 80
    assert all("…" in line for line in lines[2:])


def test_of_very_many_classes_the_most_frequent_confusions_are_listed() -> None:
    counts = np.diag([10] * 77)
    counts[3, 5], counts[70, 2], counts[0, 1] = 7, 9, 1
    assert shown(counts, [f"class {n}" for n in range(77)]) == [
        "tuned prompt: what was most often taken for what; examples",
        "9  class 70 → class 2",
        "7  class 3 → class 5",
        "1  class 0 → class 1",
    ]


def test_the_list_is_short() -> None:
    assert len(shown(np.ones((77, 77), dtype=int), [str(n) for n in range(77)])) == 11


def test_a_list_without_confusions_says_so() -> None:
    lines = shown(np.eye(77, dtype=int), [str(n) for n in range(77)])
    assert lines[1:] == ["none: every example came out right"]


@pytest.mark.parametrize("width", [40, 60, 80, 160])
@pytest.mark.parametrize("classes", [2, 6, 14, 30])
def test_whatever_fits_is_shown(classes: int, width: int) -> None:
    lines = shown(np.full((classes, classes), 123), ["a class of some name"] * classes, width)
    assert max(map(cell_len, lines[1:])) <= width
