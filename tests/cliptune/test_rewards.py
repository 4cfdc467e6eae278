"""Rewards and mixers: small formulas against numbers worked out by hand."""

import numpy as np
import pytest

from cliptune import rewards

SCORES = np.array([[2.0, 0.0, -1.0], [0.0, 0.0, 3.0]], dtype=np.float32)
LABELS = np.array([0, 1])


def test_cross_entropy_is_the_log_probability_of_the_right_class() -> None:
    expected = [2 - np.log(np.exp([2, 0, -1]).sum()), 0 - np.log(np.exp([0, 0, 3]).sum())]
    np.testing.assert_allclose(rewards.cross_entropy(SCORES, LABELS, 2.0), expected, rtol=1e-12)


def test_cross_entropy_survives_large_scores() -> None:
    huge = np.array([[1e4, -1e4]], dtype=np.float32)
    assert rewards.cross_entropy(huge, np.array([1]), 2.0)[0] == -2e4


def test_hinge_counts_every_class_that_comes_within_the_margin() -> None:
    # right 2: wrong 0 violates by 0, wrong -1 not at all; right 0: 0 by 2, 3 by 5
    np.testing.assert_allclose(rewards.hinge(SCORES, LABELS, 2.0), [0.0, -7.0])


def test_hinge_of_two_classes_is_the_margin_minus_the_lead() -> None:
    scores = np.array([[0.5, 0.0]], dtype=np.float32)
    assert rewards.hinge(scores, np.array([0]), 2.0)[0] == -1.5


def test_accuracy_is_one_where_the_right_class_leads() -> None:
    assert rewards.accuracy(SCORES, LABELS, 2.0).tolist() == [1.0, 0.0]


def test_the_accuracy_of_what_is_no_number_is_none() -> None:
    scores = np.array([[np.nan, 0.0], [np.inf, 0.0], [2.0, 1.0]], np.float32)
    found = rewards.accuracy(scores, np.array([0, 0, 0]), 2.0)
    np.testing.assert_array_equal(found, [np.nan, np.nan, 1.0])


@pytest.mark.parametrize("name", sorted(rewards.REWARDS))
def test_rewards_keep_leading_axes(name: str) -> None:
    many = np.stack([SCORES, -SCORES])
    result = rewards.REWARDS[name](many, LABELS, 2.0)
    assert result.shape == (2, 2)
    np.testing.assert_array_equal(result[0], rewards.REWARDS[name](SCORES, LABELS, 2.0))


@pytest.mark.parametrize("name", sorted(rewards.REWARDS))
def test_a_better_score_of_the_right_class_never_lowers_the_reward(name: str) -> None:
    better = SCORES.copy()
    better[np.arange(2), LABELS] += 4
    reward = rewards.REWARDS[name]
    assert (reward(better, LABELS, 2.0) >= reward(SCORES, LABELS, 2.0)).all()
    assert reward(better, LABELS, 2.0).sum() > reward(SCORES, LABELS, 2.0).sum()


REWARDS = np.array(
    [[1.0, 9.0, 2.0], [3.0, 3.0, 3.0], [2.0, 0.0, 10.0]]
)  # (population, subnetworks)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mean", [4.0, 3.0, 4.0]),
        ("median", [2.0, 3.0, 2.0]),
        ("min", [1.0, 3.0, 0.0]),
        ("rank-mean", [(0 + 1 + 0) / 3, (1 + 0.5 + 0.5) / 3, (0.5 + 0 + 1) / 3]),
    ],
)
def test_mixers(name: str, expected: list[float]) -> None:
    np.testing.assert_allclose(rewards.MIXERS[name](REWARDS, None), expected)


def test_weights_need_not_add_up_to_one() -> None:
    np.testing.assert_allclose(rewards.weighted(REWARDS, [2, 0, 2]), [1.5, 3.0, 6.0])


def test_weighted_without_weights_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="one weight a subnetwork"):
        rewards.weighted(REWARDS, None)


def test_ranks_ignore_the_scale_of_a_critic() -> None:
    louder = REWARDS * [1, 100, 1]
    np.testing.assert_array_equal(rewards.rank_mean(louder), rewards.rank_mean(REWARDS))
    assert not np.array_equal(rewards.mean(louder), rewards.mean(REWARDS))


def test_equal_candidates_share_the_middle_rank() -> None:
    np.testing.assert_allclose(rewards.rank_mean(np.ones((4, 2))), 0.5)
