"""A sweep's folder: which trials there are, and whose folder it is."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from cliptune.errors import HeldError, RunError
from jobs.manifest import grown, opened
from jobs.sweepfile import Sweep


def sweep(**more: Any) -> Sweep:
    tree = {"space": {"ensemble.clip_ratio": {"grid": [0.1, 0.3]}}, "seeds": 2, **more}
    return Sweep.model_validate(tree)


def begin(folder: Path, asked: Sweep) -> None:
    with opened(str(folder), asked) as (manifest, begun):
        assert not begun
        for ratio in (0.1, 0.3):
            manifest.add({"ensemble.clip_ratio": ratio})
        manifest.write()


def finish(folder: Path, name: str) -> None:
    run = folder / "trials" / name
    run.mkdir(parents=True)
    (run / "result.json").write_text('{"stopped": "the budget is spent"}')


def set_state(folder: Path, at: int, **values: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["trials"][at] |= values
    (folder / "manifest.json").write_text(json.dumps(manifest))


def states(folder: Path, asked: Sweep) -> list[str]:
    with opened(str(folder), asked) as (manifest, begun):
        assert begun
        return [entry.state for entry in manifest.entries]


def test_a_trial_a_setting_and_seed_with_a_name_that_says_so(tmp_path: Path) -> None:
    begin(tmp_path, sweep())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert [trial["name"] for trial in manifest["trials"]] == [
        "000-clip_ratio-0.1-seed-0",
        "001-clip_ratio-0.1-seed-1",
        "002-clip_ratio-0.3-seed-0",
        "003-clip_ratio-0.3-seed-1",
    ]
    assert manifest["varies"] == ["ensemble.clip_ratio"]
    assert manifest["trials"][2]["settings"] == {"ensemble.clip_ratio": 0.3}
    assert yaml.safe_load((tmp_path / "sweep.yaml").read_text())["seeds"] == [0, 1]


def test_what_has_a_result_is_done_and_what_failed_waits_again(tmp_path: Path) -> None:
    begin(tmp_path, sweep())
    finish(tmp_path, "001-clip_ratio-0.1-seed-1")
    set_state(tmp_path, 0, state="stopped", ended="asha")
    set_state(tmp_path, 2, state="failed", error="no")
    assert states(tmp_path, sweep()) == ["stopped", "done", "waiting", "waiting"]


def test_the_same_sweep_may_run_on_other_machines(tmp_path: Path) -> None:
    begin(tmp_path, sweep())
    other = sweep(base={"cluster": {"actors": 2}, "search": {"seed": 7}}, concurrency=1, failures=0)
    assert states(tmp_path, other) == ["waiting"] * 4


def test_another_sweep_is_refused_with_what_differs(tmp_path: Path) -> None:
    begin(tmp_path, sweep())
    with pytest.raises(RunError) as caught, opened(str(tmp_path), sweep(seeds=3)):
        pass
    assert "holds another sweep: seeds is 0+1+2, there it is 0+1" in str(caught.value)
    with pytest.raises(RunError, match=r"base\.search\.budget is 80, there it is not given"):
        states(tmp_path, sweep(base={"search": {"budget": 80}}))


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        (
            {"wide": {"ensemble": {"clip_ratio": 0.3}}},
            {"plain": {}},
            "plain is {}, there it is not",
        ),
        ({"plain": {}}, {"wide": {"search": {"budget": 8}}}, "plain is not given, there it is {}"),
    ],
)
def test_a_case_that_changes_nothing_is_a_difference_all_the_same(
    then: dict[str, Any], now: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with opened(str(tmp_path), sweep(space={"way": {"cases": then}})) as (manifest, _):
        manifest.write()
    with pytest.raises(RunError) as caught:
        states(
            tmp_path, sweep(space={"way": {"cases": {**then, **now} if "wide" in then else now}})
        )
    assert words in str(caught.value)


def test_null_is_not_what_was_not_given(tmp_path: Path) -> None:
    begin(tmp_path, sweep(base={"task": {"name": "agnews"}}))
    with pytest.raises(RunError, match=r"base\.task\.verbalizer is null, there it is not given"):
        states(tmp_path, sweep(base={"task": {"name": "agnews", "verbalizer": None}}))


def test_a_setting_of_sweeps_that_came_later_is_no_difference(tmp_path: Path) -> None:
    begin(tmp_path, sweep())
    file = tmp_path / "sweep.yaml"
    before = yaml.safe_load(file.read_text())
    assert before.pop("asha") is None
    file.write_text(yaml.safe_dump(before))
    assert states(tmp_path, sweep()) == ["waiting"] * 4


def test_two_sweeps_do_not_write_one_folder(tmp_path: Path) -> None:
    with (
        opened(str(tmp_path), sweep()),
        pytest.raises(HeldError, match=r"is being written by another sweep; .* with --into"),
        opened(str(tmp_path), sweep()),
    ):
        pass


def test_a_run_is_no_sweep(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    with pytest.raises(RunError, match="holds a run, not a sweep"), opened(str(tmp_path), sweep()):
        pass


@pytest.mark.parametrize("content", ["{", "[]", '{"trials": [{"nom": 1}]}'])
def test_a_damaged_manifest_is_said(tmp_path: Path, content: str) -> None:
    begin(tmp_path, sweep())
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(RunError, match="is damaged"), opened(str(tmp_path), sweep()):
        pass


# A sweep that grows


def methods(*names: str, seeds: Sequence[int] = (0,), **more: Any) -> Sweep:
    cases = {
        name: {"ensemble": {"clip_ratio": float(f"0.{at + 1}")}} for at, name in enumerate(names)
    }
    return Sweep.model_validate(
        {"space": {"method": {"cases": cases}}, "seeds": list(seeds), **more}
    )


def grow(folder: Path, asked: Sweep) -> dict[str, str]:
    """Its trials and their states."""
    with grown(str(folder), asked) as manifest:
        manifest.write()
        return {entry.name: entry.state for entry in manifest.entries}


def test_a_grown_sweep_keeps_what_is_done_and_runs_what_is_asked_for_now(tmp_path: Path) -> None:
    assert grow(tmp_path, methods("a", "b")) == {
        "method-a-seed-0": "waiting",
        "method-b-seed-0": "waiting",
    }
    finish(tmp_path, "method-a-seed-0")
    assert grow(tmp_path, methods("a", "b", "c", seeds=[0, 7])) == {
        "method-a-seed-0": "done",
        "method-a-seed-7": "waiting",
        "method-b-seed-0": "waiting",
        "method-b-seed-7": "waiting",
        "method-c-seed-0": "waiting",
        "method-c-seed-7": "waiting",
    }
    assert grow(tmp_path, methods("a", seeds=[7])) == {
        "method-a-seed-0": "done",
        "method-a-seed-7": "waiting",
    }


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (methods("b"), "method.b is {'ensemble': {'clip_ratio': 0.1}}, there it is {'ensemble"),
        (methods("a", base={"search": {"budget": 80}}), "base.search.budget is 80"),
        (sweep(), "space.ensemble.clip_ratio is in one of them only"),
    ],
)
def test_what_a_grown_sweep_already_says_does_not_change(
    other: Sweep, words: str, tmp_path: Path
) -> None:
    grow(tmp_path, methods("a", "b"))
    with pytest.raises(RunError) as caught:
        grow(tmp_path, other)
    assert words in str(caught.value)
    assert "--into" in str(caught.value)


def test_a_sweep_beside_it_whose_settings_are_of_another_version_is_passed_over(
    tmp_path: Path,
) -> None:
    beside = Sweep.model_validate(
        {"space": {"method": {"cases": {"a": {"ensemble": {"clip_ratio": 0.1}}}}}, "seeds": [0]}
    )
    grow(tmp_path / "beside", beside)
    finish(tmp_path / "beside", "method-a-seed-0")
    (tmp_path / "beside" / "trials" / "method-a-seed-0" / "config.yaml").touch()
    file = tmp_path / "beside" / "sweep.yaml"
    file.write_text(file.read_text().replace("clip_ratio", "no_setting"))
    with grown(str(tmp_path / "here"), methods("a"), [str(tmp_path / "beside")]) as manifest:
        assert [entry.state for entry in manifest.entries] == ["waiting"]
