"""Trackers get every figure once, and can neither end a search nor be half there."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import runs

from cliptune import trackers
from cliptune.errors import ConfigError
from cliptune.trackers import REFERENCES, TRACKERS, Figures, Tracker


class Book(Tracker):
    """Keeps what it is told; fails where it is told to."""

    package = "json"
    fails_at: int | None = None
    opened: list[tuple[int, str | None]]
    logged: list[tuple[int, Figures]]
    closed: list[bool]

    def open(
        self, run_dir: str, settings: Mapping[str, Any], generations: int, reference: str | None
    ) -> str:
        assert settings["search.population"] == 8
        self.opened.append((generations, reference))
        return "page 7"

    def log(self, generation: int, figures: Figures) -> None:
        if generation == self.fails_at:
            raise OSError("no route to host")
        self.logged.append((generation, figures))

    def close(self, *, finished: bool) -> None:
        self.closed.append(finished)


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> type[Book]:
    """A tracker that takes MLflow's place."""

    class Mine(Book):
        opened, logged, closed = [], [], []

    monkeypatch.setattr(trackers, "TRACKERS", {**TRACKERS, "mlflow": Mine})
    return Mine


def searched(place: Path, budget: int = 24, name: str = "mlflow", **more: Any) -> runs.Listener:
    """A search of 8 prompts a generation, tracked; what its own observer was told."""
    listener = runs.Listener()
    scorer = runs.plain(place, search={"budget": budget}, watch={"trackers": [name]})
    runs.run(scorer, listener, **more)
    return listener


def test_each_generation_is_logged_with_its_figures(tmp_path: Path, book: type[Book]) -> None:
    listener = searched(tmp_path / "run")
    assert [number for number, _ in book.logged] == [1, 2, 3, 3]  # the table comes last
    for (_, logged), progress in zip(book.logged, listener.progress, strict=False):
        assert logged["fitness/best"] == progress.generation.fitness.max()
        assert logged["prompts_scored"] == progress.prompts_scored
        assert logged["best_validation/loss"] == progress.best.validation.loss
    assert "accuracy/tuned_prompt/test" in book.logged[-1][1]
    assert book.closed == [True]


def test_a_search_that_goes_on_is_the_same_run_to_its_tracker(
    tmp_path: Path, book: type[Book]
) -> None:
    searched(tmp_path / "run")
    searched(tmp_path / "run", 32, resume=True)
    assert book.opened == [(0, None), (3, "page 7")]
    assert [number for number, _ in book.logged] == [1, 2, 3, 3, 4, 4]
    assert json.loads((tmp_path / "run" / REFERENCES).read_text()) == {"mlflow": "page 7"}


def test_a_tracker_that_fails_is_left_alone_and_the_search_is_the_same(
    tmp_path: Path, book: type[Book]
) -> None:
    book.fails_at = 2
    listener = searched(tmp_path / "run")
    assert [number for number, _ in book.logged] == [1]
    assert listener.warnings == [
        "mlflow (watch.trackers) is told no more of this search: no route to host"
    ]
    runs.run(runs.plain(tmp_path / "untracked", search={"budget": 24}))
    assert runs.lasting(tmp_path / "run").keys() - {REFERENCES} == {
        *runs.lasting(tmp_path / "untracked")
    }
    assert runs.journal_bytes(tmp_path / "run") == runs.journal_bytes(tmp_path / "untracked")


def test_a_tracker_is_told_when_a_search_is_broken_off(tmp_path: Path, book: type[Book]) -> None:
    class Impatient(runs.Listener):
        def generation(self, progress: Any) -> None:
            raise KeyboardInterrupt

    scorer = runs.plain(tmp_path / "run", watch={"trackers": ["mlflow"]})
    with pytest.raises(KeyboardInterrupt):
        runs.run(scorer, Impatient())
    assert book.closed == [False]


def test_what_is_not_installed_is_refused_before_anything_is_written(
    tmp_path: Path, book: type[Book]
) -> None:
    book.package = "no_such_package"
    with pytest.raises(ConfigError, match="pip install no_such_package"):
        searched(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tracker_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="differ from each other"):
        runs.plain(tmp_path, watch={"trackers": ["wandb", "wandb"]})


# The real ones, where they are installed


def test_tensorboard_has_a_curve_of_each_figure_over_all_sessions(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    searched(tmp_path / "run", 24, "tensorboard")
    searched(tmp_path / "run", 32, "tensorboard", resume=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [one.step for one in events.Scalars("fitness/best")] == [1, 2, 3, 4]
    assert [one.value for one in events.Scalars("prompts_scored")] == [8, 16, 24, 32]


def test_tensorboard_needs_a_folder_and_says_so(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    with pytest.raises(ValueError, match="folders only"):
        TRACKERS["tensorboard"]().open("mock://bucket/run", {}, 0, None)


def test_mlflow_has_one_run_with_settings_and_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    listeners = [
        searched(tmp_path / "run", 24, "mlflow"),
        searched(tmp_path / "run", 32, "mlflow", resume=True),
    ]
    assert [one.warnings for one in listeners] == [[], []]
    (run,) = mlflow.search_runs(experiment_names=["cliptune"], output_format="list")
    assert run.data.params["search.population"] == "8"
    assert run.info.status == "FINISHED"
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "prompts_scored")
    assert [one.value for one in history] == [8, 16, 24, 32]


def test_weights_and_biases_keeps_a_run_where_it_is_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="Weights & Biases is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert searched(tmp_path / "run", 24, "wandb").warnings == []
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
