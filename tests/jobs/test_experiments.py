"""The paper's experiments: every search of them is valid, and names are checked."""

from typing import Any

import pytest

from cliptune.config import preset
from cliptune.errors import ConfigError
from jobs.experiments import (
    EXPERIMENTS,
    METHODS,
    SEEDS,
    TASKS,
    Matrix,
    Sizes,
    named,
    sweep_of,
    values_of,
)
from jobs.sweepfile import config_of, labelled, tree_of
from jobs.sweepspace import points, read_space

SIZES = Sizes(budget=600, subnetworks=3, layers=6, numbers=3840)
BASE: dict[str, Any] = {
    "search": {"budget": 600},
    "prompt": {"length": 10, "dimension": 200},
    "ensemble": {"subnetworks": 3},
}


def matrix(data: str | None = "data/{task}/16-{seed}", **more: Any) -> Matrix:
    settings = {
        "tasks": list(TASKS),
        "methods": list(METHODS),
        "seeds": SEEDS,
        "values": None,
        **more,
    }
    return Matrix(data=data, **settings)


def configs(experiment: str, asked: Matrix) -> dict[str, Any]:
    sweep = sweep_of(experiment, asked, SIZES, BASE)
    assert sweep is not None
    return {
        f"{labelled(one)} seed={seed}": config_of(tree_of(sweep, one, seed), labelled(one))
        for one in points(sweep, read_space(sweep))
        for seed in sweep.seeds
    }


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("data", [None, "data/{task}/16-{seed}"])
def test_every_search_is_valid_and_another(experiment: str, data: str | None) -> None:
    tasks = ["sst2", "yelp_polarity", "agnews", "dbpedia"]  # hinge is the others' own loss
    found = configs(experiment, matrix(data, tasks=tasks, seeds=SEEDS[:2]))
    assert found
    assert len({config.model_dump_json() for config in found.values()}) == len(found)


def test_every_seed_has_a_split_of_its_own() -> None:
    found = configs("main", matrix(tasks=["sst2"], methods=["bbt"]))
    assert [config.task.data for config in found.values()] == [
        f"data/sst2/16-{seed}" for seed in SEEDS
    ]
    from_hub = configs("main", matrix(None, tasks=["sst2"], methods=["bbt"]))
    assert [config.task.seed for config in from_hub.values()] == list(SEEDS)


def test_methods_differ_in_what_their_names_say() -> None:
    found = configs("main", matrix(tasks=["sst2"], seeds=[13]))
    of = {label.split("method=")[1].split()[0]: config for label, config in found.items()}
    assert of["clip-static"].ensemble.mode == "static"
    assert of["clip-dynamic"].ensemble.mode == "dynamic"
    assert of["random"].search.method == "random"
    assert of["random"].ensemble == of["clip-static"].ensemble  # the same critics
    assert {of[name].ensemble.mode for name in ("bbt", "deep-bbt", "prompt-tuning")} == {"none"}
    assert {of[name].prompt.layers for name in ("deep-bbt", "deep-clip")} == {6}
    passes = {
        name: of[name].search.budget * of[name].ensemble.size
        for name in ("clip-static", "bbt-equal-passes")
    }
    assert passes["clip-static"] == passes["bbt-equal-passes"]


def test_the_verbalizers_are_of_their_tasks() -> None:
    for config in configs("verbalizer", matrix(seeds=[13])).values():
        assert len(config.task.verbalizer) == len(config.task.label_words)
        for words, name in zip(config.task.verbalizer, config.task.label_words, strict=True):
            assert name in words


def test_the_papers_methods_read_one_word_a_class() -> None:
    for config in configs("main", matrix(seeds=[13], methods=["bbt"])).values():
        assert config.task.verbalizer is None


def test_templates_come_from_the_presets() -> None:
    for config in configs("main", matrix(methods=["bbt"], seeds=[13])).values():
        assert config.task.template == preset(config.task.name)["task"]["template"]


def test_an_experiment_without_the_methods_is_none() -> None:
    assert sweep_of("clip-ratio", matrix(methods=["bbt"]), SIZES, BASE) is None


def test_an_experiment_is_of_the_values_asked_for() -> None:
    found = configs("subnetworks", matrix(values=["5", "8"], tasks=["sst2"], seeds=[13]))
    assert [config.ensemble.subnetworks for config in found.values()] == [5, 8]
    assert sweep_of("clip-ratio", matrix(values=["5"]), SIZES, BASE) is None
    assert "rank-mean" in values_of(["main", "beyond"], SIZES)
    assert values_of(["main"], SIZES) == []


def test_names_are_given_with_commas_in_any_order() -> None:
    assert named("agnews, sst2", list(TASKS), "--tasks") == ["sst2", "agnews"]
    assert named(None, list(TASKS), "--tasks") == list(TASKS)


@pytest.mark.parametrize(
    ("asked", "words"), [("sst3", "there is no sst3 (did you mean sst2?)"), (",", "found ','")]
)
def test_unknown_names_are_refused(asked: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        named(asked, list(TASKS), "--tasks")
    assert words in str(caught.value)
