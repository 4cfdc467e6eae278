"""Trials on a real Ray: in places of their own, side by side, killed, stopped, given up."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
import tiny
from clusters import Notes, one_machine
from no_ray import without_ray
from processes import eventually
from runs import journal_bytes

from cliptune.config import validate
from cliptune.errors import RunError
from cliptune.record import RESULT
from cliptune.run import opened
from cluster import nodes, tuning
from cluster.config import ClusterSearch
from cluster.session import fit, search
from cluster.trials import Asha, Report, Trial

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280, method="thread")]


@pytest.fixture(scope="module", autouse=True)
def one_ray(home: Path) -> Iterator[None]:
    with one_machine(cpus=2, num_gpus=1):
        yield


class Recorder:
    """A plan of some trials, and all that was told of them."""

    def __init__(self, trials: Sequence[Trial], then: Callable[[str, Report], None]) -> None:
        self.reports: dict[str, list[Report]] = {trial.name: [] for trial in trials}
        self.ends: dict[str, tuple[str, str | None]] = {}
        self.order: list[str] = []
        self._left = list(trials)
        self._then = then

    def next(self) -> Trial | None:
        return self._left.pop(0) if self._left else None

    def reported(self, name: str, report: Report) -> None:
        self.reports[name].append(report)
        self.order.append(name)
        self._then(name, report)

    def ended(self, name: str, state: str, error: str | None) -> None:
        self.ends[name] = state, error
        self.order.append(f"{name} ended")

    def generations(self, name: str) -> list[int]:
        return [one["generation"] for one in self.reports[name] if "generation" in one]


class Trials:
    """Searches without anything to learn, in a folder."""

    def __init__(self, model: Path, task: Path, folder: Path) -> None:
        self._model, self._task, self.folder = model, task, folder

    def make(self, name: str, **sections: Any) -> Trial:
        sections = {"cluster": {"actors": 1, "gpus_per_actor": 0}, **sections}
        tree = tiny.tree(self._model, self._task, self.folder / name, **sections)
        return Trial(name, fit(validate(ClusterSearch, tree), nodes.present()))

    def journal(self, name: str) -> dict[str, bytes]:
        return journal_bytes(self.folder / name)

    def calm(self, trial: Trial) -> dict[str, bytes]:
        """The journal of the same search, without Ray and undisturbed."""
        place = self.folder / f"{trial.name}-calm"
        alone = trial.config.cluster.model_copy(update={"actors": 1, "gpus_per_actor": 0.0})
        with without_ray():
            search(trial.config.model_copy(update={"run_dir": str(place), "cluster": alone}))
        return journal_bytes(place)


@pytest.fixture
def trials(model_dir: Path, task_dir: Path, tmp_path: Path) -> Trials:
    return Trials(model_dir, task_dir, tmp_path)


def run(
    *trials: Trial,
    then: Callable[[str, Report], None] = lambda name, report: None,
    observer: Notes | None = None,
    failures: int = 1,
    asha: Asha | None = None,
) -> Recorder:
    plan = Recorder(trials, then)
    tuning.run(plan, observer or Notes(), concurrency=None, failures=failures, asha=asha)
    return plan


def nothing_is_left() -> bool:
    """All that trials had reserved is free again."""
    free: Any = ray.available_resources()
    return bool(free.get("CPU") == 2 and free.get("GPU") == 1)


def test_two_trials_share_a_gpu_and_are_the_searches_that_they_would_be_alone(
    trials: Trials, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster = {"actors": 1, "gpus_per_actor": 0.5}
    long = trials.make("long", cluster=cluster, search={"budget": 40_000})
    short = trials.make("short", cluster=cluster)
    plan = Recorder([long, short], lambda name, report: None)

    class Impatient(Notes):
        def waiting(self) -> None:
            if plan.ends and plan.reports["long"]:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuning.run(plan, Impatient(), concurrency=None, failures=0, asha=None)
    assert plan.ends == {"short": ("done", None)}
    assert trials.journal("short") == trials.calm(short)
    assert eventually(nothing_is_left)
    assert capfd.readouterr() == ("", "")  # Ray Tune has said nothing


def test_a_trial_of_two_actors_fits_two_cpus(trials: Trials) -> None:
    made = trials.make("two", cluster={"actors": 2, "gpus_per_actor": 0})
    assert run(made).ends == {"two": ("done", None)}
    assert trials.journal("two") == trials.calm(made)


def test_a_trial_whose_driver_is_killed_goes_on_from_its_journal(trials: Trials) -> None:
    killed: list[int] = []

    def kill(name: str, report: Report) -> None:
        if report["generation"] == 2 and not killed:
            killed.append(report["pid"])
            os.kill(report["pid"], signal.SIGKILL)

    made = trials.make("killed", search={"budget": 24})
    plan = run(made, then=kill)
    assert plan.ends == {"killed": ("done", None)}
    assert plan.generations("killed")[:3] == [1, 2, 3]
    assert plan.generations("killed")[-1] == 6
    assert len(plan.generations("killed")) == 6  # none of them twice
    assert trials.journal("killed") == trials.calm(made)


def test_one_that_keeps_dying_is_given_up_and_others_go_on(trials: Trials) -> None:
    def kill(name: str, report: Report) -> None:
        if name == "doomed":
            os.kill(report["pid"], signal.SIGKILL)

    plan = run(trials.make("doomed"), trials.make("well"), then=kill, failures=1)
    assert plan.ends["well"] == ("done", None)
    state, error = plan.ends["doomed"]
    assert state == "failed"
    assert error is not None
    assert "process died" in error


def test_bad_input_is_not_tried_again(trials: Trials) -> None:
    plan = run(trials.make("bad", task={"template": "{text} ."}), failures=3)
    state, error = plan.ends["bad"]
    assert state == "failed"
    assert error is not None
    assert "{mask}" in error
    assert plan.reports["bad"] == []


def test_asha_stops_what_falls_behind_and_leaves_a_whole_run(trials: Trials) -> None:
    made = trials.make("behind", search={"budget": 400})
    ahead = [{"prompts_scored": 8, "score": 1e3}]
    asha = Asha(grace=8, most=400, reduction=2.0, past={"ahead": ahead})
    plan = run(made, asha=asha)
    assert plan.ends == {"behind": ("stopped", None)}
    assert plan.generations("behind") == [1]  # the second one was the last: it is not told
    assert len(trials.journal("behind")) == 2
    assert not (trials.folder / "behind" / RESULT).exists()
    assert eventually(nothing_is_left)
    with opened(made.config, resume=True):
        pass  # nobody holds it


def test_a_stopped_sweep_lets_go_of_all_and_its_trials_can_be_gone_on_with(
    trials: Trials,
) -> None:
    made = trials.make("stopped", search={"budget": 240})
    told: list[Report] = []

    class Impatient(Notes):
        def waiting(self) -> None:
            if len(told) > 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(made, then=lambda name, report: told.append(report), observer=Impatient())
    assert eventually(nothing_is_left)
    assert not (trials.folder / "stopped" / RESULT).exists()
    assert run(made).ends == {"stopped": ("done", None)}
    assert trials.journal("stopped") == trials.calm(made)


def test_where_no_trial_has_a_place_it_is_said(
    trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "SILENT", 1.0)
    notes = Notes()

    @ray.remote(num_cpus=2)
    class Holder:
        def hold(self) -> None:
            pass

    holder: Any = Holder.remote()  # type: ignore[attr-defined]
    ray.get(holder.hold.remote())

    class Freeing(Notes):
        def warning(self, message: str) -> None:
            notes.warning(message)
            ray.kill(holder)

    assert run(trials.make("late"), observer=Freeing()).ends == {"late": ("done", None)}
    assert notes.said("A trial takes 1 actors with 1 CPUs and 0 GPUs each; free are 0 CPUs")


def test_what_the_plan_raises_comes_out_as_it_is(trials: Trials) -> None:
    class Broken(Recorder):
        def next(self) -> Trial | None:
            raise RunError("no space left")

    plan = Broken([], lambda name, report: None)
    with pytest.raises(RunError, match="no space left"):
        tuning.run(plan, Notes(), concurrency=None, failures=0, asha=None)


def test_where_ray_tune_itself_fails_that_is_said(
    trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Caught unexpected exception:\n1 worker(s) were killed")

    monkeypatch.setattr("ray.tune.run", fail)
    with pytest.raises(
        tuning.TuneError, match=r"failed: Caught unexpected exception: 1 worker\(s\) were killed\.$"
    ):
        plan = Recorder([], lambda name, report: None)
        tuning.run(plan, Notes(), concurrency=None, failures=0, asha=None)
