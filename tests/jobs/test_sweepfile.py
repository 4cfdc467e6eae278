"""A sweep's file: what it says, what is drawn from it, and what is wrong with it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cliptune.config import merge
from cliptune.errors import ConfigError
from jobs.sweepfile import (
    Settings,
    Sweep,
    config_of,
    corners,
    labelled,
    points,
    read_space,
    read_sweep,
    tree_of,
)

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
SMALL: dict[str, Any] = {"space": {"ensemble.clip_ratio": {"grid": [0.1, 0.3]}}}


def written(folder: Path, **tree: Any) -> Path:
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    return file


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


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_every_trial_of_the_ready_made_sweeps_is_a_valid_search(file: Path) -> None:
    sweep = read_sweep(file, [])
    found = list(points(sweep, read_space(sweep)))
    configs = [config_of(tree_of(sweep, one, seed), "") for one in found for seed in sweep.seeds]
    assert len(found) > 2
    assert len({config.model_dump_json() for config in configs}) == len(found) * len(sweep.seeds)


def test_there_is_a_ready_made_sweep_for_each_of_the_papers_questions() -> None:
    names = {"clip_ratio", "subnetworks", "clipping_mode", "training_size", "initialisation"}
    assert {file.stem for file in EXAMPLES} == names


def test_a_grid_is_every_combination() -> None:
    found = drawn(space={"prompt.length": {"grid": [1, 2]}, "search.sigma": {"grid": [0.5, 1.0]}})
    assert [tuple(one.values()) for one in found] == [(1, 0.5), (1, 1.0), (2, 0.5), (2, 1.0)]


def test_a_value_may_be_several_settings_at_once() -> None:
    options = [{"init": "zero"}, {"init": "text", "text": "so"}]
    found = drawn(space={"prompt": {"grid": options}})
    assert found == [{"prompt.init": "zero"}, {"prompt.init": "text", "prompt.text": "so"}]
    sweep = Sweep.model_validate({"space": {"prompt": {"grid": options}}})
    assert tree_of(sweep, found[1], 3) == {
        "search": {"seed": 3},
        "prompt": {"init": "text", "text": "so"},
    }


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


def test_a_number_of_seeds_counts_from_zero() -> None:
    assert Sweep.model_validate({**SMALL, "seeds": 3}).seeds == (0, 1, 2)
    assert Sweep.model_validate({**SMALL, "seeds": [4, 2]}).seeds == (4, 2)


def test_words_go_over_the_base(tmp_path: Path) -> None:
    file = written(tmp_path, base={"search": {"budget": 80, "population": 8}}, **SMALL)
    sweep = read_sweep(file, ["search.budget=160"])
    assert sweep.base["search"] == {"budget": 160, "population": 8}


def test_the_base_may_be_a_file_beside_the_sweep(tmp_path: Path) -> None:
    (tmp_path / "search.yaml").write_text("search: {budget: 80}\n")
    assert read_sweep(written(tmp_path, base="search.yaml", **SMALL), []).base == {
        "search": {"budget": 80}
    }


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"speace": {}}, "Unknown setting speace (did you mean space?)"),
        ({"seeds": [1, 1]}, "seeds must differ"),
        ({"seeds": 0}, "seeds: expected a list"),
        ({"base": {"run_dir": "runs/a"}}, "base.run_dir"),
        ({"asha": {"grace": 0}}, "asha.grace"),
        ({"failures": -1}, "failures"),
        ({"space": {}}, "space"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, tree: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_sweep(written(tmp_path, **{**SMALL, **tree}), [])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([0.1, 0.3], "expected one of grid, choice, uniform, log-uniform"),
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


def test_a_bad_value_in_the_grid_is_one_sentence_that_names_it() -> None:
    sweep = Sweep.model_validate({"space": {"ensemble.clip_ratio": {"grid": [0.1, 1.5]}}})
    settings = list(points(sweep, read_space(sweep)))[1]
    with pytest.raises(ConfigError) as caught:
        config_of(tree_of(sweep, settings, 0), labelled(settings))
    text = str(caught.value)
    assert text.startswith("ensemble.clip_ratio=1.5: ensemble.clip_ratio: ")
    assert "\n" not in text


def test_a_range_of_actors_is_refused() -> None:
    sweep = Sweep.model_validate({**SMALL, "base": {"cluster": {"actors": {"min": 1, "max": 2}}}})
    with pytest.raises(ConfigError, match="as a trial reserves its actors"):
        config_of(tree_of(sweep, {}, 0), "all trials")
