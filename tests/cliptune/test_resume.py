"""Resume: a search that was interrupted anywhere ends as if it never had been."""

import errno
import os
import uuid
from pathlib import Path
from typing import Any, NoReturn

import fsspec
import numpy as np
import pytest
import tiny
from runs import (
    BEFORE,
    BUDGET,
    WRITES,
    Killed,
    Listener,
    journal_bytes,
    killed_at,
    lasting,
    plain,
    rows,
    run,
    timeless,
    tree_bytes,
)
from safetensors.numpy import load_file

from cliptune.config import Config
from cliptune.errors import RunError, ScorerError
from cliptune.loop import search
from cliptune.record import read_run
from cliptune.storage import open_folder


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine loses its power here; that files are flushed is tested in test_storage.py."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


# Interrupted


@pytest.mark.parametrize(
    ("calibrate", "method", "mode"),
    [
        (False, "cma-es", "static"),
        (False, "cma-es", "dynamic"),
        (True, "random", "dynamic"),
        (True, "random", "none"),
    ],
)
def test_a_search_killed_at_any_write_ends_as_if_it_never_had_been(
    calibrate: bool, method: str, mode: str, tmp_path: Path
) -> None:
    sections: dict[str, Any] = {
        "search": {**BUDGET, "method": method, "calibrate": calibrate},
        "ensemble": {"mode": mode},
    }
    expected = timeless(run(plain(tmp_path / "whole", **sections)))
    for write in range(1, WRITES):
        scorer = plain(tmp_path / str(write), **sections)
        amid = write % 2 == (mode == "dynamic")  # half of it on the disk, or nothing
        with pytest.raises(Killed), killed_at(write, amid=amid):
            run(scorer)
        assert len(rows(tmp_path / str(write))) == min(3, max(0, (write - BEFORE + 1) // 2))
        result = run(plain(tmp_path / str(write), **sections), resume=True)
        assert timeless(result) == expected
        found = {k: v for k, v in lasting(tmp_path / str(write)).items() if k[-4:] != ".tmp"}
        assert found == lasting(tmp_path / "whole")


def test_the_number_of_writes_is_the_one_that_is_tried(tmp_path: Path) -> None:
    with killed_at(WRITES):
        run(plain(tmp_path / "run", search=BUDGET))


def test_a_search_killed_before_its_config_can_only_begin_anew(tmp_path: Path) -> None:
    scorer = plain(tmp_path / "run", search=BUDGET)
    with pytest.raises(Killed), killed_at(0):
        run(scorer)
    with pytest.raises(RunError, match=r"there is no config\.yaml"):
        run(scorer, resume=True)
    run(scorer)


@pytest.mark.parametrize(("method", "mode"), [("cma-es", "static"), ("random", "dynamic")])
@pytest.mark.parametrize("when", ["score", "validate", "evaluate"])
def test_a_search_whose_scorer_fails_goes_on_later(
    method: str, mode: str, when: str, tmp_path: Path
) -> None:
    """As an actor does that cannot be replaced, or a machine that is switched off."""

    class Failing(tiny.PlainScorer):
        def score(self, latents: Any, generation: int = 0) -> Any:
            if generation == 2 and when == "score":
                raise ScorerError("The third generation fails.")
            self.generation = generation
            return super().score(latents, generation)

        def class_scores(self, latents: Any, split: str, subnetworks: Any) -> Any:
            if (when, split) == ("evaluate", "test") or (
                (when, split) == ("validate", "validation")
                and latents is not None
                and self.generation == 1
            ):
                raise ScorerError("It fails.")
            return super().class_scores(latents, split, subnetworks)

    sections: dict[str, Any] = {"search": {**BUDGET, "method": method}, "ensemble": {"mode": mode}}
    expected = timeless(run(plain(tmp_path / "whole", **sections)))
    scorer = plain(tmp_path / "run", **sections)
    with pytest.raises(ScorerError):
        run(Failing(scorer.config))
    assert len(rows(tmp_path / "run")) == {"score": 2, "validate": 1, "evaluate": 3}[when]
    assert timeless(run(scorer, resume=True)) == expected
    assert journal_bytes(tmp_path / "run") == journal_bytes(tmp_path / "whole")


def test_a_search_killed_again_and_again_gets_there(tmp_path: Path) -> None:
    expected = timeless(run(plain(tmp_path / "whole", search={"budget": 64})))
    scorer = plain(tmp_path / "run", search={"budget": 64})
    with pytest.raises(Killed), killed_at(BEFORE + 1):
        run(scorer)
    for generations in range(2, 9):  # each session writes its config and one generation
        with pytest.raises(Killed), killed_at(2):
            run(scorer, resume=True)
        assert len(rows(tmp_path / "run")) == generations
    assert timeless(run(scorer, resume=True)) == expected
    assert journal_bytes(tmp_path / "run") == journal_bytes(tmp_path / "whole")


def test_a_full_disk_loses_nothing_that_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = timeless(run(plain(tmp_path / "whole", search=BUDGET)))
    for number in range(2 * BEFORE, 2 * WRITES):  # a file's and its folder's, a write
        scorer = plain(tmp_path / str(number), search=BUDGET)
        left = iter([False] * number)

        def full(descriptor: int, left: Any = left) -> None:
            if next(left, True):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch, pytest.raises(RunError, match="No space left"):
            patch.setattr(os, "fsync", full)
            run(scorer)
        assert timeless(run(scorer, resume=True)) == expected
        assert lasting(tmp_path / str(number)) == lasting(tmp_path / "whole")


def test_a_disk_that_is_full_from_the_start_keeps_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"config\.yaml cannot be written: No space left"):
        run(plain(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


# What is told, and what is done again


def test_only_what_is_missing_is_searched(tmp_path: Path) -> None:
    asked = []

    class Noting(tiny.PlainScorer):
        def score(self, latents: Any, generation: int = 0) -> Any:
            asked.append(generation)
            return super().score(latents, generation)

    scorer = plain(tmp_path / "run", search={"budget": 40})
    with pytest.raises(Killed), killed_at(BEFORE + 6):
        run(scorer)
    listener = Listener()
    run(Noting(scorer.config), listener, resume=True)
    assert asked == [3, 4]
    assert [progress.generation.number for progress in listener.progress] == [3, 4]
    assert [progress.prompts_scored for progress in listener.progress] == [32, 40]
    assert {progress.generations for progress in listener.progress} == {5}


def test_the_observer_is_told_where_the_search_goes_on(tmp_path: Path) -> None:
    whole = Listener()
    run(plain(tmp_path / "whole", search={"budget": 40}), whole)
    scorer = plain(tmp_path / "run", search={"budget": 40})
    with pytest.raises(Killed), killed_at(BEFORE + 6):
        run(scorer)
    listener = Listener()
    run(scorer, listener, resume=True)
    [(generations, best)] = listener.resumptions
    assert generations == 3
    assert best.number == whole.progress[2].best.number
    assert listener.places == [str(tmp_path / "run")]
    assert listener.phases == [
        "Replaying 3 generations",
        "Evaluating the prompt on all splits",
    ]
    assert listener.warnings == []
    assert [progress.best.number for progress in listener.progress] == [
        progress.best.number for progress in whole.progress[3:]
    ]


def test_a_finished_search_only_ends_again(tmp_path: Path) -> None:
    scorer = plain(tmp_path / "run", search=BUDGET)
    first = run(scorer)
    before = lasting(tmp_path / "run")
    telemetry = rows(tmp_path / "run", "telemetry")
    listener = Listener()
    assert timeless(run(plain(tmp_path / "run", search=BUDGET), listener, resume=True)) == timeless(
        first
    )
    assert listener.progress == []
    assert lasting(tmp_path / "run") == before
    assert rows(tmp_path / "run", "telemetry") == telemetry


# A larger budget


@pytest.mark.parametrize("mode", ["static", "dynamic", "none"])
@pytest.mark.parametrize("method", ["cma-es", "random"])
def test_an_extended_search_equals_the_one_that_had_the_budget_at_once(
    method: str, mode: str, tmp_path: Path
) -> None:
    def sections(**limits: Any) -> dict[str, Any]:
        return {"search": {"method": method, **limits}, "ensemble": {"mode": mode}}

    run(plain(tmp_path / "run", **sections(budget=24)))
    extended = run(plain(tmp_path / "run", **sections(budget=64)), resume=True)
    at_once = run(plain(tmp_path / "whole", **sections(budget=64)))
    assert timeless(extended) == timeless(at_once)
    assert lasting(tmp_path / "run") == lasting(tmp_path / "whole")
    assert read_run(Config, str(tmp_path / "run")).config.search.budget == 64


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"patience": 1}, {}),
        ({"max_forward_passes": 3 * 8 * 3 * 6}, {}),
        ({"budget": None, "max_seconds": 1e-9}, {"budget": 160}),
        ({"budget": 30}, {"budget": 160, "max_forward_passes": 9 * 8 * 3 * 6 + 1}),
        ({"budget": 30}, {"budget": None, "max_forward_passes": 9 * 8 * 3 * 6 + 1}),
    ],
)
def test_any_limit_may_be_lifted_or_set(
    first: dict[str, Any], then: dict[str, Any], tmp_path: Path
) -> None:
    run(plain(tmp_path / "run", search=first))
    assert 0 < len(rows(tmp_path / "run")) < 9
    extended = run(plain(tmp_path / "run", search=then), resume=True)
    at_once = run(plain(tmp_path / "whole", search=then))
    assert timeless(extended) == timeless(at_once)
    assert journal_bytes(tmp_path / "run") == journal_bytes(tmp_path / "whole")


def test_a_smaller_budget_is_refused_by_its_name(tmp_path: Path) -> None:
    run(plain(tmp_path / "run", search=BUDGET))
    before = tree_bytes(tmp_path / "run")
    message = r"search\.budget .* ended after 2 generations \(the budget of 16 .* run has 3 already"
    with pytest.raises(RunError, match=message):
        run(plain(tmp_path / "run", search={"budget": 16}), resume=True)
    assert tree_bytes(tmp_path / "run") == before


# Elsewhere


def test_a_search_on_a_remote_folder_equals_one_here(tmp_path: Path) -> None:
    expected = timeless(run(plain(tmp_path / "whole", search={"budget": 40})))
    place = f"memory://{uuid.uuid4()}/run"
    folder = open_folder(place)
    with pytest.raises(RunError, match=r"there is no config\.yaml in it"):
        run(plain(place), resume=True)
    run(plain(place, search=BUDGET))
    with pytest.raises(RunError, match="is not empty"):
        run(plain(place, search=BUDGET))
    folder.write("journal/000002.arrow", folder.read("journal/000002.arrow")[:-9])
    listener = Listener()
    assert timeless(run(plain(place, search={"budget": 40}), listener, resume=True)) == expected
    assert listener.warnings[0].startswith("The journal's last file was damaged, is now memory://")
    found = {name: folder.read(f"journal/{name}") for name in folder.names("journal")}
    assert found.pop("000002.arrow.damaged")
    assert found == journal_bytes(tmp_path / "whole")
    assert "lock.json" not in folder.names()
    record = read_run(Config, place)
    assert record.config.run_dir == place
    assert len(record.generations) == len(record.telemetry) == 5
    fsspec.filesystem("memory").rm(place, recursive=True)


# With a model


def test_a_search_with_a_model_goes_on_to_the_same_bytes(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    whole = search(tiny.config(model_dir, task_dir, tmp_path / "whole"))
    config = tiny.config(model_dir, task_dir, tmp_path / "run")
    with pytest.raises(Killed), killed_at(BEFORE + 4):
        search(config)
    assert timeless(search(config, resume=True)) == timeless(whole)
    assert journal_bytes(tmp_path / "run") == journal_bytes(tmp_path / "whole")
    prompts = [load_file(tmp_path / name / "prompt.safetensors") for name in ("run", "whole")]
    assert np.array_equal(prompts[0]["prompt"], prompts[1]["prompt"])
