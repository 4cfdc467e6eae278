"""Config: what is laid over what, what is refused and in which words, what decides a search."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from pydantic import ValidationError

import cliptune
from cliptune.config import (
    NOT_IDENTITY,
    Config,
    Section,
    merge,
    preset,
    presets,
    validate,
)
from cliptune.device import resolve
from cliptune.errors import ConfigError
from cliptune.task import Template


def refusal(tree: Any, kind: type[Config] = Config) -> str:
    with pytest.raises(ConfigError) as error:
        validate(kind, tree)
    return str(error.value)


# Presets


def test_an_empty_tree_is_the_embedded_example() -> None:
    config = validate(Config, {})
    assert config.task.name == "tickets"
    assert config.model.name == "minilm"
    assert len(config.task.label_words) == 6


def test_user_values_win_over_the_preset_and_the_preset_over_defaults() -> None:
    below = preset("tickets")
    config = validate(Config, {"task": {"name": "tickets", "k": 4}, "search": {"population": 9}})
    assert config.task.k == 4 != below["task"]["k"]
    assert config.search.population == 9 != below["search"]["population"]
    assert config.search.budget == below["search"]["budget"]  # in a section that the user touched
    assert config.prompt.length == below["prompt"]["length"]  # in one that they did not
    assert config.search.budget != 8000  # which is the default
    assert config.search.sigma == 1.0


def test_a_loss_of_the_preset_can_be_overruled() -> None:
    assert validate(Config, {"task": {"name": "mrpc"}}).search.loss == "hinge"
    tree = {"task": {"name": "mrpc"}, "search": {"loss": "cross-entropy"}}
    assert validate(Config, tree).search.loss == "cross-entropy"


@pytest.mark.parametrize("name", presets())
def test_every_preset_validates(name: str) -> None:
    config = validate(Config, {"task": {"name": name}})
    assert config.task.name == name
    assert Template(config.task.template).has_pair == (name in ("mrpc", "rte", "snli"))


@pytest.mark.parametrize(
    ("name", "template", "words"),
    [
        ("sst2", "{text} . It was {mask} .", "bad great"),
        ("yelp_polarity", "{text} . It was {mask} .", "bad great"),
        ("agnews", "{mask} News: {text}", "World Sports Business Tech"),
        (
            "dbpedia",
            "[ Category: {mask} ] {text}",
            "Company Education Artist Athlete Office Transportation Building Natural Village "
            "Animal Plant Album Film Written",
        ),
        ("mrpc", "{text} ? {mask} , {text_pair}", "No Yes"),
        ("rte", "{text} ? {mask} , {text_pair}", "Yes No"),
        ("snli", "{text} ? {mask} , {text_pair}", "Yes Maybe No"),
    ],
)
def test_the_seven_tasks_are_worded_as_in_the_papers(name: str, template: str, words: str) -> None:
    config = validate(Config, {"task": {"name": name}})
    assert config.task.template == template
    assert config.task.label_words == tuple(words.split())
    assert config.search.budget == (20000 if name == "dbpedia" else 8000)


def test_a_name_of_the_users_own_has_no_preset() -> None:
    assert preset("mine") == {}
    assert preset("../presets/sst2") == {}


def test_words_of_a_preset_belong_to_its_own_label_words() -> None:
    """So that a run from before it had them is read from its label words as well."""
    assert validate(Config, {"task": {"name": "agnews"}}).task.verbalizer is not None
    words = ["world", "sports", "business", "technology"]
    task = {"name": "agnews", "label_words": words}
    assert validate(Config, {"task": task}).task.verbalizer is None
    several = [[word] for word in words]
    config = validate(Config, {"task": {**task, "verbalizer": several}})
    assert config.task.verbalizer == tuple((word,) for word in words)


def test_a_name_of_the_users_own_needs_template_and_label_words() -> None:
    message = refusal({"task": {"name": "mine"}})
    assert "task.template is missing: task.name is not a preset" in message
    assert "task.label_words is missing" in message
    assert "sst2" in message  # the presets that there are


def test_merging_changes_neither_tree() -> None:
    below, above = {"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"y": 3}, "c": {"z": 4}}
    assert merge(below, above) == {"a": {"x": 1, "y": 3}, "b": 1, "c": {"z": 4}}
    assert below == {"a": {"x": 1, "y": 2}, "b": 1}
    assert above == {"a": {"y": 3}, "c": {"z": 4}}


# Seeds


def test_the_search_seed_is_shared_with_prompt_and_ensemble() -> None:
    config = validate(Config, {"search": {"seed": 7}})
    assert (config.prompt.seed, config.ensemble.seed) == (7, 7)
    assert config.task.seed == 0  # the examples stay the same when searches are repeated


@pytest.mark.parametrize("seed", [np.int64(7), "7", 7.0])
def test_a_seed_that_is_read_as_a_number_is_shared_like_one(seed: Any) -> None:
    config = validate(Config, {"search": {"seed": seed}})
    assert (config.search.seed, config.prompt.seed, config.ensemble.seed) == (7, 7, 7)


def test_a_seed_of_their_own_is_kept() -> None:
    config = validate(Config, {"search": {"seed": 7}, "prompt": {"seed": 3}})
    assert (config.prompt.seed, config.ensemble.seed) == (3, 7)


# Refusals


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"search": {"budgt": 1}}, r"^Unknown setting search.budgt \(did you mean search.budget"),
        ({"serach": {}}, r"^Unknown setting serach \(did you mean search\?\)"),
        ({"search": {"zzz": 1}}, r"search.zzz \(known here: method, budget, max_forward"),
        ({"search": {"budget": "many"}}, "search.budget: .*valid integer.*, found 'many'"),
        ({"search": {"population": 1}}, "search.population: .*greater than or equal to 3.*found 1"),
        ({"search": {"sigma": 0}}, "search.sigma: .*greater than 0, found 0"),
        ({"search": {"sigma": float("nan")}}, "search.sigma: .*found nan"),
        (
            {"search": {"method": "adam"}},
            "search.method: .*'random' or 'gradient', found",
        ),
        ({"search": {"seed": 2**63}}, "search.seed: .*less than 9223372036854775808"),
        ({"ensemble": {"clip_ratio": 1}}, "ensemble.clip_ratio: .*less than 1, found 1"),
        ({"ensemble": {"sites": ["head"]}}, "ensemble.sites: .*'embedding', .*found 'head'"),
        ({"ensemble": {"sites": []}}, "ensemble.sites: .*at least 1 item"),
        ({"task": {"label_words": ["one"]}}, "task.label_words: .*at least 2 items"),
        ({"task": {"label_words": [True, False]}}, "task.label_words: .*reads yes and no as true"),
        ({"task": {"labels": [True, False]}}, r"task.labels: .*quote them; found \[True, False\]"),
        ({"task": {"labels": [0, 1]}}, "labels must be 6 different values, .*; found 0, 1"),
        ({"task": {"label_words": ["a", "a"]}}, "label_words must differ; found a, a"),
        (
            {"task": {"label_words": ["a", "b"], "verbalizer": [["a"]]}},
            "a list of words for each of the 2 label words; found 1 lists of 1 words",
        ),
        ({"task": {"label_words": ["a", "b"], "verbalizer": [["a"], []]}}, "2 lists of 1, 0 words"),
        (
            {"task": {"label_words": ["a", "b"], "verbalizer": [["c", "d"], ["c"]]}},
            "verbalizer's words must differ; found 'c' twice",
        ),
        (
            {"task": {"label_words": ["a", "b"], "verbalizer": [["no"], [True]]}},
            "task.verbalizer: .*reads yes and no as true",
        ),
        ({"task": {"name": "../mine"}}, "task.name: .*found '../mine'"),
        ({"task": "sst2"}, "task: expected settings of its own, .*found 'sst2'"),
        ({"search": None}, "search: expected settings of its own, .*found None"),
        ({"schema_version": 2}, "schema_version: .*should be 1, found 2"),
        ({"run_dir": ""}, "run_dir: .*at least 1 character"),
        ({"search": {"max_seconds": float("inf")}}, "search.max_seconds: .*finite.*found inf"),
        ({"search": {"patience": 0}}, "search.patience: .*greater than or equal to 1, found 0"),
        (
            {"prompt": {"layers": 2}, "ensemble": {"mixer": "rank-mean"}},
            "rank-mean compares the candidates of one generation",
        ),
        (
            {"prompt": {"dimension": 20_000}},
            "search.method cma-es keeps a matrix .* 10,000 at most, found 20,000; sep-cma-es",
        ),
        (["sst2"], "the configuration: expected settings"),
    ],
)
def test_a_bad_setting_is_named_with_what_was_expected_and_found(tree: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Config, tree)


def test_all_bad_settings_are_named_at_once() -> None:
    lines = refusal({"task": {"k": 0}, "prompt": {"length": -1}}).splitlines()
    assert [line.split(":")[0] for line in lines] == ["task.k", "prompt.length"]


def test_a_budget_below_one_generation_is_refused() -> None:
    message = refusal({"search": {"budget": 9, "population": 10}})
    assert "at least one generation of 10 prompts, found 9" in message
    assert "raise search.budget or lower search.population" in message


@pytest.mark.parametrize("limit", ["max_forward_passes", "max_seconds"])
def test_a_search_without_a_budget_needs_another_limit(limit: str) -> None:
    assert "budget may be null only with search.max_seconds or" in refusal(
        {"search": {"budget": None, "patience": 3}}
    )
    config = validate(Config, {"search": {"budget": None, limit: 1}})
    assert config.search.budget is None


@pytest.mark.parametrize(
    "selection",
    ["loss", "accuracy", "macro-f1", "mine:f", "my.metrics:f", "a/b.py:f1", "/a-b/c.py:f_1"],
)
def test_selection_is_one_of_ours_or_a_path_to_a_function(selection: str) -> None:
    assert validate(Config, {"search": {"selection": selection}}).search.selection == selection


@pytest.mark.parametrize("selection", ["f1", "", ":f", "mine:", "mine:f()", "mine f", "a:b:c", 3])
def test_other_selections_are_refused(selection: Any) -> None:
    message = refusal({"search": {"selection": selection}})
    assert message.startswith("search.selection: ")
    assert message.endswith(f"found {str(selection)!r}.")
    assert "\n" not in message


@pytest.mark.parametrize("place", ["runs/a", "s3://bucket/run", "/mnt/a b/ü"])
def test_a_run_dir_is_kept_letter_by_letter(place: str) -> None:
    assert validate(Config, {"run_dir": place}).run_dir == place


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"mixer": "weighted"}, "mixer: weighted and ensemble.weights go together"),
        ({"weights": [1, 1, 1]}, "mixer: weighted and ensemble.weights go together"),
        ({"mixer": "weighted", "weights": [1, 2]}, r"one a subnetwork \(3\), 2 given"),
        ({"mixer": "weighted", "weights": [0, 0, 0]}, "not all zero"),
        ({"mixer": "weighted", "weights": [3, -1, 3]}, "not negative"),
        ({"mixer": "weighted", "weights": [1, float("inf"), 1]}, "finite"),
        ({"mixer": "weighted", "weights": [1, float("nan"), 1]}, "finite"),
        ({"mixer": "weighted", "weights": [1, 1, 1], "mode": "none"}, r"\(1\), 3 given"),
    ],
)
def test_weights_that_do_not_fit_are_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Config, {"ensemble": {"subnetworks": 3, **section}})


def test_weights_need_not_add_up_to_one() -> None:
    tree = {"ensemble": {"subnetworks": 2, "mixer": "weighted", "weights": [3, 0]}}
    assert validate(Config, tree).ensemble.weights == (3.0, 0.0)


def test_without_clipping_one_network_scores() -> None:
    assert validate(Config, {"ensemble": {"subnetworks": 4}}).ensemble.size == 4
    assert validate(Config, {"ensemble": {"subnetworks": 4, "mode": "none"}}).ensemble.size == 1


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"init": "text"}, "init: text and a value for prompt.text go together"),
        ({"text": "hello"}, "init is vocabulary, prompt.text is hello"),
        ({"init": "file"}, "init: file and a value for prompt.file go together"),
        ({"init": "text", "text": "a", "file": "b"}, "init is text, prompt.file is b"),
    ],
)
def test_an_initial_prompt_and_its_source_go_together(
    section: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Config, {"task": {"name": "sst2"}, "prompt": section})


def test_settings_never_change() -> None:
    config = validate(Config, {})
    with pytest.raises(ValidationError, match="frozen"):
        config.search.budget = 1


# Other storeys add a section


class Engine(Section):
    actors: int = 1


class Wider(Config):
    engine: Engine = Engine()


def test_an_added_section_is_validated_and_does_not_decide_results() -> None:
    assert "did you mean engine.actors?" in refusal({"engine": {"actor": 2}}, Wider)
    config = validate(Wider, {"engine": {"actors": 3}})
    assert config.engine.actors == 3
    assert config.identity() == validate(Config, {}).identity()


# Identity


def identity(**sections: Any) -> dict[str, Any]:
    return tiny.config(Path("model"), Path("data"), **sections).identity()


@pytest.mark.parametrize(
    "sections",
    [
        {"run_dir": "elsewhere"},
        {"watch": {"trackers": ["mlflow"]}},
        {"search": {"budget": 4000}},
        {"search": {"budget": None, "max_seconds": 5.0}},
        {"search": {"max_forward_passes": 99999, "patience": 3}},
        {"task": {"data": "moved"}},
        {"task": {"subset": "a", "splits": {"test": "b"}}},
        {"task": {"columns": {"text": "sentence"}, "labels": ["no", "yes"]}},
        {"model": {"name": "moved"}},
    ],
)
def test_identity_ignores_places_and_limits(sections: dict[str, Any]) -> None:
    assert identity(**sections) == identity()


def test_identity_has_every_other_setting() -> None:
    """A new setting decides the results unless it is said not to."""
    config = tiny.config(Path("model"), Path("data"))
    for section in ("task", "model", "prompt", "ensemble", "search"):
        settings = set(type(getattr(config, section)).model_fields)
        left_out = settings - set(identity()[section])
        assert left_out == set(NOT_IDENTITY.get(section, ()))
    assert set(Config.model_fields) - set(identity()) == {"run_dir", "scorer", "watch"}


@pytest.mark.parametrize("name", presets())
def test_a_resolved_config_validates_again_to_the_same_tree(name: str) -> None:
    tree = {
        "task": {"name": name, "data": "somewhere"},
        "search": {"seed": 5},
        "prompt": {"seed": 2},
        "run_dir": "runs/a",
    }
    config = resolve(validate(Config, tree), cuda=False)
    dumped = config.model_dump(mode="json")
    again = validate(Config, dumped)
    assert again == config
    assert again.model_dump(mode="json") == dumped
    assert again.identity() == config.identity()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": [1, "1"]}, "labels must be 2 different values"),
        ({"label_words": [True, False]}, "task.label_words: YAML reads yes and no as true"),
        ({"label_words": ["a", "a"]}, "label_words must differ; found a, a."),
    ],
)
def test_labels_and_label_words_stand_for_one_class_each(
    settings: dict[str, Any], message: str
) -> None:
    assert message in refusal({"task": {"name": "sst2", **settings}})


def test_a_registered_task_brings_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cliptune.config.layers.TASKS", {})
    words = {"template": "{text} {mask}", "label_words": ["normal", "urgent"]}
    cliptune.register_task("urgency", {"task": words, "search": {"budget": 40}})
    config = validate(Config, {"task": {"name": "urgency", "label_words": ["no", "yes"]}})
    assert (config.task.template, config.search.budget) == ("{text} {mask}", 40)
    assert config.task.label_words == ("no", "yes")
    with pytest.raises(ConfigError, match="sst2 is a task of ours"):
        cliptune.register_task("sst2", {})

    @cliptune.register_task("mood")
    def mood() -> dict[str, Any]:
        return {"task": words}

    assert validate(Config, {"task": {"name": "mood"}}).task.label_words == ("normal", "urgent")
