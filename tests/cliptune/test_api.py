"""`cliptune.search`: settings however they are given, and who is told."""

from pathlib import Path
from typing import Any

import pytest
import runs
import tiny
import yaml

import cliptune
from cliptune.api import configured
from cliptune.config import Config, validate
from cliptune.errors import ConfigError

TREE: dict[str, Any] = {"search": {"seed": 3, "budget": 60}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(TREE), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", [str, Path])
def test_settings_may_be_a_file(kind: Any, file: Path) -> None:
    assert configured(Config, kind(file), {}) == validate(Config, TREE)


def test_settings_may_be_a_tree_a_config_or_sections_alone() -> None:
    expected = validate(Config, TREE)
    assert configured(Config, TREE, {}) == expected
    assert configured(Config, expected, {}) is expected
    assert configured(Config, None, TREE) == expected
    assert configured(Config, None, {}) == validate(Config, {})


def test_sections_are_laid_over_the_settings() -> None:
    over = {"search": {"budget": 80}, "run_dir": "here"}
    expected = validate(Config, {"search": {"seed": 3, "budget": 80}, "run_dir": "here"})
    for settings in (TREE, validate(Config, TREE)):
        assert configured(Config, settings, over) == expected


def test_the_machines_of_a_search_on_ray_do_not_count_here_but_cannot_be_asked_for() -> None:
    both = TREE | {"cluster": {"actors": 4}}
    assert configured(Config, both, {}) == validate(Config, TREE)
    with pytest.raises(ConfigError, match="Unknown setting cluster"):
        configured(Config, TREE, {"cluster": {"actors": 4}})


@pytest.mark.parametrize(
    ("settings", "sections", "complaint"),
    [
        (3, {}, "Settings are a Config, a mapping of sections or the path of a YAML file; found 3"),
        ("nowhere.yaml", {}, "nowhere.yaml cannot be read"),
        (None, {"serach": {}}, r"Unknown setting serach \(did you mean search\?\)"),
        (None, {"search": {"budget": 0}}, "search.budget"),
    ],
)
def test_bad_settings_are_refused(settings: Any, sections: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        cliptune.search(settings, **sections)


def test_several_observers_are_told_and_the_result_comes_back(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    observers = [runs.Listener(), runs.Listener()]
    tree = tiny.tree(model_dir, task_dir, search={"budget": 8})
    result = cliptune.search(tree, observer=observers, run_dir=str(tmp_path / "run"))
    assert result.run_dir == str(tmp_path / "run")
    for observer in observers:
        assert [one.generation.number for one in observer.progress] == [0, 1]
    again = cliptune.search(
        result.run_dir + "/config.yaml", observer=observers[0], resume=True, search={"budget": 12}
    )
    assert again.cost.prompts_scored == 12
