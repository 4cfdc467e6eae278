"""`--continue`: one command that begins a search, or goes on with it, as often as it is given."""

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import tiny
import yaml
from command import cliptune_here
from no_ray import without_ray
from runs import Killed, journal_bytes, killed_at

pytestmark = pytest.mark.usefixtures("no_ray")


@pytest.fixture(scope="module")
def file(model_dir: Path, task_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("user") / "tiny.yaml"
    tree = tiny.tree(model_dir, task_dir, cluster={"actors": 1}, model={"dtype": "auto"})
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return file


def go(file: Path, run: Path, *words: str) -> CompletedProcess[str]:
    return cliptune_here("search", str(file), f"run_dir={run}", "--continue", "--quiet", *words)


def journal(file: Path, run: Path, *words: str) -> dict[str, bytes]:
    done = go(file, run, *words)
    assert (done.returncode, done.stderr) == (0, "")
    return journal_bytes(run)


def refused(done: CompletedProcess[str], *parts: str) -> None:
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    for part in parts:
        assert part in line


@pytest.fixture(scope="module")
def whole(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was begun that way and that nothing happened to."""
    run = tmp_path_factory.mktemp("whole") / "run"
    with without_ray():
        assert len(journal(file, run)) == 3
    return run


@pytest.mark.parametrize("write", [1, 2, 3, 5, 9, 10])
def test_the_same_command_again_after_a_kill_ends_with_the_same_journal(
    write: int, file: Path, whole: Path, tmp_path: Path
) -> None:
    """Whether it was killed while it loaded, searched or wrote its result."""
    run = tmp_path / "run"
    with pytest.raises(Killed), killed_at(write):
        go(file, run)
    assert journal(file, run) == journal_bytes(whole)


def test_a_finished_search_is_left_as_it_is(file: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    assert journal(file, run) == journal_bytes(whole)


def test_a_larger_budget_takes_it_further(file: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    assert len(journal(file, run, "search.budget=16")) == 4


def test_another_search_is_refused_by_what_differs(file: Path, whole: Path) -> None:
    before = journal_bytes(whole)
    refused(go(file, whole, "search.seed=1"), "search.seed is 1, the run's is 0")
    assert journal_bytes(whole) == before


def test_a_setting_that_went_back_to_its_default_is_another_search_too(
    file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    journal(file, run, "search.seed=1")
    refused(go(file, run), "search.seed is 0, the run's is 1")


def test_what_was_on_auto_may_be_on_auto_again(file: Path, whole: Path) -> None:
    assert yaml.safe_load((whole / "config.yaml").read_text())["model"]["dtype"] != "auto"
    assert go(file, whole, "model.dtype=auto").returncode == 0


def test_it_needs_a_run_directory_and_no_resume(file: Path, tmp_path: Path) -> None:
    refused(cliptune_here("search", str(file), "--continue"), "--continue needs run_dir")
    refused(go(file, tmp_path / "run", "--resume", "other"), "Give one of them")


def test_a_folder_with_something_else_in_it_is_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    refused(go(file, tmp_path), "is not empty")


def test_a_run_in_the_home_folder(file: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(whole.parent))
    words = ("search", str(file), "run_dir=~/run", "--continue", "--quiet")
    assert cliptune_here(*words).returncode == 0


@contextmanager
def held(run: Path, seconds: float) -> Iterator[None]:
    """The run is another's for a while."""
    descriptor = os.open(run, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    timer = threading.Timer(seconds, os.close, [descriptor])
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_it_waits_for_another_search_to_let_go(
    file: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.session.BETWEEN_TRIES", 0.1)
    with held(whole, 1.0):
        began = time.monotonic()
        words = ("search", str(file), f"run_dir={whole}", "--continue")
        done = cliptune_here(*words)
        assert time.monotonic() - began > 0.5
    assert done.returncode == 0
    assert done.stdout.count(f"Waiting for the search that holds {whole}") == 1


def test_it_does_not_wait_for_ever(
    file: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.session.BETWEEN_TRIES", 0.1)
    monkeypatch.setattr("jobs.search.LEASE_SECONDS", 0.2)
    with held(whole, 2.0):
        refused(go(file, whole), "is being written by another search")
