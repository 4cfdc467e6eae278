"""A search in steps, as a trial of a sweep has it; without Ray, whose part is in test_tuning.py."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from no_ray import without_ray
from runs import journal_bytes

from cliptune.config import validate
from cliptune.errors import ScorerError
from cliptune.record import RESULT
from cliptune.run import opened
from cluster import trial
from cluster.config import ClusterSearch
from cluster.session import search
from cluster.trial import FINISHED, REFUSED, SteppedSearch, bundles
from cluster.trials import Report


@pytest.fixture(autouse=True)
def no_engine() -> Iterator[None]:
    with without_ray():
        yield


def config(model_dir: Path, task_dir: Path, run_dir: Path, **sections: Any) -> ClusterSearch:
    return validate(ClusterSearch, tiny.tree(model_dir, task_dir, run_dir, **sections))


def next_report(steps: SteppedSearch) -> Report:
    """The next one that says something."""
    while not (report := steps.step(0.1)):
        pass
    return report


def test_a_search_comes_to_its_end_step_by_step(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    steps = SteppedSearch(config(model_dir, task_dir, tmp_path / "run"))
    reports = [next_report(steps) for _ in range(4)]
    steps.stop()
    assert [one.get("generation") for one in reports] == [1, 2, 3, None]
    assert reports[-1] == {"done": True, "end": FINISHED}
    assert (tmp_path / "run" / RESULT).is_file()


def test_the_last_generation_says_no_prompts_so_that_asha_lets_it_be(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    steps = SteppedSearch(config(model_dir, task_dir, tmp_path / "run"))
    reports = [next_report(steps) for _ in range(3)]
    steps.stop()
    assert [one.get("prompts_scored") for one in reports] == [4, 8, None]


def test_a_stopped_search_lets_go_of_its_run_and_can_be_gone_on_with(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    search(config(model_dir, task_dir, tmp_path / "whole"))
    mine = config(model_dir, task_dir, tmp_path / "run")
    steps = SteppedSearch(mine)
    next_report(steps)
    steps.stop()
    assert len(journal_bytes(tmp_path / "run")) == 1  # it waited for the next step
    with opened(mine, resume=True):
        pass  # nobody holds it
    again = SteppedSearch(mine)
    assert [next_report(again).get("generation") for _ in range(3)] == [2, 3, None]
    again.stop()
    assert journal_bytes(tmp_path / "run") == journal_bytes(tmp_path / "whole")


def test_bad_input_ends_a_trial_with_its_sentence(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    bad = config(model_dir, task_dir, tmp_path / "run", task={"data": str(tmp_path / "nowhere")})
    report = next_report(SteppedSearch(bad))
    assert report["end"] == REFUSED
    assert "nowhere" in report["error"]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(ScorerError("no actors"), "no actors"), (KeyError("a\nb"), "unexpected KeyError: 'a\\nb'")],
)
def test_what_may_work_the_next_time_is_told_before_it_is_raised(
    model_dir: Path,
    task_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    sentence: str,
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(trial, "search", fail)
    steps = SteppedSearch(config(model_dir, task_dir, tmp_path / "run"))
    assert next_report(steps) == {"error": sentence}
    with pytest.raises(ScorerError, match=f"^{re.escape(sentence)}$"):
        steps.step(0.1)


def test_a_trial_reserves_its_actors_and_nothing_but_a_place_for_its_driver() -> None:
    two = {"actors": 2, "threads_per_actor": 3, "gpus_per_actor": 0.5}
    actor = {"CPU": 3.0, "GPU": 0.5}
    assert reserved(cluster=two) == [{"node:me": 0.001}, actor, actor]
    assert reserved(cluster={"actors": 1, "gpus_per_actor": 0})[1:] == [{"CPU": 1.0}]


@pytest.mark.parametrize("actors", ["auto", 8, {"min": 2, "max": 8}])
def test_a_trial_with_a_model_behind_an_api_reserves_a_cpu_whatever_its_actors(actors: Any) -> None:
    cluster = {"actors": actors, "threads_per_actor": 3, "gpus_per_actor": 1}
    behind = {"url": "http://127.0.0.1:8400"}
    assert reserved(cluster=cluster, scorer=behind) == [{"node:me": 0.001}, {"CPU": 1.0}]


def reserved(**sections: Any) -> list[dict[str, float]]:
    return bundles(config(Path("model"), Path("task"), Path("run"), **sections), "node:me")
