"""Runs of versions whose settings were others."""

from pathlib import Path
from typing import Any

import pytest
import runs
import yaml

from cliptune.config import Config, validate
from cliptune.errors import ConfigError, RunError
from cliptune.identity import refuse_another
from cliptune.older import as_now, without_gone
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
    assert without_gone(as_now(tree)) == tree


def test_a_runs_own_settings_can_be_searched_again() -> None:
    config = validate(Config, {"ensemble": {"pool": None, "subnetworks": 3}})
    assert config.ensemble.subnetworks == 3


def test_a_run_that_a_setting_decided_that_is_gone_is_not_gone_on_with() -> None:
    before = {"config": {"ensemble": {"mode": "static", "pool": 20}}}
    with pytest.raises(RunError, match=r"ensemble\.pool is not known any more, the run's is 20"):
        refuse_another("runs/a", before, {"config": {"ensemble": {"mode": "static"}}})


@pytest.mark.parametrize(
    "sections",
    [
        {"prompt": {"layers": 2}, "ensemble": {"mixer": "rank-mean"}},
        {"prompt": {"dimension": 20_000}},
    ],
)
def test_a_run_whose_settings_would_be_refused_now_can_be_read(sections: dict[str, Any]) -> None:
    validate(Config, sections, as_written=True)
    with pytest.raises(ConfigError):
        validate(Config, sections)


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
