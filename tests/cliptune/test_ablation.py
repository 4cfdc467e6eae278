"""The scorer against itself: other clip ratios, and the model without what makes it faster."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from cliptune import ablation
from cliptune.contenders import Scorer, Work
from cliptune.local import LocalScorer
from cliptune.subnetwork import ensemble
from cliptune.task import load_task

ROUNDS = 2


@pytest.fixture(scope="module")
def work(model_dir: Path, task_dir: Path) -> Work:
    config = tiny.config(model_dir, task_dir)
    scorer = LocalScorer(config, load_task(config.task))
    latents = np.random.default_rng(0).standard_normal((3, config.prompt.dimension))
    return Work(scorer, latents, ensemble(config.ensemble, 0))


@pytest.fixture(scope="module")
def changed(work: Work) -> tuple[list[dict[str, Any]], list[LocalScorer]]:
    """The table, and the scorers of all rounds in their order."""
    scored: list[LocalScorer] = []
    real = Scorer.round

    def noting(self: Any) -> float:
        scored.append(self._work.scorer)
        return real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scorer, "round", noting)
        return ablation.change_table(work, ROUNDS), scored


def test_a_row_for_every_change_all_and_none(
    work: Work, changed: tuple[list[dict[str, Any]], list[LocalScorer]]
) -> None:
    changes = list(work.scorer.model.changes())
    found, scored = changed
    assert [row["without"] for row in found] == ["nothing", *changes, "everything"]
    assert all(row["seconds"] > 0 for row in found)
    assert len(scored) == (ROUNDS + 1) * len(found)
    without = [set(scorer.model.as_it_was) for scorer in scored[: len(found)]]
    assert without[0] == set()
    assert all(name in left for name, left in zip(changes, without[1:-1], strict=True))
    assert without[-1] == set(changes)


def test_what_is_left_out_does_not_change_rewards(
    work: Work, changed: tuple[list[dict[str, Any]], list[LocalScorer]]
) -> None:
    expected = work.scorer.score(work.latents)
    table, scored = changed
    for scorer in scored[: len(table)]:  # a round has each of them
        np.testing.assert_allclose(scorer.score(work.latents), expected, rtol=1e-5)


def test_clip_ratios_are_tried_on_one_subnetwork_and_the_config_stays(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[Any, ...]] = []

    def noting(self: Any) -> float:
        network = self._work.scorer.config.ensemble
        tried.append((network.sites, network.clip_ratio, network.size))
        return 1.0 + len(tried)

    monkeypatch.setattr(Scorer, "round", noting)
    before = work.scorer.config
    found = ablation.clip_table(work, 1)
    assert work.scorer.config is before
    assert tried[:8] == tried[8:]
    assert tried[:8] == [
        (sites, ratio, 1) for sites in ablation.CLIP_SITES for ratio in ablation.CLIP_RATIOS
    ]
    assert [row["seconds"] for row in found] == [10.0 + i for i in range(8)]
