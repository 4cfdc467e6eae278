"""Metrics against numbers worked out by hand, and functions of the user's own."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import users_file

from cliptune.errors import ConfigError
from cliptune.functions import metric
from cliptune.metrics import (
    METRICS,
    accuracy,
    agreement,
    confusion,
    find_metric,
    macro_f1,
    negative_loss,
)

LABELS = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 0, 0])


def sure_of(predicted: Any, classes: int = 3) -> Any:
    """Probabilities, `(examples, classes)`, with the predicted class ahead."""
    return np.full((len(predicted), classes), 0.1) + 0.7 * np.eye(classes)[predicted]


def test_accuracy_is_the_share_of_right_answers() -> None:
    assert accuracy(sure_of(PREDICTED), LABELS) == 3 / 6


def test_the_confusion_matrix_has_right_classes_as_rows_and_predicted_ones_as_columns() -> None:
    assert confusion(PREDICTED, LABELS, 3).tolist() == [[2, 1, 0], [1, 1, 0], [1, 0, 0]]


def test_the_confusion_matrix_has_classes_that_never_occur() -> None:
    assert confusion(np.array([0]), np.array([0]), 4).tolist() == [[1, 0, 0, 0]] + [[0] * 4] * 3


def test_macro_f1_is_the_mean_of_the_classes_f1() -> None:
    # Class 0: precision 2/4, recall 2/3; class 1: 1/2 and 1/2; class 2 is never found.
    precision, recall = 2 / 4, 2 / 3
    first = 2 * precision * recall / (precision + recall)
    assert macro_f1(sure_of(PREDICTED), LABELS) == pytest.approx((first + 1 / 2 + 0) / 3)


def test_macro_f1_leaves_out_a_class_that_occurs_nowhere() -> None:
    labels = np.array([0, 1])
    assert macro_f1(sure_of(labels, classes=4), labels) == 1.0
    assert macro_f1(sure_of(np.array([0, 3]), classes=4), labels) == pytest.approx(1 / 3)


def test_macro_f1_counts_rare_classes_as_much_as_frequent_ones() -> None:
    labels = np.array([0] * 99 + [1])
    always = sure_of(np.zeros(100, dtype=np.int64), classes=2)
    assert accuracy(always, labels) == 0.99
    assert macro_f1(always, labels) == pytest.approx((2 * 99 / 199) / 2)


def test_loss_is_the_mean_log_probability_of_the_right_class() -> None:
    probabilities = np.array([[0.5, 0.5], [0.25, 0.75]])
    expected = (np.log(0.5) + np.log(0.25)) / 2
    assert negative_loss(probabilities, np.array([1, 0])) == pytest.approx(expected)


def test_loss_of_an_impossible_class_is_large_but_finite() -> None:
    assert -1000 < negative_loss(np.array([[1.0, 0.0]]), np.array([1])) < -600


@pytest.mark.parametrize(("name", "score"), METRICS.items())
def test_right_answers_are_better_than_wrong_ones_by_every_metric(name: str, score: Any) -> None:
    assert score(sure_of(LABELS), LABELS) > score(sure_of(PREDICTED), LABELS)
    assert type(score(sure_of(LABELS), LABELS)) is float


def test_agreement_is_the_mean_over_pairs_of_networks() -> None:
    networks = np.array([[0, 0, 0, 0], [0, 0, 0, 1], [1, 0, 1, 1]])
    # The pairs share 3, 1 and 2 of 4 predictions.
    assert agreement(networks) == pytest.approx((3 + 1 + 2) / 12)


@pytest.mark.parametrize("networks", [1, 2, 5])
def test_equal_networks_agree_wholly(networks: int) -> None:
    assert agreement(np.tile(PREDICTED, (networks, 1))) == pytest.approx(1.0)


def test_networks_that_never_agree_have_no_agreement() -> None:
    assert agreement(np.array([[0, 1, 2], [1, 2, 0], [2, 0, 1]])) == 0.0


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    lines = (
        "def first_class(probabilities, labels):\n"
        "    return probabilities[:, 0].mean()\n"
        "def spoils_its_arguments(probabilities, labels):\n"
        "    probabilities[:] = 0\n"
        "    labels[:] = 0\n"
        "    return 1\n"
        "def breaks(probabilities, labels):\n"
        "    return probabilities.nothing\n"
        "def no_number(probabilities, labels):\n"
        "    return float('nan')\n"
        "def no_value(probabilities, labels):\n"
        "    pass\n"
        "value = 3\n"
    )
    with users_file.written(tmp_path / "own_metrics.py", lines) as path:
        yield path


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_of_ours_is_found_by_its_name(name: str) -> None:
    assert find_metric(name) is METRICS[name]


@pytest.mark.parametrize("place", ["own_metrics.py", "./own_metrics.py", "own_metrics"])
def test_a_metric_of_the_users_is_found_in_a_file_or_a_module(place: str, own: Path) -> None:
    found = find_metric(f"{place}:first_class")
    assert found(np.array([[0.25, 0.75], [0.75, 0.25]]), np.array([0, 0])) == 0.5


def test_a_metric_of_the_users_is_found_by_a_path(own: Path) -> None:
    assert find_metric(f"{own}:first_class")(sure_of(LABELS), LABELS) > 0


def test_a_metric_of_the_users_cannot_change_the_predictions(own: Path) -> None:
    probabilities, labels = sure_of(PREDICTED), LABELS.copy()
    assert find_metric("own_metrics:spoils_its_arguments")(probabilities, labels) == 1.0
    assert (probabilities == sure_of(PREDICTED)).all()
    assert (labels == LABELS).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py:f", "search.selection: nowhere.py:f cannot be imported: no file "),
        ("no_such_module:f", "No module named 'no_such_module'"),
        ("own_metrics.py:f", "cannot be imported: .*has no attribute 'f'"),
        ("own_metrics:breaks", r"failed on probabilities \(6, 3\) and labels \(6,\): Attrib"),
        ("own_metrics:no_number", "must return a finite number, higher is better; found nan"),
        ("own_metrics:no_value", "failed on probabilities"),
        ("own_metrics:value", "own_metrics:value must be a function; found 3"),
    ],
)
def test_a_metric_that_is_none_is_refused_in_words(name: str, message: str, own: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        find_metric(name)(sure_of(PREDICTED), LABELS)
    assert "\n" not in str(caught.value)


def test_a_module_may_lie_where_the_user_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package_of_the_user"
    package.mkdir()
    (package / "measure.py").write_text("def score(probabilities, labels):\n    return 0.25\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    found = find_metric("package_of_the_user.measure:score")
    assert found(sure_of(PREDICTED), LABELS) == 0.25
    assert sys.path == before
    assert metric.source_digest("package_of_the_user.measure:score") is not None
    assert metric.source_digest("accuracy") is None
