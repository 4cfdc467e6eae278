"""Resume: a search that was interrupted anywhere ends as if it never had been."""

import errno
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import fsspec
import numpy as np
import pytest
import tiny
from runs import (
    Killed,
    Listener,
    journal_bytes,
    killed_at,
    plain,
    rows,
    run,
    timeless,
    tree_bytes,
)
from safetensors.numpy import load_file, save_file

from cliptune.config import Config
from cliptune.errors import RunError, ScorerError
from cliptune.loop import search
from cliptune.run import read_run
from cliptune.storage import open_folder

BUDGET = {"budget": 24}  # three generations
BEFORE = 3  # writes until a search has begun: its config twice, its origin
WRITES = BEFORE + 2 * 3 + 3  # journal and telemetry a generation; prompt, card and result
SEARCHES = pytest.mark.parametrize(
    ("method", "mode"),
    [(method, mode) for method in ("cma-es", "random") for mode in ("static", "dynamic", "none")],
)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine loses its power here; that files are flushed is tested in test_storage.py."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def lasting(run_dir: Path) -> dict[str, bytes]:
    """What a finished run has in common with its equals: all but places and times."""
    files = tree_bytes(run_dir)
    varying = {"config.yaml", "result.json", *(name for name in files if "telemetry" in name)}
    assert varying <= set(files)
    return {name: content for name, content in files.items() if name not in varying}


# Interrupted


@SEARCHES
def test_a_search_killed_at_any_write_ends_as_if_it_never_had_been(
    method: str, mode: str, tmp_path: Path
) -> None:
    sections: dict[str, Any] = {"search": {**BUDGET, "method": method}, "ensemble": {"mode": mode}}
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


@SEARCHES
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


@SEARCHES
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
    message = r"^search\.budget is 16, but the run has already scored 24 prompts; give at least"
    with pytest.raises(RunError, match=message):
        run(plain(tmp_path / "run", search={"budget": 16}), resume=True)
    assert tree_bytes(tmp_path / "run") == before


# Another search


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("task.template", "{text} {mask}"),
        ("task.label_words", ["awful", "great"]),
        ("model.dtype", "bfloat16"),
        ("prompt.length", 4),
        ("prompt.dimension", 6),
        ("ensemble.clip_ratio", 0.2),
        ("ensemble.mixer", "median"),
        ("search.population", 4),
        ("search.method", "random"),
        ("search.selection", "accuracy"),
        ("search.sigma", 0.5),
        ("search.seed", 1),
    ],
)
def test_another_search_is_refused_and_nothing_is_touched(
    setting: str, value: Any, tmp_path: Path
) -> None:
    run(plain(tmp_path / "run", search=BUDGET))
    before = tree_bytes(tmp_path / "run")
    section, name = setting.split(".")
    other = plain(tmp_path / "run", **{section: {name: value}})
    with pytest.raises(RunError, match=rf"with another search: .*{setting} is .*the run's is "):
        run(other, resume=True)
    assert tree_bytes(tmp_path / "run") == before
    assert other.usage.forward_passes == 0


@pytest.mark.parametrize("what", ["train", "validation", "test", "model", "prompt"])
def test_other_data_or_another_model_or_prompt_is_refused(what: str, tmp_path: Path) -> None:
    file = tmp_path / "prompt.safetensors"
    save_file({"prompt": np.zeros((3, 4), np.float32)}, file)
    prompt = {"init": "file", "file": str(file)}
    scorer = plain(tmp_path / "run", search=BUDGET, prompt=prompt)
    run(scorer)
    expected = {"model": r"model\.name has other weights", "prompt": r"prompt\.file has another"}
    if what == "prompt":
        save_file({"prompt": np.ones((3, 4), np.float32)}, file)
    elif what == "model":
        facts = {**vars(scorer.facts()), "sha256": "1" * 64}
        vars(scorer)["facts"] = lambda: type(tiny.PlainScorer(scorer.config).facts())(**facts)
    else:
        splits = {**scorer.task.splits, what: tiny.task(8)[what]}
        scorer.task = type(scorer.task)(
            "tiny", scorer.task.template, scorer.task.label_words, splits
        )
    message = expected.get(what, rf"task\.data has other {what} examples")
    with pytest.raises(RunError, match=message):
        run(scorer, resume=True)


def test_a_run_may_move_with_its_data_and_its_model(tmp_path: Path) -> None:
    expected = timeless(run(plain(tmp_path / "whole", search=BUDGET)))
    with pytest.raises(Killed), killed_at(BEFORE + 4):
        run(plain(tmp_path / "run", search=BUDGET))
    shutil.move(tmp_path / "run", tmp_path / "else" / "where")
    moved = {"task": {"data": "moved"}, "model": {"name": "moved"}}
    place = tmp_path / "else" / "where"
    result = run(plain(place, search=BUDGET, **moved), resume=True)
    assert result.run_dir == str(place)
    assert timeless(result) == expected
    assert lasting(place) == lasting(tmp_path / "whole")
    assert read_run(Config, str(place)).config.task.data == "moved"


def test_a_run_of_a_cliptune_that_knew_fewer_settings_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cliptune import run as module

    def older(*arguments: Any) -> dict[str, Any]:
        found = real(*arguments)
        assert found["config"]["task"].pop("max_tokens") is None
        return found

    real = module.identity
    with monkeypatch.context() as past:
        past.setattr(module, "identity", older)
        run(plain(tmp_path / "run", search=BUDGET))
    run(plain(tmp_path / "run", search={"budget": 40}), resume=True)
    assert len(read_run(Config, str(tmp_path / "run")).generations) == 5


# Damage


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:99] + bytes([content[99] ^ 1]) + content[100:],
    ],
    ids=["empty", "half", "flipped"],
)
def test_a_damaged_last_file_is_set_aside_and_searched_again(
    damage: Callable[[bytes], bytes], finished: bool, tmp_path: Path
) -> None:
    expected = timeless(run(plain(tmp_path / "whole", search=BUDGET)))
    scorer = plain(tmp_path / "run", search=BUDGET)
    if finished:
        run(scorer)
    else:
        with pytest.raises(Killed), killed_at(BEFORE + 4):
            run(scorer)
    for _ in range(2):  # and if it happens again
        last = sorted((tmp_path / "run" / "journal").glob("*.arrow"))[-1]
        damaged = damage(last.read_bytes())
        last.write_bytes(damaged)
        listener = Listener()
        result = run(scorer, listener, resume=True)
        assert timeless(result) == expected
        assert journal_bytes(tmp_path / "run") == journal_bytes(tmp_path / "whole")
        aside = last.with_name(f"{last.name}.damaged")
        assert aside.read_bytes() == damaged
        assert listener.warnings == [
            f"The journal's last file was damaged, is now {aside}, and is searched again."
        ]


def test_the_only_file_may_be_the_damaged_one(tmp_path: Path) -> None:
    expected = timeless(run(plain(tmp_path / "whole", search=BUDGET)))
    scorer = plain(tmp_path / "run", search=BUDGET)
    with pytest.raises(Killed), killed_at(BEFORE + 1):
        run(scorer)
    (tmp_path / "run" / "journal" / "000000.arrow").write_bytes(b"half")
    listener = Listener()
    assert timeless(run(scorer, listener, resume=True)) == expected
    assert len(listener.warnings) == 1
    assert listener.resumptions == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.write_bytes(b""), r"000001\.arrow is damaged"),
        (lambda file: file.unlink(), r"000001\.arrow is missing; the journal goes on with 000002"),
        (lambda file: file.rename(file.with_name("0.arrow")), r"000000\.arrow is missing"),
        (
            lambda file: shutil.copy(file.with_name("000000.arrow"), file),
            r"000001\.arrow does not follow",
        ),
    ],
    ids=["damaged", "missing", "renamed", "copied"],
)
def test_damage_further_back_is_an_error_and_nothing_is_touched(
    change: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    scorer = plain(tmp_path / "run", search=BUDGET)
    run(scorer)
    change(tmp_path / "run" / "journal" / "000001.arrow")
    before = tree_bytes(tmp_path / "run")
    with pytest.raises(RunError, match=message):
        run(scorer, resume=True)
    assert tree_bytes(tmp_path / "run") == before


def test_another_runs_journal_is_refused(tmp_path: Path) -> None:
    for name, seed in (("run", 0), ("other", 1)):
        run(plain(tmp_path / name, search={**BUDGET, "seed": seed}))
    shutil.rmtree(tmp_path / "run" / "journal")
    shutil.copytree(tmp_path / "other" / "journal", tmp_path / "run" / "journal")
    with pytest.raises(RunError, match=r"000000\.arrow does not follow .*another search's"):
        run(plain(tmp_path / "run", search=BUDGET), resume=True)


# Two at a time


def test_two_searches_never_write_one_run(tmp_path: Path) -> None:
    refused = []

    class Second(Listener):
        def generation(self, progress: Any) -> None:
            super().generation(progress)
            for resume in (True, False):
                with pytest.raises(RunError, match="is being written by another search") as caught:
                    run(plain(tmp_path / "run", search=BUDGET), resume=resume)
                refused.append(str(caught.value))

    result = run(plain(tmp_path / "run", search=BUDGET), Second())
    assert len(refused) == 6
    assert timeless(result) == timeless(run(plain(tmp_path / "whole", search=BUDGET)))


HOLDER = """
import sys
from cliptune.config import Config, validate
from cliptune.run import opened, read_config
with opened(validate(Config, read_config(sys.argv[1])), resume=True):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_held_can_be_gone_on_with_at_once(tmp_path: Path) -> None:
    expected = timeless(run(plain(tmp_path / "whole", search=BUDGET)))
    scorer = plain(tmp_path / "run", search=BUDGET)
    with pytest.raises(Killed), killed_at(BEFORE + 4):
        run(scorer)
    words = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="is being written by another search"):
            run(scorer, resume=True)
        process.kill()
    assert timeless(run(scorer, resume=True)) == expected
    assert lasting(tmp_path / "run") == lasting(tmp_path / "whole")


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
