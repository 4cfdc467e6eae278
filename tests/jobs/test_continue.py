"""`--continue`: one command that begins a search, or goes on with it, as often as it is given."""

import fcntl
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

import pytest
import tiny
import yaml
from command import cliptune_here
from no_ray import without_ray
from runs import Killed, journal_bytes, killed_at

from cliptune.lease import LEASE_SECONDS
from cluster.session import BETWEEN_TRIES

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


def test_a_run_in_the_home_folder(
    file: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(whole.parent))
    monkeypatch.chdir(tmp_path)
    words = ("search", str(file), "run_dir=~/run", "--continue", "--quiet")
    assert cliptune_here(*words).returncode == 0
    assert list(tmp_path.iterdir()) == []  # no other search has begun, in a folder named ~


class Clock:
    """Time that passes only where a search sleeps, and what happens from some moment on."""

    def __init__(self, moment: float, happens: Callable[[], None]) -> None:
        self.now, self._moment, self._happens = 0.0, moment, happens

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self._moment:
            self._happens()


@contextmanager
def held(run: Path, until: float) -> Iterator[Clock]:
    """The run is another's until that moment."""
    descriptor = os.open(run, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    clock = Clock(until, lambda: fcntl.flock(descriptor, fcntl.LOCK_UN))
    try:
        with patch("cluster.session.time", clock):
            yield clock
    finally:
        os.close(descriptor)


def test_it_waits_for_another_search_to_let_go(file: Path, whole: Path) -> None:
    with held(whole, until=2 * BETWEEN_TRIES) as clock:
        done = cliptune_here("search", str(file), f"run_dir={whole}", "--continue")
    assert done.returncode == 0
    assert done.stdout.count(f"Waiting for the search that holds {whole}") == 1
    assert clock.now == 2 * BETWEEN_TRIES


def test_it_does_not_wait_for_ever(file: Path, whole: Path) -> None:
    """Only until one that died would have lost its hold."""
    with held(whole, until=math.inf) as clock:
        refused(go(file, whole), "is being written by another search")
    assert LEASE_SECONDS < clock.now < 2 * LEASE_SECONDS
