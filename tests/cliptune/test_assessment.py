"""A closer look at a prompt, against numbers worked out by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from cliptune.assessment import assess
from cliptune.evaluation import ENSEMBLE, MANUAL, TUNED, evaluate
from cliptune.subnetwork import FULL_NETWORK, ensemble
from cliptune.task import SPLITS

LATENT = np.full(5, 2.0)


class Oracle(tiny.PlainScorer):
    """Scores of class 1, class 0 having 0; examples' labels are 0, 1, 0, 1, 0, 1."""

    BARE = (-1, 1, 1, 1, -1, -1)  # four right
    WHOLE = (-1, 1, -1, 1, -1, -1)  # five right
    CRITICS = ((-1, 9, -1, 1, -1, 1), (-1, -1, -1, 1, -1, 1), (1, -1, -1, 1, -1, 1))

    def __init__(self, **sections: Any) -> None:
        super().__init__(tiny.config(Path("model"), Path("data"), **sections))
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def class_scores(self, latents: Any, split: str, subnetworks: Any) -> Any:
        self.calls.append((split, tuple(subnetworks)))
        scores = np.zeros((1, len(subnetworks), 6, 2), np.float32)
        for n, network in enumerate(subnetworks):
            whole = self.BARE if latents is None else self.WHOLE
            scores[0, n, :, 1] = whole if network == FULL_NETWORK else self.CRITICS[network.index]
        return scores


def test_every_way_to_classify_has_its_measures() -> None:
    rows = assess(Oracle(), LATENT, 0, "test").rows
    assert list(rows) == [MANUAL, TUNED, ENSEMBLE]
    assert rows[MANUAL].accuracy == 4 / 6
    assert rows[MANUAL].confusion.tolist() == [[2, 1], [1, 2]]
    assert rows[MANUAL].macro_f1 == pytest.approx(2 / 3)
    assert rows[TUNED].accuracy == 5 / 6
    assert rows[TUNED].confusion.tolist() == [[3, 0], [1, 2]]
    assert rows[TUNED].macro_f1 == pytest.approx((6 / 7 + 4 / 5) / 2)
    right, wrong = np.log(1 + np.exp(-1)), np.log(1 + np.exp(1))
    assert rows[TUNED].loss == pytest.approx((5 * right + wrong) / 6)


def test_the_ensemble_is_the_mean_of_its_networks_probabilities() -> None:
    found = assess(Oracle(), LATENT, 0, "test").rows[ENSEMBLE]
    low, high, sure = 1 / (1 + np.exp(1)), 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-9))
    of_right = [1 - (2 * low + high) / 3, (sure + 2 * low) / 3, high, high, high, high]
    assert found.loss == pytest.approx(-np.mean(np.log(of_right)), rel=1e-6)
    assert found.accuracy == 1.0


def test_subnetworks_are_told_one_by_one_with_how_far_they_agree() -> None:
    found = assess(Oracle(), LATENT, 0, "test")
    assert found.subnetworks == [1.0, 5 / 6, 4 / 6]
    assert found.agreement == pytest.approx((5 / 6 + 4 / 6 + 5 / 6) / 3)


@pytest.mark.parametrize("split", SPLITS)
def test_accuracies_are_those_of_the_table_at_the_end(split: str) -> None:
    found = assess(Oracle(), LATENT, 3, split)
    assert (found.split, found.examples) == (split, 6)
    table = {row.name: row.accuracy[split] for row in evaluate(Oracle(), LATENT, 3)}
    assert {name: row.accuracy for name, row in found.rows.items()} == table


def test_without_clipping_there_are_no_subnetworks_to_agree() -> None:
    found = assess(Oracle(ensemble={"mode": "none"}), LATENT, 0, "test")
    assert list(found.rows) == [MANUAL, TUNED]
    assert (found.subnetworks, found.agreement) == ([], None)


def test_dynamic_clipping_takes_the_masks_of_the_prompts_generation() -> None:
    scorer = Oracle(ensemble={"mode": "dynamic"})
    assess(scorer, LATENT, 4, "validation")
    assert scorer.calls == [
        ("validation", (FULL_NETWORK,)),
        ("validation", (FULL_NETWORK, *ensemble(scorer.config.ensemble, 4))),
    ]
