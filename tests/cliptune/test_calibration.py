"""Class biases: the best ones there are, by what their definition says of them."""

import numpy as np
import pytest

from cliptune.calibration import calibrated, class_biases
from cliptune.rewards import cross_entropy

RNG = np.random.default_rng(0)


def made(*shape: int, spread: float = 1.0) -> np.ndarray:
    return RNG.normal(0, spread, shape).astype(np.float32)


def gain(scores: np.ndarray, labels: np.ndarray, biases: np.ndarray) -> float:
    """What the biases maximise."""
    fit = cross_entropy(calibrated(scores, biases), labels, 0.0).sum()
    return float(fit - (biases**2).sum() / 2)


@pytest.mark.parametrize("classes", [2, 3, 14])
@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0, 1e4])
def test_no_other_biases_fit_better(classes: int, spread: float) -> None:
    labels = RNG.integers(classes, size=40)
    scores = made(40, classes, spread=spread) + 3 * np.arange(classes, dtype=np.float32)
    biases = class_biases(scores, labels)
    best = gain(scores, labels, biases)
    for _ in range(50):
        step = RNG.normal(0, 10.0 ** RNG.uniform(-4, 1), classes)
        assert gain(scores, labels, biases + step) <= best
    np.testing.assert_allclose(biases.sum(), 0, atol=1e-8)


def test_a_preference_for_a_class_is_undone() -> None:
    labels = np.repeat([0, 1], 500)
    fair = made(1000, 2)
    fair[np.arange(1000), labels] += 1
    biased = fair + np.array([0.0, 3.0], np.float32)
    assert np.mean(biased.argmax(axis=-1) == labels) < 0.6
    mended = calibrated(biased, class_biases(biased, labels))
    assert np.mean(mended.argmax(axis=-1) == labels) > 0.7
    np.testing.assert_allclose(np.diff(class_biases(biased, labels)), -3, atol=0.3)


def test_few_examples_move_the_biases_little() -> None:
    few, many = (
        np.abs(class_biases(np.zeros((n, 2), np.float32), np.zeros(n, np.int64))).max()
        for n in (1, 100)
    )
    assert few < 0.5 < many


def test_many_prompts_are_calibrated_at_once_and_each_as_alone() -> None:
    labels = RNG.integers(3, size=20)
    scores = made(4, 5, 20, 3, spread=3)
    together = class_biases(scores, labels)
    assert together.shape == (4, 5, 3)
    np.testing.assert_allclose(together[2, 3], class_biases(scores[2, 3], labels), atol=1e-9)


def test_scores_that_are_no_numbers_have_biases_that_are_none() -> None:
    scores = np.array([[np.nan, 0.0], [1.0, 2.0]], np.float32)
    assert np.isnan(class_biases(scores, np.array([0, 1]))).any()


def test_without_biases_scores_stay_as_they_are() -> None:
    scores = made(4, 2)
    assert calibrated(scores, None) is scores
