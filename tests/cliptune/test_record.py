"""Reading a run directory: finished, unfinished, moved, damaged, or none at all."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import tiny
import yaml

from cliptune.config import Config, validate
from cliptune.errors import RunError
from cliptune.record import check_resumable, read_config, read_run
from cliptune.run import opened
from cliptune.storage import open_folder

OLD_RUN = str(Path(__file__).parents[1] / "data" / "run-schema-1")


def started(run_dir: Path) -> Path:
    """A run that has begun and searched nothing."""
    with pytest.raises(runs.Killed), runs.killed_at(runs.BEFORE):
        runs.run(runs.plain(run_dir))
    return run_dir


def finished(run_dir: Path) -> Path:
    """A run of one generation."""
    runs.run(runs.plain(run_dir, search={"budget": 8}))
    return run_dir


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    listener = runs.Listener()
    scorer = runs.plain(tmp_path / "run", search={"budget": 32})
    result = runs.run(scorer, listener)
    record = read_run(Config, str(tmp_path / "run"))
    assert record.path == str(tmp_path / "run")
    assert record.config == scorer.config
    assert record.facts == scorer.facts()
    assert [found.number for found in record.generations] == [0, 1, 2, 3]
    for found, progress in zip(record.generations, listener.progress, strict=True):
        assert np.array_equal(found.latents, progress.generation.latents)
        assert found.validation == progress.generation.validation
    assert record.telemetry == [progress.telemetry for progress in listener.progress]
    assert record.best is not None
    assert record.best.number == result.generation
    assert record.result is not None
    assert record.result["stopped"] == result.stopped


def test_a_run_that_goes_on_is_read_without_holding_it(tmp_path: Path) -> None:
    seen = []

    class Reading(runs.Listener):
        def generation(self, progress: Any) -> None:
            record = read_run(Config, str(tmp_path / "run"))
            assert record.result is None
            seen.append(len(record.generations))

    runs.run(runs.plain(tmp_path / "run", search={"budget": 24}), Reading())
    assert seen == [1, 2, 3]


def test_a_run_without_a_generation_has_no_best(tmp_path: Path) -> None:
    record = read_run(Config, str(started(tmp_path / "run")))
    assert record.best is None
    assert record.generations == record.telemetry == []


def test_a_damaged_last_file_is_not_read_and_not_moved(tmp_path: Path) -> None:
    runs.run(runs.plain(tmp_path / "run", search={"budget": 24}))
    (tmp_path / "run" / "journal" / "000002.arrow").write_bytes(b"half")
    assert len(read_run(Config, str(tmp_path / "run")).generations) == 2
    assert names(tmp_path / "run" / "journal") == {f"00000{i}.arrow" for i in range(3)}


def test_a_run_that_was_moved_is_where_it_is_now(tmp_path: Path) -> None:
    started(tmp_path / "old").rename(tmp_path / "new")
    record = read_run(Config, str(tmp_path / "new"))
    assert record.path == record.config.run_dir == str(tmp_path / "new")


@pytest.mark.parametrize("name", ["", "missing", "file"])
def test_what_is_no_run_directory_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    place = str(tmp_path / name)
    for call in (lambda: read_run(Config, place), lambda: read_config(place)):
        with pytest.raises(RunError, match=r"is no run directory: there is no config\.yaml in it"):
            call()
    with (
        pytest.raises(RunError, match="is no run directory"),
        opened(runs.plain(place).config, resume=True),
    ):
        raise AssertionError("opened")
    assert names(tmp_path) == {"file"}


def test_resuming_needs_to_be_told_which_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(RunError, match="run_dir is needed"),
        opened(runs.plain(None).config, resume=True),
    ):
        raise AssertionError("opened")
    assert names(tmp_path) == set()


def test_a_run_of_schema_1_is_refused_by_its_version() -> None:
    before = runs.tree_bytes(Path(OLD_RUN))
    message = r"run-schema-1 has no origin\.json: an older cliptune wrote it, with journal schema "
    message += r"version 1, .*config\.yaml can be searched again, with a new run_dir\.$"
    for call in (
        lambda: read_run(Config, OLD_RUN),
        lambda: check_resumable(open_folder(OLD_RUN)),
        lambda: runs.run(runs.plain(OLD_RUN), resume=True),
    ):
        with pytest.raises(RunError, match=message):
            call()
    assert runs.tree_bytes(Path(OLD_RUN)) == before


def test_the_config_of_a_run_of_schema_1_can_be_searched_again(tmp_path: Path) -> None:
    tree = yaml.safe_load((Path(OLD_RUN) / "config.yaml").read_text(encoding="utf-8"))
    again = validate(Config, {**tree, "run_dir": str(tmp_path / "run")})
    assert runs.run(tiny.PlainScorer(again)).cost.prompts_scored == 12


def test_a_run_that_has_not_begun_says_so(tmp_path: Path) -> None:
    with pytest.raises(runs.Killed), runs.killed_at(1):
        runs.run(runs.plain(tmp_path / "run"))
    with pytest.raises(RunError, match=r"no origin\.json: its search has not begun"):
        read_run(Config, str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.yaml", b"task: [", r"config\.yaml is damaged: while parsing"),
        ("config.yaml", b"\xff\xfe\x00", r"config\.yaml is damaged: "),
        ("config.yaml", b"", r"config\.yaml is damaged: expected settings, found None\."),
        ("origin.json", b"", r"origin\.json is damaged: "),
        ("origin.json", b"[]", r"origin\.json is damaged: expected an object\."),
        ("origin.json", b"{}", r"origin\.json is not one of cliptune's: 'facts'\."),
        ("origin.json", b'{"facts": {"a": 1}}', r"origin\.json is not one of cliptune's: "),
        ("result.json", b"{", r"result\.json is damaged: "),
        ("result.json", b"\xff", r"result\.json is damaged: "),
    ],
)
def test_a_damaged_file_is_named_in_one_sentence(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (finished(tmp_path / "run") / name).write_bytes(content)
    with pytest.raises(RunError, match=message) as caught:
        read_run(Config, str(tmp_path / "run"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("labels", ["no", ["no"], ["no", 1.5], ["no", "yes", "perhaps"], {"no": 1}])
def test_values_of_a_label_column_are_one_a_class(labels: Any, tmp_path: Path) -> None:
    file = finished(tmp_path / "run") / "origin.json"
    origin = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**origin, "labels": labels}), encoding="utf-8")
    with pytest.raises(RunError, match=r"expected labels, one of each class; found"):
        read_run(Config, str(tmp_path / "run"))
    del origin["labels"]  # as in older runs
    file.write_text(json.dumps(origin), encoding="utf-8")
    assert read_run(Config, str(tmp_path / "run")).label_values == (0, 1)


def test_an_origin_that_is_damaged_is_not_resumed_from(tmp_path: Path) -> None:
    (started(tmp_path / "run") / "origin.json").write_bytes(b"{}")
    with pytest.raises(RunError, match=r"origin\.json is damaged: it does not say what"):
        runs.run(runs.plain(tmp_path / "run"), resume=True)
