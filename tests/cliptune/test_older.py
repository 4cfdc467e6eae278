"""Runs of versions whose settings were others."""

from pathlib import Path
from typing import Any

import pytest
import runs
import yaml

from cliptune.config import Config
from cliptune.errors import ConfigError, RunError
from cliptune.older import as_now
from cliptune.record import read_run


def rewritten(run_dir: Path, **sections: Any) -> str:
    """A finished run whose config.yaml says something else; `None` takes a setting away."""
    runs.run(runs.plain(run_dir, search={"budget": 8}))
    file = run_dir / "config.yaml"
    tree = yaml.safe_load(file.read_text())
    for section, settings in sections.items():
        tree[section] |= settings
        for name in [name for name, value in settings.items() if value == "absent"]:
            del tree[section][name]
    file.write_text(yaml.safe_dump(tree))
    return str(run_dir)


def test_a_setting_that_is_gone_and_did_nothing_is_left_out(tmp_path: Path) -> None:
    place = rewritten(tmp_path / "run", ensemble={"pool": None})
    assert len(read_run(Config, place).generations) == 1


def test_a_setting_that_is_gone_and_did_something_is_refused(tmp_path: Path) -> None:
    place = rewritten(tmp_path / "run", ensemble={"pool": 8})
    with pytest.raises(ConfigError, match=r"ensemble\.pool"):
        read_run(Config, place)


def test_a_run_from_before_there_were_class_biases_has_none(tmp_path: Path) -> None:
    place = rewritten(tmp_path / "run", search={"calibrate": "absent"})
    assert not read_run(Config, place).config.search.calibrate


def test_settings_of_now_stay_as_they_are() -> None:
    tree = {"search": {"calibrate": True}, "ensemble": {"mode": "none"}, "run_dir": "runs/a"}
    assert as_now(tree) == tree


def test_a_run_from_before_goes_on_without_class_biases_and_not_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cliptune import run as module

    def older(*arguments: Any) -> dict[str, Any]:
        found = real(*arguments)
        assert found["config"]["search"].pop("calibrate") is False
        return found

    real = module.identity
    without = {"calibrate": False, "budget": 16}
    with monkeypatch.context() as past:
        past.setattr(module, "identity", older)
        runs.run(runs.plain(tmp_path / "run", search=without))
    runs.run(runs.plain(tmp_path / "run", search={**without, "budget": 24}), resume=True)
    assert len(read_run(Config, str(tmp_path / "run")).generations) == 3
    biased = runs.plain(tmp_path / "run", search={"calibrate": True, "budget": 24})
    with pytest.raises(RunError, match=r"search\.calibrate is True"):
        runs.run(biased, resume=True)
