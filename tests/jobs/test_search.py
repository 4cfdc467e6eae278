"""`main(config, display)`: a display sees a search from its beginning to its end, whichever."""

import os
import signal
import sys
from pathlib import Path
from typing import Any, Self

import pytest
import tiny

from cliptune.config import validate
from cliptune.errors import TaskError
from cliptune.evaluation import ENSEMBLE, MANUAL, TUNED
from cliptune.observer import Progress
from cliptune.record import Result
from cluster.config import ClusterSearch
from jobs.display import Display
from jobs.search import main


class Recorder(Display):
    """Writes down what happens, in its order; presses Ctrl-C after a generation if told to."""

    def __init__(self, interrupted_at: int | None = None) -> None:
        super().__init__()
        self.events: list[str] = []
        self.results: list[Result] = []
        self._interrupted_at = interrupted_at

    def __enter__(self) -> Self:
        self.events.append("enter")
        return self

    def __exit__(self, *exception: object) -> None:
        self.events.append("exit")

    def phase(self, message: str) -> None:
        self.events.append(message.split()[0])

    def generation(self, progress: Progress) -> None:
        self.events.append(f"generation {progress.generation.number}")
        if progress.generation.number == self._interrupted_at:
            os.kill(os.getpid(), signal.SIGINT)

    def stopped(self) -> None:
        self.events.append("stopped")

    def result(self, result: Result) -> None:
        self.events.append("result")
        self.results.append(result)


def config(model_dir: Path, task_dir: Path, run_dir: Path) -> ClusterSearch:
    tree: dict[str, Any] = tiny.tree(model_dir, task_dir, run_dir, cluster={"actors": 1})
    return validate(ClusterSearch, tree)


def test_a_display_sees_every_generation_and_the_result(
    model_dir: Path, task_dir: Path, tmp_path: Path, one_ray: None
) -> None:
    display = Recorder()
    main(config(model_dir, task_dir, tmp_path / "run"), display)
    generations = [f"generation {number}" for number in range(3)]
    assert display.events == [
        *("enter", "Starting", "Loading"),
        *generations,
        *("Evaluating", "result", "exit"),
    ]
    (result,) = display.results
    assert result.run_dir == str(tmp_path / "run")
    assert [row.name for row in result.table] == [MANUAL, TUNED, ENSEMBLE]


def test_control_c_stops_with_its_exit_code_and_keeps_the_journal(
    model_dir: Path,
    task_dir: Path,
    tmp_path: Path,
    one_ray: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobs.signals.leave", sys.exit)  # which ends the process on the spot
    display = Recorder(interrupted_at=1)
    with pytest.raises(SystemExit) as caught:
        main(config(model_dir, task_dir, tmp_path / "run"), display)
    assert caught.value.code == 130
    assert display.events[-3:] == ["generation 1", "exit", "stopped"]
    journal = sorted(file.name for file in (tmp_path / "run" / "journal").iterdir())
    assert journal == ["000000.arrow", "000001.arrow"]


def test_the_display_ends_before_an_error_is_told(model_dir: Path, tmp_path: Path) -> None:
    display = Recorder()
    with pytest.raises(TaskError, match="no folder or file"):
        main(config(model_dir, tmp_path / "nothing", tmp_path / "run"), display)
    assert display.events == ["enter", "exit"]


def test_what_only_an_actor_finds_out_is_told_as_if_it_were_found_here(
    model_dir: Path, task_dir: Path, tmp_path: Path, one_ray: None
) -> None:
    tree = tiny.tree(model_dir, task_dir, tmp_path / "run", task={"template": "{text} ."})
    display = Recorder()
    with pytest.raises(TaskError, match=r"\{mask\}") as caught:
        main(validate(ClusterSearch, {**tree, "cluster": {"actors": 1}}), display)
    assert "\n" not in str(caught.value)
    assert display.events == ["enter", "Starting", "Loading", "exit"]
    assert not (tmp_path / "run").exists()
