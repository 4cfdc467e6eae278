"""When a search ends, and in which words it says why."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import runs
import tiny

from cliptune import limits, loop
from cliptune.config import Config
from cliptune.errors import ConfigError
from cliptune.journal import Generation, Validation
from cliptune.strategy import RandomSearch

EXAMPLES = 6
PASSES = 8 * 3 * EXAMPLES  # prompts x subnetworks x examples of a generation


def config(**search: Any) -> Config:
    return runs.plain(None, search=search).config


def reason(
    done: int, best: int | None = 0, seconds: float = 0.0, termination: str | None = None, **s: Any
) -> str | None:
    """Why a search of 8 prompts a generation ends after `done` of them."""
    nothing = np.zeros((8, 5))
    validation = Validation(0.5, 0.5, 0.5, 0.5)
    chosen = Generation(best or 0, nothing, nothing, nothing[:, 0], 1.0, 0, validation)
    strategy = RandomSearch(5, 8, 1.0, 0)
    vars(strategy)["termination"] = termination
    return limits.reason_to_stop(
        config(**s), EXAMPLES, done, None if best is None else chosen, lambda: seconds, strategy
    )


# What the budgets pay for


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ({"budget": 8}, 1),
        ({"budget": 15}, 1),
        ({"budget": 16}, 2),
        ({"budget": 160, "max_forward_passes": PASSES}, 1),
        ({"budget": 160, "max_forward_passes": 3 * PASSES - 1}, 2),
        ({"budget": 160, "max_forward_passes": 3 * PASSES}, 3),
        ({"budget": 16, "max_forward_passes": 3 * PASSES}, 2),
        ({"budget": None, "max_forward_passes": 3 * PASSES}, 3),
        ({"budget": 24, "max_seconds": 1e-9, "patience": 1}, 3),
        ({"budget": None, "max_seconds": 1.0}, None),
    ],
)
def test_budgets_pay_for_whole_generations(search: dict[str, Any], expected: int | None) -> None:
    assert limits.generations(config(**search), EXAMPLES) == expected


@pytest.mark.parametrize(("mode", "subnetworks"), [("static", 3), ("dynamic", 3), ("none", 1)])
def test_a_generation_takes_prompts_times_subnetworks_times_examples(
    mode: str, subnetworks: int
) -> None:
    found = runs.plain(None, ensemble={"mode": mode}).config
    assert limits.passes_a_generation(found, 7) == 8 * subnetworks * 7


def test_too_few_forward_passes_for_a_generation_are_refused_in_numbers() -> None:
    message = (
        rf"^search\.max_forward_passes must hold at least one generation, here {PASSES} passes "
        rf"\(8 prompts x 3 subnetworks x 6 examples\); found {PASSES - 1}\.$"
    )
    with pytest.raises(ConfigError, match=message):
        limits.generations(config(max_forward_passes=PASSES - 1), EXAMPLES)


# Reasons


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"done": 2, "budget": 24}, None),
        ({"done": 3, "budget": 24}, "the budget of 24 prompts is spent"),
        ({"done": 3, "budget": 31}, "the budget of 31 prompts is spent"),
        ({"done": 1250, "budget": 10000}, "the budget of 10,000 prompts is spent"),
        ({"done": 2, "max_forward_passes": 3 * PASSES}, None),
        (
            {"done": 10, "max_forward_passes": 10 * PASSES + 1},
            "the budget of 1,441 forward passes is spent (search.max_forward_passes)",
        ),
        ({"done": 1, "max_seconds": 2.5, "seconds": 2.4}, None),
        (
            {"done": 1, "max_seconds": 2.5, "seconds": 2.5},
            "2.5 seconds are over (search.max_seconds)",
        ),
        ({"done": 3, "best": 1, "patience": 2}, None),
        (
            {"done": 4, "best": 1, "patience": 2},
            "no better prompt on validation in 2 generations (search.patience)",
        ),
        ({"done": 2, "best": 1, "patience": 1}, None),
        ({"done": 1, "termination": "it is bored"}, "it is bored"),
        ({"done": 1, "seconds": 1e9}, None),
        ({"done": 3, "budget": None, "max_seconds": 1.0}, None),
    ],
)
def test_a_search_ends_for_a_reason_in_words(
    arguments: dict[str, Any], expected: str | None
) -> None:
    assert reason(**arguments) == expected


def test_one_generation_is_searched_whatever_the_limits_say() -> None:
    assert reason(0, None, seconds=9.0, termination="bored", max_seconds=1.0, patience=1) is None


# Whole searches


class Clock:
    """Seconds that pass by one a scoring."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=clock.perf_counter))
    return clock


def slow(clock: Clock, run_dir: Path, **search: Any) -> tiny.PlainScorer:
    """A scorer that takes a second a generation."""

    class Slow(tiny.PlainScorer):
        def score(self, latents: Any, generation: int = 0) -> Any:
            clock.now += 1
            return super().score(latents, generation)

    return Slow(runs.plain(run_dir, search=search).config)


def test_the_budget_of_forward_passes_ends_a_search(tmp_path: Path) -> None:
    listener = runs.Listener()
    search = {"budget": None, "max_forward_passes": 5 * PASSES + 7}
    result = runs.run(runs.plain(tmp_path / "run", search=search), listener)
    assert result.cost.search_passes == 5 * PASSES
    assert result.cost.prompts_scored == 40
    assert [progress.generations for progress in listener.progress] == [5] * 5
    assert "forward passes is spent" in result.stopped


def test_time_ends_a_search_after_a_whole_generation(clock: Clock, tmp_path: Path) -> None:
    listener = runs.Listener()
    scorer = slow(clock, tmp_path / "run", budget=None, max_seconds=3.5)
    result = runs.run(scorer, listener)
    assert len(runs.rows(tmp_path / "run")) == 4
    assert result.stopped == "3.5 seconds are over (search.max_seconds)"
    assert result.cost.seconds == 4.0
    assert [progress.generations for progress in listener.progress] == [None] * 4
    assert [progress.seconds for progress in listener.progress] == [1.0, 2.0, 3.0, 4.0]
    assert [progress.seconds_left for progress in listener.progress] == [2.5, 1.5, 0.5, 0.0]


def test_the_time_left_is_that_of_the_limit_that_comes_first(clock: Clock, tmp_path: Path) -> None:
    listener = runs.Listener()
    runs.run(slow(clock, tmp_path / "a", budget=32, max_seconds=100.0), listener)
    runs.run(slow(clock, tmp_path / "b", budget=32, max_seconds=2.5), listener)
    left = [progress.seconds_left for progress in listener.progress]
    assert left == [3.0, 2.0, 1.0, 0.0, 1.5, 0.5, 0.0]


def test_time_of_earlier_sessions_counts(clock: Clock, tmp_path: Path) -> None:
    limits = {"budget": None, "max_seconds": 5.0}
    with pytest.raises(runs.Killed), runs.killed_at(9):  # before the fourth generation's journal
        runs.run(slow(clock, tmp_path / "run", **limits))
    assert len(runs.rows(tmp_path / "run")) == 3
    clock.now = 1e6  # another day
    listener = runs.Listener()
    result = runs.run(slow(clock, tmp_path / "run", **limits), listener, resume=True)
    assert [progress.seconds for progress in listener.progress] == [4.0, 5.0]
    assert result.cost.seconds == 5.0
    assert result.cost.prompts_scored == 40


def test_time_of_a_generation_that_is_searched_again_counts_once(
    clock: Clock, tmp_path: Path
) -> None:
    """Whichever files of telemetry there are, none or that of a generation that was damaged."""
    run_dir = tmp_path / "run"
    runs.run(slow(clock, run_dir, budget=32))
    (run_dir / "telemetry" / "000001.arrow").unlink()
    (run_dir / "journal" / "000003.arrow").write_bytes(b"")
    result = runs.run(slow(clock, run_dir, budget=32), resume=True)
    assert result.cost.seconds == 3.0  # of generations 0 and 2, and of 3 again


def test_patience_ends_a_search_that_finds_nothing_better(tmp_path: Path) -> None:
    losses = [0.9, 0.5, 0.7, 0.5, 0.6, 0.1]  # by generation; equal is not better

    class Scripted(tiny.PlainScorer):
        def class_scores(self, latents: Any, split: str, subnetworks: Any) -> Any:
            scores = super().class_scores(latents, split, subnetworks)
            if split == "validation" and latents is not None and losses:
                labels = self.task[split].labels
                scores[..., np.arange(len(labels)), labels] = -losses.pop(0)
            return scores

    listener = runs.Listener()
    scorer = Scripted(runs.plain(tmp_path / "run", search={"patience": 3}).config)
    result = runs.run(scorer, listener)
    assert len(listener.progress) == 5
    assert result.generation == 1
    assert result.stopped == "no better prompt on validation in 3 generations (search.patience)"
    assert {progress.generations for progress in listener.progress} == {20}


@pytest.mark.parametrize(
    ("sigma", "fitness", "words"),
    [
        (1e-13, lambda rewards: rewards, "CMA-ES ended the search: its steps have become too"),
        (1.0, np.zeros_like, "CMA-ES ended the search: all candidates score the same; a larger"),
    ],
    ids=["tiny sigma", "flat fitness"],
)
def test_the_strategys_own_end_ends_a_search(
    sigma: float, fitness: Callable[[Any], Any], words: str, tmp_path: Path
) -> None:
    class Changed(tiny.PlainScorer):
        def score(self, latents: Any, generation: int = 0) -> Any:
            return fitness(super().score(latents, generation))

    scorer = Changed(runs.plain(tmp_path / "run", search={"sigma": sigma}).config)
    result = runs.run(scorer)
    assert result.stopped.startswith(words)
    assert result.cost.prompts_scored < 160
    again = runs.run(scorer, resume=True)
    assert runs.timeless(again) == runs.timeless(result)


def test_the_strategys_end_comes_after_the_budgets() -> None:
    assert reason(3, termination="bored", budget=24) == "the budget of 24 prompts is spent"
