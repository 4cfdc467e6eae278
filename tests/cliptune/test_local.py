"""LocalScorer: the contract, and what only it can show."""

from pathlib import Path

import numpy as np
import pytest
import tiny
from scorer_contract import ScorerContract, journal_bytes, latents

from cliptune.config import Config
from cliptune.errors import ModelError
from cliptune.local import LocalScorer
from cliptune.loop import search
from cliptune.scorer import Scorer
from cliptune.task import load_task


def local(config: Config) -> LocalScorer:
    return LocalScorer(config, load_task(config.task))


class TestLocalScorer(ScorerContract):
    def make(self, config: Config) -> Scorer:
        return local(config)


def test_rewards_do_not_depend_on_the_order_of_units(model_dir: Path, task_dir: Path) -> None:
    scorer = local(tiny.config(model_dir, task_dir))
    expected = scorer.score(latents())
    run = scorer.run

    def backwards(units, latents):  # type: ignore[no-untyped-def]
        return run(units[::-1], latents)[::-1]

    scorer.run = backwards  # type: ignore[method-assign]
    assert np.array_equal(scorer.score(latents()), expected)


@pytest.mark.parametrize("micro_batch", [1, 3, 16, 512])
def test_rewards_depend_on_the_micro_batch_by_rounding_only(
    micro_batch: int, model_dir: Path, task_dir: Path
) -> None:
    expected = local(tiny.config(model_dir, task_dir)).score(latents())
    config = tiny.config(model_dir, task_dir, model={"micro_batch": micro_batch})
    np.testing.assert_allclose(local(config).score(latents()), expected, rtol=0, atol=2e-6)


def test_a_reward_that_is_not_finite_is_named(model_dir: Path, task_dir: Path) -> None:
    scorer = local(tiny.config(model_dir, task_dir))
    broken = latents()
    broken[4] = np.nan
    with pytest.raises(ModelError, match="candidate 4 on subnetwork 0 in generation 7 is nan"):
        scorer.score(broken, 7)


def test_no_clipping_is_one_full_network(model_dir: Path, task_dir: Path) -> None:
    scorer = local(tiny.config(model_dir, task_dir, ensemble={"mode": "none"}))
    assert scorer.score(latents()).shape == (6, 1)


def test_same_seed_same_journal_and_another_seed_another(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        search(tiny.config(model_dir, task_dir, tmp_path / name, search={"seed": seed}))
    assert journal_bytes(tmp_path / "a") == journal_bytes(tmp_path / "b")
    assert journal_bytes(tmp_path / "a") != journal_bytes(tmp_path / "c")


def test_evaluation_in_chunks_keeps_the_order_of_examples(
    model_dir: Path, task_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cliptune import scorer as module
    from cliptune.subnetwork import FULL_NETWORK

    scorer = local(tiny.config(model_dir, task_dir))
    whole = scorer.class_scores(latents(2), "test", [FULL_NETWORK])
    monkeypatch.setattr(module, "EVALUATION_CHUNK", 4)
    parts = scorer.class_scores(latents(2), "test", [FULL_NETWORK])
    np.testing.assert_allclose(parts, whole, rtol=0, atol=2e-6)
