"""`cliptune sweep`, as a person uses it; where Ray Tune is not the point, trials run here."""

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny
import yaml
from command import SCRIPT, cliptune_here, environment
from processes import eventually
from provider_here import listening, provider_of
from runs import journal_bytes
from trials_here import Here

from cliptune.config import merge, validate
from cluster.config import ClusterSearch
from cluster.placement import Node
from jobs.manifest import Entry
from jobs.ranking import Row, row_of
from jobs.suggestions import Suggestions
from jobs.sweepplan import _placed

RATIOS = {"ensemble.clip_ratio": {"grid": [0.1, 0.3]}}


@pytest.fixture
def file(model_dir: Path, task_dir: Path, tmp_path: Path) -> Path:
    return write(tmp_path, model_dir, task_dir)


def write(folder: Path, model_dir: Path, task_dir: Path, **more: Any) -> Path:
    base = {key: v for key, v in tiny.tree(model_dir, task_dir).items() if key != "run_dir"}
    sweep = {"base": merge(base, more.pop("base", {})), "space": RATIOS, **more}
    path = folder / "ratios.yaml"
    path.write_text(yaml.safe_dump(sweep, sort_keys=False))
    return path


def go(file: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return cliptune_here("sweep", str(file), "--into", str(file.parent / "out"), *words)


def trials(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((file.parent / "out/manifest.json").read_text())[
        "trials"
    ]
    return found


def refused(done: subprocess.CompletedProcess[str], words: str, code: int = 2) -> None:
    assert words in done.stderr
    assert done.returncode == code
    assert done.stderr.startswith("cliptune: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_sweep_on_ray_tune_from_its_file_to_the_ranking(
    model_dir: Path, task_dir: Path, tmp_path: Path, one_ray: None
) -> None:
    space = {"ensemble.clip_ratio": {"grid": [0.1]}}
    file = write(tmp_path, model_dir, task_dir, space=space)
    done = go(file)
    assert done.returncode == 0, done.stderr
    assert "trial 1 of 1 done: clip_ratio=0.1 seed=0  validation " in done.stdout
    assert "ranked by validation loss" in done.stdout
    (trial,) = trials(file)
    assert trial["state"] == "done"
    table = pq.read_table(file.parent / "out/table.parquet").to_pydict()
    assert table["ensemble.clip_ratio"] == [0.1]
    assert table["cost.prompts_scored"] == [12]
    assert None not in table["accuracy.ensemble.test"]
    assert len(journal_bytes(file.parent / "out/trials" / trial["name"])) == 3


def test_a_trial_of_a_model_behind_an_api_leaves_to_its_provider_what_is_on_auto(
    file: Path,
) -> None:
    """And fits wherever actors would not."""
    actors = {"cluster": {"actors": 64, "gpus_per_actor": 1}, "model": {"device": "auto"}}
    base = yaml.safe_load(file.read_text())["base"]
    behind = {"scorer": {"url": "http://127.0.0.1:8400"}}
    config = validate(ClusterSearch, merge(merge(base, actors), behind))
    assert _placed(config, [Node(1, 0)], []) == config


@pytest.mark.slow
def test_trials_of_a_model_behind_an_api_wait_for_no_actors(
    file: Path, model_dir: Path, one_ray: None
) -> None:
    """They would never fit: the cluster has one CPU and no GPU."""
    actors = ("cluster.actors=64", "cluster.gpus_per_actor=1", "model.dtype=auto")
    with listening(provider_of(model_dir)) as provider:
        done = go(file, f"scorer.url={provider.url}", *actors, "model.device=auto")
    assert done.returncode == 0, done.stderr
    assert [trial["state"] for trial in trials(file)] == ["done", "done"]
    table = pq.read_table(file.parent / "out/table.parquet").to_pydict()
    assert table["cost.prompts_scored"] == [12, 12]


def test_the_trials_are_listed_and_not_run(file: Path, here: Here) -> None:
    done = go(file, "--list")
    assert done.stdout.splitlines() == [
        "ensemble.clip_ratio=0.1  seeds 0  12 prompts",
        "ensemble.clip_ratio=0.3  seeds 0  12 prompts",
        "2 trials",
    ]
    assert not (file.parent / "out").exists()


def test_an_interrupted_sweep_goes_on_where_it_ended(file: Path, here: Here) -> None:
    here.stop_after = 1
    stopped = go(file)
    assert stopped.returncode == 130
    assert "The same command goes on with it" in stopped.stderr
    here.stop_after = None
    assert go(file).returncode == 0
    names = [trial["name"] for trial in trials(file)]
    assert here.ran == names  # none of them twice
    again = go(file)
    assert here.ran == names
    assert "ranked by validation loss" in again.stdout


def test_a_run_is_read_at_the_sweeps_start_and_at_its_own_end_alone(
    file: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the ends of all others: journals are long."""
    read: Counter[str] = Counter()

    def noting(entry: Entry, run_dir: str) -> Row:
        read[entry.name] += 1
        return row_of(entry, run_dir)

    monkeypatch.setattr("jobs.sweepplan.row_of", noting)
    assert go(file).returncode == 0
    assert read == dict.fromkeys(here.ran, 2)


def test_where_ray_tune_itself_fails_the_rest_is_given_to_it_again(file: Path, here: Here) -> None:
    here.breaking_after = [1]
    done = go(file)
    assert done.returncode == 0, done.stderr
    assert "Ray Tune failed: memory. The sweep goes on with what is left." in done.stderr
    assert here.ran == [trial["name"] for trial in trials(file)]


def test_where_it_always_fails_what_is_done_stays(file: Path, here: Here) -> None:
    here.breaking_after = [1, 1, 1]
    done = go(file)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "cliptune: Ray Tune failed: memory. What is done stays; the same command goes on with it."
    )
    assert go(file).returncode == 0
    assert here.ran == [trial["name"] for trial in trials(file)]


def test_a_half_run_trial_goes_on_from_its_journal(file: Path, here: Here) -> None:
    assert go(file).returncode == 0
    run = file.parent / "out/trials" / trials(file)[1]["name"]
    whole = journal_bytes(run)
    (run / "result.json").unlink()
    (run / "journal/000002.arrow").unlink()
    assert go(file).returncode == 0
    assert here.ran[2:] == [run.name]
    assert journal_bytes(run) == whole


def test_a_failed_trial_does_not_end_the_sweep_and_is_tried_by_the_next(
    file: Path, here: Here
) -> None:
    here.failing = ["000-clip_ratio-0.1-seed-0"]
    done = go(file)
    assert done.returncode == 1
    assert "1 of 2 trials failed" in done.stderr
    assert "no actor lives long here." in done.stderr
    assert "ranked by validation" in done.stdout
    table = pq.read_table(file.parent / "out/table.parquet").to_pydict()
    assert table["state"] == ["failed", "done"]
    assert table["error"][0] == "no actor lives long here."
    here.failing = []
    assert go(file).returncode == 0
    assert here.ran[2:] == ["000-clip_ratio-0.1-seed-0"]


def test_another_sweep_in_the_folder_is_refused(file: Path, here: Here) -> None:
    assert go(file).returncode == 0
    refused(go(file, "search.budget=16"), "base.search.budget is 16, there it is 12")


def test_a_bad_value_is_refused_before_anything_begins(file: Path, here: Here) -> None:
    file.write_text(file.read_text().replace("- 0.3", "- 1.3"))
    refused(go(file), "ensemble.clip_ratio=1.3: ensemble.clip_ratio")
    assert not (file.parent / "out").exists()
    assert here.ran == []


def test_examples_that_are_not_there_are_refused_before_anything_begins(
    file: Path, here: Here
) -> None:
    refused(go(file, "task.data=nowhere"), "nowhere")
    assert here.ran == []


def test_a_trial_that_the_cluster_never_holds_is_refused_with_the_figures(
    file: Path, here: Here
) -> None:
    done = go(file, "cluster.actors=3")
    refused(done, "3 actors with 1 CPUs and 0 GPUs each do not fit, the cluster holds 2")
    assert here.ran == []
    assert go(file, "search.budget=8").returncode == 0  # the folder is still free


def test_the_ranking_as_json(file: Path, here: Here) -> None:
    value = json.loads(go(file, "--json").stdout)
    assert value["trials"] == 2
    assert value["failed"] == {}
    scores = [one["score"][0] for one in value["ranking"]]
    assert scores == sorted(scores, reverse=True)
    assert value["ranking"][0]["seeds"] == 1


def test_asha_knows_the_trials_of_earlier_sessions(
    model_dir: Path, task_dir: Path, tmp_path: Path, here: Here
) -> None:
    file = write(tmp_path, model_dir, task_dir, asha={"grace": 4})
    here.failing = ["001-clip_ratio-0.3-seed-0"]
    go(file)
    go(file)
    assert here.asha is not None
    (reports,) = here.asha.past.values()
    assert [one["prompts_scored"] for one in reports] == [4, 8]  # of the last nothing, as live
    assert reports == sorted(reports, key=lambda one: one["score"])
    assert (here.asha.grace, here.asha.most) == (4, 12)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"asha": {"grace": 12}}, "asha.grace must be below search.budget"),
        (
            {"asha": {}, "space": {"search.budget": {"grid": [12, 16]}}},
            "give all one search.budget",
        ),
    ],
)
def test_an_asha_that_could_not_compare_is_refused(
    model_dir: Path, task_dir: Path, tmp_path: Path, here: Here, more: Any, words: str
) -> None:
    refused(go(write(tmp_path, model_dir, task_dir, **more)), words)


@pytest.fixture
def optuna_file(model_dir: Path, task_dir: Path, tmp_path: Path) -> Path:
    pytest.importorskip("optuna")
    space = {
        "search.sigma": {"log-uniform": [0.1, 1.0]},
        "prompt": {"choice": [{"init": "zero"}, {"init": "text", "text": "good"}]},
    }
    return write(tmp_path, model_dir, task_dir, space=space, searcher="optuna", samples=2, seeds=2)


def test_optuna_draws_settings_and_every_one_runs_with_every_seed(
    optuna_file: Path, here: Here
) -> None:
    assert go(optuna_file).returncode == 0
    found = trials(optuna_file)
    assert [trial["seed"] for trial in found] == [0, 1] * 2
    assert len({trial["settings"]["search.sigma"] for trial in found}) == 2


def test_optuna_goes_on_with_what_it_was_told(
    optuna_file: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[Any, float | None]] = []
    tell = Suggestions.tell

    def noted(self: Suggestions, settings: Any, score: float | None) -> None:
        told.append((settings, score))
        tell(self, settings, score)

    monkeypatch.setattr(Suggestions, "tell", noted)
    assert go(optuna_file).returncode == 0
    first, before = list(told), trials(optuna_file)
    manifest = json.loads((optuna_file.parent / "out/manifest.json").read_text())
    manifest["trials"] = before[:2]
    (optuna_file.parent / "out/manifest.json").write_text(json.dumps(manifest))
    told.clear()
    assert go(optuna_file).returncode == 0
    assert told[0] == first[0]
    assert len(trials(optuna_file)) == 4
    assert trials(optuna_file)[:2] == before[:2]


def test_optuna_runs_nothing_twice(
    model_dir: Path, task_dir: Path, tmp_path: Path, here: Here
) -> None:
    pytest.importorskip("optuna")
    space = {"ensemble.mixer": {"choice": ["mean", "min"]}}
    file = write(tmp_path, model_dir, task_dir, space=space, searcher="optuna", samples=5)
    assert go(file).returncode == 0
    mixers = [trial["settings"]["ensemble.mixer"] for trial in trials(file)]
    assert sorted(mixers) == ["mean", "min"]


def test_what_is_not_installed_is_said(
    optuna_file: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    refused(go(optuna_file), "optuna needs optuna: pip install 'cliptune[sweep]'")


def finished(folder: Path) -> list[str]:
    return [path.parent.name for path in (folder / "out/trials").glob("*/result.json")]


@pytest.mark.slow
def test_control_c_ends_a_sweep_soon_and_the_same_command_finishes_it(
    file: Path, tmp_path: Path
) -> None:
    file.write_text(file.read_text() + "seeds: 2\n")
    words = ["sweep", str(file), "--into", "out", "search.budget=80"]
    process = subprocess.Popen(
        [SCRIPT, *words], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True
    )
    journal = tmp_path / "out/trials/002-clip_ratio-0.3-seed-0/journal/000002.arrow"
    assert eventually(journal.exists, patience=200)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.startswith("Stopped. The same command goes on with it")
    done = {name: journal_bytes(tmp_path / "out/trials" / name) for name in finished(tmp_path)}
    assert done
    ended = subprocess.run([SCRIPT, *words], cwd=tmp_path, env=environment(), timeout=250)
    assert ended.returncode == 0
    assert len(finished(tmp_path)) == 4
    for name, content in done.items():
        assert journal_bytes(tmp_path / "out/trials" / name) == content
