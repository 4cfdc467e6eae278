"""What every Scorer must do; inherited by the tests of each of them."""

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from runs import journal_bytes

from cliptune.config import Config
from cliptune.loop import search
from cliptune.scorer import Scorer, UnitScorer
from cliptune.subnetwork import FULL_NETWORK, ensemble


def latents(population: int = 6, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(seed).standard_normal((population, 5))


class ScorerContract(ABC):
    """Subclasses give `make`, and may give `scorer`, a fixture of one for all tests.

    A scorer keeps nothing of what it was asked before that would change an answer.
    """

    @classmethod
    @abstractmethod
    def make(cls, config: Config) -> Scorer:
        """A fresh scorer."""

    @pytest.fixture(scope="class")
    @classmethod
    def scorer(cls, model_dir: Path, task_dir: Path) -> Any:
        scorer = cls.make(tiny.config(model_dir, task_dir))
        yield scorer
        cls.end(scorer)

    @classmethod
    def end(cls, scorer: Any) -> None:
        """Let go of what the scorer holds."""

    def test_a_reward_for_every_candidate_and_subnetwork(self, scorer: Scorer) -> None:
        rewards = scorer.score(latents())
        assert rewards.shape == (6, 3)
        assert rewards.dtype == np.float64
        assert len(np.unique(rewards)) == rewards.size  # no two critics or candidates are the same

    def test_equal_latents_have_equal_rewards_wherever_they_stand(self, scorer: Scorer) -> None:
        """Up to rounding, which in a product depends on where a row stands."""
        some = latents()
        turned = scorer.score(some[::-1].copy())[::-1]
        np.testing.assert_allclose(scorer.score(some), turned, rtol=1e-6)

    def test_rewards_repeat_bit_for_bit(self, scorer: Scorer) -> None:
        assert np.array_equal(scorer.score(latents()), scorer.score(latents()))

    def test_read_only_latents_are_taken(self, scorer: Scorer) -> None:
        some = latents()
        some.setflags(write=False)
        assert np.isfinite(scorer.score(some)).all()

    def test_class_scores_have_the_documented_shape(self, scorer: Scorer) -> None:
        networks = (FULL_NETWORK, *ensemble(scorer.config.ensemble, 0))
        scores = scorer.class_scores(latents(2), "validation", networks)
        assert scores.shape == (2, 4, 6, 2)
        assert scores.dtype == np.float32

    def test_rewards_agree_with_class_scores(self, scorer: Scorer) -> None:
        networks = ensemble(scorer.config.ensemble, 0)
        scores = scorer.class_scores(latents(), "train", networks).astype(np.float64)
        labels = scorer.task["train"].labels
        chosen = scores[..., np.arange(len(labels)), labels]
        by_hand = (chosen - np.log(np.exp(scores).sum(-1))).mean(-1)
        np.testing.assert_allclose(scorer.score(latents()), by_hand, rtol=0, atol=1e-6)

    def test_no_latents_mean_no_soft_prompt(self, scorer: Scorer) -> None:
        bare = scorer.class_scores(None, "test", [FULL_NETWORK])
        prompted = scorer.class_scores(np.zeros((1, 5)), "test", [FULL_NETWORK])
        assert bare.shape == (1, 1, 6, 2)
        assert not np.allclose(bare, prompted, atol=1e-3)

    def test_each_prompt_vector_has_its_nearest_tokens(self, scorer: Scorer) -> None:
        """A latent of zeros is P0, whose vectors are word embeddings: each is nearest to itself."""
        found = scorer.nearest(np.zeros(5))
        assert len(found) == 3
        for neighbours in found:
            (token, cosine), *others = neighbours
            assert token in tiny.WORDS
            assert cosine == 1.0
            assert all(value < 1.0 for _, value in others)
        assert scorer.nearest(latents()[0]) != found

    def test_prompt_has_length_and_width(self, scorer: Scorer) -> None:
        prompt = scorer.prompt(latents()[0])
        assert prompt.shape == (3, scorer.facts().width)
        assert prompt.dtype == np.float32

    def test_examples_have_lengths_by_split(self, scorer: Scorer) -> None:
        """Whoever shares the work out needs no tokenizer."""
        assert isinstance(scorer, UnitScorer)
        assert {name: sum(each) for name, each in scorer.lengths.items()} == scorer.facts().tokens

    def test_the_canary_is_that_of_a_local_scorer(self, scorer: Scorer) -> None:
        from cliptune.local import LocalScorer

        local = LocalScorer(scorer.config, scorer.task)
        assert scorer.canary() == scorer.canary() == local.canary()

    def test_usage_counts_forward_passes(self, scorer: Scorer) -> None:
        before = replace(scorer.usage)
        scorer.score(latents())
        passes = scorer.usage.forward_passes - before.forward_passes
        assert passes == 6 * 3 * len(scorer.task["train"])
        assert scorer.usage.device_seconds > before.device_seconds

    def test_dynamic_clipping_draws_new_networks_each_generation(
        self, model_dir: Path, task_dir: Path
    ) -> None:
        scorer = self.make(tiny.config(model_dir, task_dir, ensemble={"mode": "dynamic"}))
        first, second = scorer.score(latents(), 0), scorer.score(latents(), 1)
        again = scorer.score(latents(), 0)
        self.end(scorer)
        assert not np.allclose(first, second, atol=1e-4)
        assert np.array_equal(first, again)

    @pytest.mark.parametrize("layers", [1, 2])
    def test_a_search_writes_the_reference_journal(
        self, model_dir: Path, task_dir: Path, tmp_path: Path, layers: int
    ) -> None:
        """The journal of a LocalScorer is the reference for every other scorer."""
        from cliptune.local import LocalScorer
        from cliptune.task import load_task

        mine, reference = (
            tiny.config(model_dir, task_dir, tmp_path / name, prompt={"layers": layers})
            for name in "ab"
        )
        scorer = self.make(mine)
        search(mine, scorer)
        self.end(scorer)
        search(reference, LocalScorer(reference, load_task(reference.task)))
        assert journal_bytes(tmp_path / "a") == journal_bytes(tmp_path / "b")
