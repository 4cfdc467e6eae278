"""Prompt tuning: its gradient is the loss's, its steps Adam's, its search one like any other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from runs import Killed, Listener, journal_bytes, killed_at, run

from cliptune.calibration import calibrated, class_biases
from cliptune.config import Config
from cliptune.errors import ConfigError
from cliptune.gradient import GradientDescent, LossGradient
from cliptune.local import LocalScorer
from cliptune.record import read_run
from cliptune.rewards import log_probabilities
from cliptune.subnetwork import FULL_NETWORK
from cliptune.task import load_task
from cliptune.types import Latent

NUMBERS = 3 * 32  # of a prompt: three vectors of the tiny model's width


def tuned(model: Path, task: Path, run_dir: Path | None = None, **search: Any) -> Config:
    return tiny.config(
        model,
        task,
        prompt={"length": 3, "dimension": NUMBERS, "projection": "identity"},
        ensemble={"mode": "none"},
        search={"method": "gradient", "population": 5, "budget": 30, **search},
        run_dir=None if run_dir is None else str(run_dir),
    )


def scorer_of(config: Config) -> LocalScorer:
    return LocalScorer(config, load_task(config.task))


@pytest.mark.parametrize("loss", ["cross-entropy", "hinge"])
@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("micro_batch", [1, 64])
def test_the_gradient_is_the_slope_of_the_loss(
    loss: str, projected: bool, micro_batch: int, model_dir: Path, task_dir: Path
) -> None:
    config = tuned(model_dir, task_dir, loss=loss, calibrate=False)
    changes: dict[str, Any] = {
        "model": config.model.model_copy(update={"micro_batch": micro_batch})
    }
    if projected:
        settings = {"dimension": 7, "projection": "normal"}
        changes["prompt"] = config.prompt.model_copy(update=settings)
    config = config.model_copy(update=changes)
    scorer = scorer_of(config)
    draws = np.random.default_rng(0)
    latent, direction = draws.standard_normal((2, config.prompt.dimension))
    step = 1e-2 / np.linalg.norm(direction)
    above, below = scorer.score(np.stack([latent + step * direction, latent - step * direction]))
    slope = -float(above[0] - below[0]) / (2 * step)
    found = float(LossGradient(config, scorer.task)(latent) @ direction)
    assert found == pytest.approx(slope, rel=0.02)
    assert abs(found) > 1e-3


def test_calibrated_its_slope_is_that_of_the_loss_with_the_prior_of_the_biases(
    model_dir: Path, task_dir: Path
) -> None:
    config = tuned(model_dir, task_dir, calibrate=True)
    scorer = scorer_of(config)
    labels = scorer.task["train"].labels

    def penalised(latent: Latent) -> float:
        scores = scorer.class_scores(latent[None], "train", [FULL_NETWORK])[0]
        biases = class_biases(scores, labels)
        assert np.abs(biases).max() > 0.01
        right = log_probabilities(calibrated(scores, biases))[0, np.arange(len(labels)), labels]
        return float(np.square(biases).sum() / 2 - right.sum()) / len(labels)

    latent, direction = np.random.default_rng(0).standard_normal((2, NUMBERS))
    step = 1e-2 / np.linalg.norm(direction)
    above, below = (penalised(latent + sign * step * direction) for sign in (1, -1))
    found = float(LossGradient(config, scorer.task)(latent) @ direction)
    assert found == pytest.approx((above - below) / (2 * step), rel=0.02)
    assert abs(found) > 1e-3


def test_the_steps_are_those_of_adam() -> None:
    target = np.random.default_rng(1).standard_normal(6)
    strategy = GradientDescent(lambda latent: latent - target, 6, population=4, rate=0.3)
    found = []
    for _ in range(3):
        latents = strategy.ask()
        strategy.tell(latents, np.zeros(4))
        found += list(latents)
    parameter = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([parameter], lr=0.3)
    for latent in found:
        parameter.grad = parameter.detach() - torch.tensor(target)
        adam.step()
        assert np.allclose(parameter.detach().numpy(), latent)


def test_a_search_by_gradients_learns_and_is_resumed_like_any_other(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    whole = scorer_of(tuned(model_dir, task_dir, tmp_path / "whole"))
    result = run(whole)
    first, last = whole.score(np.stack([np.zeros(NUMBERS), result.latent]))
    assert last > first + 0.1
    assert result.cost.prompts_scored == 30
    config = tuned(model_dir, task_dir, tmp_path / "broken")
    with killed_at(9), pytest.raises(Killed):
        run(scorer_of(config))
    run(scorer_of(config), resume=True)
    assert journal_bytes(tmp_path / "broken") == journal_bytes(tmp_path / "whole")


def test_an_encoder_has_a_gradient_with_class_biases(model_dir: Path, task_dir: Path) -> None:
    """The label texts' vectors, kept from fitting the biases, cannot be gone back through."""
    config = tiny.config(
        model_dir,
        task_dir,
        model={"readout": "encoder"},
        task={"template": "{text}"},
        prompt={"length": 3, "dimension": NUMBERS, "projection": "identity"},
        ensemble={"mode": "none"},
        search={"method": "gradient", "calibrate": True},
    )
    slope = LossGradient(config, load_task(config.task))(np.zeros(NUMBERS))
    assert np.isfinite(slope).all()
    assert np.abs(slope).max() > 0


def test_where_memory_runs_out_going_back_micro_batches_become_smaller(
    model_dir: Path, task_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tuned(model_dir, task_dir, calibrate=False)
    slope = LossGradient(config, load_task(config.task))
    expected = slope(np.ones(NUMBERS))
    model, rows = slope._scorer.model, []
    scores = model.scores

    def small(prompts: Any, batch: Any) -> Any:
        rows.append(len(batch.ids))
        if len(batch.ids) > 2:
            raise torch.OutOfMemoryError
        return scores(prompts, batch)

    monkeypatch.setattr(model, "scores", small)
    np.testing.assert_allclose(slope(np.ones(NUMBERS)), expected, rtol=1e-4, atol=1e-7)
    assert max(rows) > 2
    assert set(rows[-3:]) == {2}


def test_a_run_whose_gradients_round_otherwise_goes_on_from_its_journal(
    model_dir: Path, task_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other threads, for instance: nobody has changed the journal."""
    config = tuned(model_dir, task_dir, tmp_path / "run", budget=10)
    run(scorer_of(config))
    exact = LossGradient.__call__
    monkeypatch.setattr(LossGradient, "__call__", lambda self, z: exact(self, z + 1e-4))
    listener = Listener()
    run(scorer_of(tuned(model_dir, task_dir, tmp_path / "run")), listener, resume=True)
    assert any("round otherwise" in warning for warning in listener.warnings)
    assert len(read_run(Config, str(tmp_path / "run")).generations) == 6


def test_a_replayed_generation_is_where_the_next_step_begins() -> None:
    descent = GradientDescent(lambda latent: np.ones(2), 2, 3, 0.1)
    own = descent.ask()
    descent.tell(own + 0.25, np.zeros(3), replayed=True)
    np.testing.assert_allclose(descent.ask()[0], own[-1] + 0.25 - 0.1, rtol=1e-6)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"ensemble": {"mode": "static"}}, "ensemble.mode must be none, found static"),
        ({"prompt": {"layers": 2}}, "prompt.layers must be 1, found 2"),
        (
            {"search": {"method": "gradient", "loss": "accuracy"}},
            "cross-entropy or hinge; found accuracy",
        ),
    ],
)
def test_what_has_no_gradient_is_refused(more: dict[str, Any], words: str) -> None:
    settings: dict[str, Any] = {"ensemble": {"mode": "none"}, "search": {"method": "gradient"}}
    with pytest.raises(ConfigError, match=words):
        tiny.config(Path("model"), Path("data"), **{**settings, **more})
