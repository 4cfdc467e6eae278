"""Evaluation against numbers worked out by hand."""

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from cliptune.evaluation import evaluate, validate
from cliptune.journal import Validation
from cliptune.subnetwork import FULL_NETWORK, ensemble

LATENT = np.full(5, 2.0)


class Oracle(tiny.PlainScorer):
    """Scores of class 1, class 0 having 0; examples' labels are 0, 1, 0, 1, 0, 1."""

    BARE = (-1, 1, 1, 1, -1, -1)  # four right
    WHOLE = (-1, 1, -1, 1, -1, -1)  # five right
    CRITICS = ((-1, 9, -1, 1, -1, 1), (-1, -1, -1, 1, -1, 1), (-1, -1, -1, 1, -1, 1))

    def __init__(self, **sections: Any) -> None:
        super().__init__(tiny.config(Path("model"), Path("data"), **sections))
        self.calls: list[tuple[bool, str, tuple[Any, ...]]] = []

    def class_scores(self, latents: Any, split: str, subnetworks: Any) -> Any:
        self.calls.append((latents is None, split, tuple(subnetworks)))
        scores = np.zeros((1, len(subnetworks), 6, 2), np.float32)
        for n, network in enumerate(subnetworks):
            whole = self.BARE if latents is None else self.WHOLE
            critic = self.CRITICS[network.index]
            scores[0, n, :, 1] = whole if network == FULL_NETWORK else critic
        return scores


def test_validation_is_accuracy_and_cross_entropy_of_the_full_network() -> None:
    scorer = Oracle()
    right, wrong = np.log(1 + np.exp(-1)), np.log(1 + np.exp(1))
    found = validate(scorer, LATENT)
    assert found.accuracy == 5 / 6
    assert found.loss == pytest.approx((5 * right + wrong) / 6, rel=1e-12)
    assert scorer.calls == [(False, "validation", (FULL_NETWORK,))]


def test_validation_of_no_latent_is_without_a_soft_prompt() -> None:
    scorer = Oracle()
    assert validate(scorer, None).accuracy == 4 / 6
    assert scorer.calls == [(True, "validation", (FULL_NETWORK,))]


def test_validation_has_macro_f1_too() -> None:
    # Right are 0, 1, 0, 1, 0 of 0, 1, 0, 1, 0, 1; the last one is called 0.
    precision = (3 / 4, 2 / 2)
    recall = (3 / 3, 2 / 3)
    f1 = [2 * p * r / (p + r) for p, r in zip(precision, recall, strict=True)]
    assert validate(Oracle(), LATENT).macro_f1 == pytest.approx(sum(f1) / 2, rel=1e-12)


@pytest.mark.parametrize(
    ("selection", "score"),
    [
        ("loss", lambda found: -found.loss),
        ("accuracy", lambda found: found.accuracy),
        ("macro-f1", lambda found: found.macro_f1),
    ],
)
def test_the_score_is_the_measure_that_selection_names(selection: str, score: Any) -> None:
    found = validate(Oracle(search={"selection": selection}), LATENT)
    assert found.score == score(found)


@pytest.mark.parametrize("place", ["mine.py", "mine"])
def test_the_score_may_be_of_the_users_own_making(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given probabilities and labels: here, how sure the prompt is of the first class."""
    name = f"own_{uuid.uuid4().hex}"  # the module of no other test
    (tmp_path / f"{name}.py").write_text("def f(p, labels): return p[labels == 0, 0].sum()")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = validate(Oracle(search={"selection": f"{place.replace('mine', name)}:f"}), LATENT)
    assert found.score == pytest.approx(3 / (1 + np.exp(-1)), rel=1e-12)
    assert found.accuracy == 5 / 6  # the others are what they were


def test_values_are_plain_numbers_for_the_journal() -> None:
    found = validate(Oracle(), LATENT)
    assert isinstance(found, Validation)
    assert {type(value) for value in vars(found).values()} == {float}


def test_the_table_has_every_split_for_the_three_ways_to_classify() -> None:
    table = evaluate(Oracle(), LATENT, 0)
    assert [row.name for row in table] == ["manual prompt", "tuned prompt", "thinned ensemble"]
    splits = ("train", "validation", "test")
    assert table[0].accuracy == dict.fromkeys(splits, 4 / 6)
    assert table[1].accuracy == dict.fromkeys(splits, 5 / 6)
    assert tuple(table[2].accuracy) == splits


def test_the_table_says_what_was_taken_for_what_on_the_test_set() -> None:
    """By right class and predicted class; counted in the passes that the accuracy takes anyway."""
    scorer = Oracle()
    table = evaluate(scorer, LATENT, 0)
    assert table[0].confusion == [[2, 1], [1, 2]]
    assert table[1].confusion == [[3, 0], [1, 2]]
    assert table[2].confusion == [[3, 0], [0, 3]]
    assert len(scorer.calls) == 2 * 3


def test_the_ensemble_averages_probabilities_not_scores_nor_votes() -> None:
    # On example 1, scores of 9, -1, -1 vote against the label 1, two to one; the probabilities
    # 0.9999, 0.2689 and 0.2689 average to 0.51, for it.
    assert evaluate(Oracle(), LATENT, 0)[2].accuracy["test"] == 1.0

    # With a fourth critic of -1 they average to 0.45, and the scores still to 1.5.
    class Outvoted(Oracle):
        CRITICS = ((-1, 9, -1, 1, -1, 1), *[(-1, -1, -1, 1, -1, 1)] * 3)

    scorer = Outvoted(ensemble={"subnetworks": 4})
    assert evaluate(scorer, LATENT, 0)[2].accuracy["test"] == 5 / 6


def test_without_clipping_there_is_no_ensemble() -> None:
    table = evaluate(Oracle(ensemble={"mode": "none"}), LATENT, 0)
    assert [row.name for row in table] == ["manual prompt", "tuned prompt"]


def test_dynamic_clipping_takes_the_masks_of_the_prompts_generation() -> None:
    scorer = Oracle(ensemble={"mode": "dynamic"})
    evaluate(scorer, LATENT, 4)
    asked = [networks for bare, _, networks in scorer.calls if not bare]
    assert asked == [(FULL_NETWORK, *ensemble(scorer.config.ensemble, 4))] * 3
