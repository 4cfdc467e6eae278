"""Replay: a strategy that relives a journal, here and on machines that round otherwise."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import Killed, Listener, journal_bytes, killed_at, plain, run, timeless, tree_bytes

from cliptune.config import Config
from cliptune.errors import RunError, StrategyError
from cliptune.hashing import digest
from cliptune.identity import fingerprint
from cliptune.journal import Journal
from cliptune.record import read_run
from cliptune.storage import LocalFolder
from cliptune.strategy import CMAES, RandomSearch, Strategy, replay
from cliptune.types import Fitness, Latents

Make = Callable[..., Strategy]
BOTH = pytest.mark.parametrize("kind", [CMAES, RandomSearch])
BUDGET = {"budget": 48}  # six generations


def quadratic(latents: Latents) -> Fitness:
    """Best at (1, 1, ...), where it is 0."""
    return np.asarray(-((latents - 1) ** 2).sum(axis=1))


def proposals(strategy: Strategy, generations: int) -> Any:
    """All that a strategy asks for, `(generations, population, d)`."""
    asked = []
    for _ in range(generations):
        latents = strategy.ask()
        asked.append(latents.copy())
        strategy.tell(latents, quadratic(latents))
    return np.stack(asked)


def relived(strategy: Strategy, asked: Any, fitness: Callable[[Latents], Fitness]) -> list[float]:
    """Replay generations; returns how far off each was."""
    return [replay(strategy, latents, fitness(latents)) for latents in asked]


@BOTH
@pytest.mark.parametrize("dimension", [1, 5, 60])
def test_a_replayed_search_goes_on_as_if_it_had_never_stopped(kind: Make, dimension: int) -> None:
    whole = proposals(kind(dimension, 6, 1.0, 0), 40)
    for generations in (1, 13, 39):
        again = kind(dimension, 6, 1.0, 0)
        assert relived(again, whole[:generations], quadratic) == [0.0] * generations
        assert np.array_equal(proposals(again, 40 - generations), whole[generations:])


def test_a_replayed_search_ends_itself_where_the_first_one_did() -> None:
    def ended(strategy: CMAES, step: Callable[[CMAES], Any]) -> tuple[int, str | None]:
        number = 0
        while not strategy.termination:
            step(strategy)
            number += 1
        return number, strategy.termination

    asked = []

    def live(strategy: CMAES) -> None:
        asked.append(strategy.ask())
        strategy.tell(asked[-1], quadratic(asked[-1]))

    first = ended(CMAES(3, 6, 1.0, 0), live)
    left = iter(asked.copy())

    def again(strategy: CMAES) -> None:
        latents = next(left)
        replay(strategy, latents, quadratic(latents))

    assert ended(CMAES(3, 6, 1.0, 0), again) == first
    assert 10 < first[0] < 1000


@BOTH
def test_replay_tells_how_far_the_journal_is_from_what_is_asked_here(kind: Make) -> None:
    latents = kind(5, 4, 1.0, 0).ask()
    latents[2, 3] += 0.25
    latents[1, 1] -= 0.125
    assert replay(kind(5, 4, 1.0, 0), latents, np.zeros(4)) == pytest.approx(0.25)


@pytest.mark.parametrize("by", [1e-12, 1e-3, 3.0])
def test_a_replayed_search_learns_what_the_journal_says_to_the_bit(by: float) -> None:
    """Two that drew otherwise have learnt the same once they were told the same."""
    rng = np.random.default_rng(0)
    asked = proposals(CMAES(5, 6, 1.0, 0), 30)
    asked = asked + by * rng.standard_normal(asked.shape)  # as another machine had it
    one, other = CMAES(5, 6, 1.0, 0), CMAES(5, 6, 1.0, 99)
    assert max(relived(one, asked[:1], quadratic)) > by / 10
    relived(one, asked[1:], quadratic)
    relived(other, asked, quadratic)
    assert one.step_size == other.step_size != CMAES(5, 6, 1.0, 0).step_size
    assert np.array_equal(one._cma.mean, other._cma.mean)
    assert np.array_equal(one._cma.C, other._cma.C)


def test_the_mean_moves_to_the_journals_candidates_however_far_they_are() -> None:
    """pycma by itself would pull candidates that it did not draw towards its mean."""
    strategy = CMAES(2, 6, 1.0, 0)
    far = np.full((6, 2), 50.0)
    replay(strategy, far, np.arange(6.0))
    assert strategy._cma.mean == pytest.approx([50.0, 50.0])


@BOTH
def test_a_generation_of_another_shape_cannot_be_replayed(kind: Make) -> None:
    message = r"shape \(3, 5\) cannot be replayed; expected \(4, 5\)"
    with pytest.raises(StrategyError, match=message):
        replay(kind(5, 4, 1.0, 0), np.zeros((3, 5)), np.zeros(3))


@BOTH
def test_a_replayed_fitness_must_be_finite_too(kind: Make) -> None:
    with pytest.raises(StrategyError, match="with 4 not finite"):
        replay(kind(5, 4, 1.0, 0), np.zeros((4, 5)), np.full(4, np.nan))


# A run on another machine


def interrupted(run_dir: Path, off: float = 0.0, elsewhere: bool = False, **search: Any) -> Any:
    """A scorer whose search came to three generations, by which its candidates are off."""
    scorer = plain(run_dir, search={**BUDGET, **search})
    with pytest.raises(Killed), killed_at(3 + 2 * 3):
        run(scorer)
    origin = json.loads((run_dir / "origin.json").read_text())
    if off:
        shift(run_dir, digest(origin["identity"]), off)
    if elsewhere:
        origin["platforms"][0]["processor"] = "another one"
        (run_dir / "origin.json").write_text(json.dumps(origin))
    return scorer


def shift(run_dir: Path, origin: str, off: float) -> None:
    """Write the journal again as a machine would have that draws the second generation off."""
    folder = LocalFolder(str(run_dir))
    past = Journal(folder, origin).read()
    for file in (run_dir / "journal").iterdir():
        file.unlink()
    writer = Journal(folder, origin)
    for generation in past:
        latents = generation.latents.copy()
        latents[1, 2] += off * (generation.number == 1)
        writer.append(replace(generation, latents=latents))


@pytest.mark.parametrize("method", ["cma-es", "random"])
@pytest.mark.parametrize("off", [1e-15, 1e-12, 1e-3])
def test_on_the_same_platform_any_difference_is_an_error(
    off: float, method: str, tmp_path: Path
) -> None:
    scorer = interrupted(tmp_path / "run", off, method=method)
    before = journal_bytes(tmp_path / "run")
    message = r"/run: generation 1 has other candidates .* here \(by up to .*\); .*was changed\.$"
    with pytest.raises(RunError, match=message):
        run(scorer, resume=True)
    assert journal_bytes(tmp_path / "run") == before


@pytest.mark.parametrize("method", ["cma-es", "random"])
@pytest.mark.parametrize("off", [0.0, 1e-15, 1e-12, 9e-10])
def test_on_another_platform_rounding_differences_pass_in_silence(
    off: float, method: str, tmp_path: Path
) -> None:
    scorer = interrupted(tmp_path / "run", off, elsewhere=True, method=method)
    before = journal_bytes(tmp_path / "run")
    listener = Listener()
    result = run(scorer, listener, resume=True)
    assert listener.warnings == []
    assert result.cost.prompts_scored == 48
    assert before.items() < journal_bytes(tmp_path / "run").items()


@pytest.mark.parametrize("off", [2e-9, 1e-3, 1.0])
def test_on_another_platform_larger_differences_warn_and_go_on(off: float, tmp_path: Path) -> None:
    scorer = interrupted(tmp_path / "run", off, elsewhere=True)
    before = journal_bytes(tmp_path / "run")
    listener = Listener()
    result = run(scorer, listener, resume=True)
    [warning] = listener.warnings
    assert "round otherwise than those that the run began on" in warning
    assert f"(they differ by up to {off:.1e})" in warning
    assert result.cost.prompts_scored == 48
    assert before.items() < journal_bytes(tmp_path / "run").items()


@pytest.mark.parametrize("off", [1e-12, 0.1])
def test_what_the_journal_says_is_what_the_search_goes_on_from(off: float, tmp_path: Path) -> None:
    run(interrupted(tmp_path / "run", off, elsewhere=True), resume=True)
    generations = read_run(Config, str(tmp_path / "run")).generations
    strategy = CMAES(5, 8, 1.0, 0)
    for generation in generations[:3]:
        replay(strategy, generation.latents, generation.fitness)
    assert np.array_equal(strategy.ask(), generations[3].latents)


def test_a_run_remembers_every_platform_that_wrote_it(tmp_path: Path) -> None:
    scorer = interrupted(tmp_path / "run", 1e-12, elsewhere=True)
    run(scorer, resume=True)
    origin = json.loads((tmp_path / "run" / "origin.json").read_text())
    assert [place["processor"] == "another one" for place in origin["platforms"]] == [True, False]
    assert origin["platforms"][1] == fingerprint()
    before = tree_bytes(tmp_path / "run")["origin.json"]
    longer = plain(tmp_path / "run", search={"budget": 64})
    assert run(longer, resume=True).cost.prompts_scored == 64  # and accepts what the first wrote
    assert tree_bytes(tmp_path / "run")["origin.json"] == before


def test_another_platform_that_rounds_alike_gives_the_very_search(tmp_path: Path) -> None:
    expected = timeless(run(plain(tmp_path / "whole", search=BUDGET)))
    result = run(interrupted(tmp_path / "run", elsewhere=True), resume=True)
    assert timeless(result) == expected
    assert journal_bytes(tmp_path / "run") == journal_bytes(tmp_path / "whole")


# Rewards that are rounded otherwise

HERE, THERE = "1" * 64, "2" * 64


def canaries(run_dir: Path) -> list[str]:
    found: list[str] = json.loads((run_dir / "origin.json").read_text())["canaries"]
    return found


def rounding(run_dir: Path, canary: str, budget: int = 48) -> Any:
    """A scorer whose rewards are the same, but might have been rounded otherwise."""
    scorer = plain(run_dir, search={"budget": budget})
    vars(scorer)["canary"] = lambda: canary
    return scorer


def warnings(scorer: Any) -> list[str]:
    listener = Listener()
    run(scorer, listener, resume=True)
    return listener.warnings


def test_a_scorer_that_rounds_otherwise_goes_on_with_a_warning(tmp_path: Path) -> None:
    interrupted(tmp_path / "run")
    before = journal_bytes(tmp_path / "run")
    [warning] = warnings(rounding(tmp_path / "run", THERE))
    assert warning.startswith("Rewards are rounded otherwise here than where the run began: ")
    assert warning.endswith("not bit for bit as it would have there.")
    assert canaries(tmp_path / "run") == [HERE, THERE]
    assert before.items() < journal_bytes(tmp_path / "run").items()


def test_a_scorer_that_rounds_as_before_goes_on_in_silence(tmp_path: Path) -> None:
    interrupted(tmp_path / "run")
    assert warnings(rounding(tmp_path / "run", HERE)) == []
    assert canaries(tmp_path / "run") == [HERE]


def test_a_rounding_is_warned_of_once(tmp_path: Path) -> None:
    interrupted(tmp_path / "run")
    assert len(warnings(rounding(tmp_path / "run", THERE))) == 1
    for budget, canary in ((56, THERE), (64, HERE)):
        assert warnings(rounding(tmp_path / "run", canary, budget)) == []
    assert canaries(tmp_path / "run") == [HERE, THERE]


def test_a_new_run_has_nothing_to_warn_of(tmp_path: Path) -> None:
    listener = Listener()
    run(rounding(tmp_path / "run", THERE), listener)
    assert listener.warnings == []
    assert canaries(tmp_path / "run") == [THERE]


def test_an_older_run_without_canaries_goes_on_in_silence_and_is_given_one(tmp_path: Path) -> None:
    interrupted(tmp_path / "run")
    path = tmp_path / "run" / "origin.json"
    origin = json.loads(path.read_text())
    del origin["canaries"]
    path.write_text(json.dumps(origin))
    assert warnings(rounding(tmp_path / "run", THERE)) == []
    assert canaries(tmp_path / "run") == [THERE]
    assert json.loads(path.read_text())["platforms"] == origin["platforms"]


def test_another_platform_whose_scorers_round_alike_adds_a_platform_alone(tmp_path: Path) -> None:
    interrupted(tmp_path / "run", elsewhere=True)
    assert warnings(rounding(tmp_path / "run", HERE)) == []
    assert canaries(tmp_path / "run") == [HERE]
    origin = json.loads((tmp_path / "run" / "origin.json").read_text())
    assert len(origin["platforms"]) == 2
