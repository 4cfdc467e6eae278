"""A sweep's file: what it says, what is drawn from it, and what is wrong with it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cliptune.errors import ConfigError
from jobs.sweepfile import Sweep, config_of, labelled, read_sweep, tree_of
from jobs.sweepspace import points, read_space

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
SMALL: dict[str, Any] = {"space": {"ensemble.clip_ratio": {"grid": [0.1, 0.3]}}}


def written(folder: Path, **tree: Any) -> Path:
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    return file


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
        ({"base": {"search": {"seed": 7}}}, "base.search.seed: the sweep's own `seeds`"),
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


def test_a_base_that_is_no_mapping_is_refused_with_words_as_well(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="base: expected"):
        read_sweep(written(tmp_path, **{**SMALL, "base": [1]}), ["search.budget=8"])


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


def test_a_text_may_hold_the_seed_of_its_trial() -> None:
    base = {"task": {"data": "data/sst2/16-{seed}", "template": "{text} {mask}"}}
    sweep = Sweep.model_validate({**SMALL, "base": base})
    assert tree_of(sweep, {}, 42)["task"] == {
        "data": "data/sst2/16-42",
        "template": "{text} {mask}",
    }
