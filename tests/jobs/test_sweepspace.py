"""The space of a sweep: what is drawn from it, and what is wrong with it."""

from typing import Any

import pytest

from cliptune.config import merge
from cliptune.errors import ConfigError
from jobs.sweepfile import Settings, Sweep, tree_of
from jobs.sweepspace import corners, points, read_space

SMALL: dict[str, Any] = {"space": {"ensemble.clip_ratio": {"grid": [0.1, 0.3]}}}


def drawn(**tree: Any) -> list[Settings]:
    sweep = Sweep.model_validate(tree)
    return list(points(sweep, read_space(sweep)))


def refusal(**tree: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        drawn(**merge(SMALL, tree))
    return str(caught.value)


def space_refusal(**space: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        drawn(space=space)
    return str(caught.value)


def test_a_grid_is_every_combination() -> None:
    found = drawn(space={"prompt.length": {"grid": [1, 2]}, "search.sigma": {"grid": [0.5, 1.0]}})
    assert [tuple(one.values()) for one in found] == [(1, 0.5), (1, 1.0), (2, 0.5), (2, 1.0)]


def test_draws_stay_within_their_bounds_and_repeat() -> None:
    tree: dict[str, Any] = {
        "space": {
            "search.sigma": {"log-uniform": [0.01, 1]},
            "ensemble.clip_ratio": {"uniform": [0.1, 0.4]},
            "ensemble.subnetworks": {"uniform": [1, 3]},
            "ensemble.mixer": {"choice": ["mean", "median"]},
        },
        "samples": 60,
    }
    found = drawn(**tree)
    assert found == drawn(**tree)
    assert found != drawn(**tree, seed=1)
    assert all(0.01 <= one["search.sigma"] <= 1 for one in found)
    assert sum(one["search.sigma"] < 0.1 for one in found) > 15  # half, by the logarithm
    assert {one["ensemble.subnetworks"] for one in found} == {1, 2, 3}
    assert {one["ensemble.mixer"] for one in found} == {"mean", "median"}


def test_what_is_drawn_is_drawn_for_each_point_of_the_grid() -> None:
    space = {"prompt.length": {"grid": [1, 2]}, "search.sigma": {"uniform": [0.5, 1.0]}}
    found = drawn(space=space, samples=3)
    assert [one["prompt.length"] for one in found] == [1, 1, 1, 2, 2, 2]
    assert len({one["search.sigma"] for one in found}) == 6


def test_corners_hold_every_value_and_both_ends() -> None:
    sweep = Sweep.model_validate(
        {
            "space": {
                "search.sigma": {"uniform": [0.5, 1]},
                "ensemble.mixer": {"choice": ["mean", "min"]},
            }
        }
    )
    found = corners(read_space(sweep))
    assert {one["search.sigma"] for one in found} == {0.5, 1.0}
    assert {one["ensemble.mixer"] for one in found} == {"mean", "min"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([0.1, 0.3], "expected one of grid, choice, cases, uniform, log-uniform"),
        ({"gird": [1]}, "did you mean grid?"),
        ({"grid": []}, "expected a list"),
        ({"grid": [1.0, 1.0]}, "stands there twice"),
        ({"uniform": [1.0]}, "expected [least, most]"),
        ({"uniform": [2.0, 1.0]}, "must be below the second"),
        ({"log-uniform": [0.0, 1.0]}, "above 0"),
    ],
)
def test_a_bad_space_is_refused_by_name(value: Any, words: str) -> None:
    text = space_refusal(**{"search.sigma": value})
    assert text.startswith("space.search.sigma")
    assert words in text


def test_whole_numbers_are_not_drawn_between_broken_ones() -> None:
    text = space_refusal(**{"ensemble.subnetworks": {"uniform": [1.5, 3]}})
    assert "ensemble.subnetworks is a whole number" in text


@pytest.mark.parametrize("kind", ["uniform", "log-uniform"])
def test_whole_numbers_that_are_too_large_to_be_drawn_are_refused(kind: str) -> None:
    text = space_refusal(**{"search.budget": {kind: [20, 1e30]}})
    assert text.startswith(f"space.search.budget.{kind}: expected at most 9,007,199,254,740,992")


def test_an_interval_that_is_too_wide_to_be_drawn_from_is_refused() -> None:
    text = space_refusal(**{"search.sigma": {"uniform": [-1e308, 1e308]}})
    assert "space.search.sigma.uniform: expected at most" in text


def test_a_setting_is_said_once() -> None:
    space = {"prompt": {"grid": [{"init": "zero"}]}, "prompt.init": {"grid": ["zero"]}}
    assert "prompt and prompt.init both say prompt.init" in space_refusal(**space)


@pytest.mark.parametrize("setting", ["search.seed", "search.selection", "run_dir"])
def test_what_makes_no_sense_to_vary_is_refused(setting: str) -> None:
    assert f"space.{setting}: it cannot be varied" in space_refusal(
        **{setting: {"grid": ["a", "b"]}}
    )


def test_optuna_takes_no_grid_and_a_grid_no_samples() -> None:
    assert "write choice instead of grid" in refusal(searcher="optuna")
    assert "Repeat its points with seeds" in refusal(samples=2)


def test_too_many_trials_are_refused() -> None:
    space = {f"task.{name}": {"grid": list(range(101))} for name in ("k", "seed")}
    assert "10,201 trials" in space_refusal(**space)


TWO_BY_TWO: dict[str, Any] = {
    "space": {
        "method": {
            "cases": {
                "bbt": {"ensemble": {"mode": "none"}, "search": {"sigma": 0.5}},
                "clip": None,
            }
        },
        "task.k": {"grid": [2, 4]},
    }
}


def test_cases_are_settings_of_any_sections_under_a_name() -> None:
    found = drawn(**TWO_BY_TWO)
    assert [tuple(one.items()) for one in found] == [
        (("method", "bbt"), ("task.k", 2)),
        (("method", "bbt"), ("task.k", 4)),
        (("method", "clip"), ("task.k", 2)),
        (("method", "clip"), ("task.k", 4)),
    ]
    sweep = Sweep.model_validate(TWO_BY_TWO)
    assert tree_of(sweep, found[1], 3) == {
        "search": {"seed": 3, "sigma": 0.5},
        "ensemble": {"mode": "none"},
        "task": {"k": 4},
    }
    assert tree_of(sweep, found[2], 0) == {"search": {"seed": 0}, "task": {"k": 2}}


def test_what_a_case_decides_no_other_part_of_the_space_does() -> None:
    text = space_refusal(**TWO_BY_TWO["space"], **{"search.sigma": {"grid": [1.0]}})
    assert "method and search.sigma both say search.sigma" in text
    seeded = {"method": {"cases": {"a": {"search": {"seed": 1}}}}}
    assert "space.search.seed: it cannot be varied" in space_refusal(**seeded)


@pytest.mark.parametrize("cases", [[], {}, {1: {}}, {"a": 3}, ["a"]])
def test_cases_that_are_none_are_refused(cases: Any) -> None:
    assert space_refusal(method={"cases": cases}).startswith("space.method.cases: expected")


def test_a_value_may_be_several_settings_at_once() -> None:
    options = [{"init": "zero"}, {"init": "text", "text": "so"}]
    found = drawn(space={"prompt": {"grid": options}})
    assert found == [{"prompt.init": "zero"}, {"prompt.init": "text", "prompt.text": "so"}]
    sweep = Sweep.model_validate({"space": {"prompt": {"grid": options}}})
    assert tree_of(sweep, found[1], 3) == {
        "search": {"seed": 3},
        "prompt": {"init": "text", "text": "so"},
    }
