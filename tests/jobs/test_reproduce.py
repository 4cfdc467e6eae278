"""`cliptune reproduce`: the matrix as sweeps, gone on with and grown, and its tables."""

import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny
import yaml
from command import cliptune_here
from trials_here import Here

SMALL = ("--tasks", "sst2", "--seeds", "13", "--budget", "8")


@pytest.fixture
def folder(model_dir: Path, tmp_path: Path) -> Path:
    """Settings of all searches, and a split a seed."""
    for seed in (13, 21):
        tiny.save_task(tmp_path / "data" / "sst2" / f"16-{seed}")
    tree = {
        key: value
        for key, value in tiny.tree(model_dir, tmp_path).items()
        if key in ("model", "prompt", "ensemble")
    }
    words = {"template": "{text} . it was {mask} .", "k": 2}
    settings = {**tree, "task": words, "search": {"population": 4}}
    (tmp_path / "all.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


def go(folder: Path, *words: str) -> CompletedProcess[str]:
    data = str(folder / "data" / "{task}" / "16-{seed}")
    return cliptune_here(
        "reproduce", str(folder / "all.yaml"), "--data", data, "--into", str(folder / "out"), *words
    )


def results(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder / "out" / "results.parquet").to_pylist()
    return found


@pytest.mark.slow
def test_two_methods_on_ray_tune_from_nothing_to_the_tables(folder: Path, one_ray: None) -> None:
    done = go(folder, *SMALL, "--methods", "bbt,clip-static")
    assert done.returncode == 0, done.stderr
    assert [row["method"] for row in results(folder)] == ["manual", "bbt", "clip-static"]
    assert {row["setting"] for row in results(folder)} == {"main"}
    assert [row["forward_passes"] for row in results(folder)] == [0, 8 * 4, 8 * 3 * 4]
    assert "clip-static - bbt" in done.stdout
    assert "| clip-static |" in (folder / "out" / "results.md").read_text()


def test_more_is_added_and_what_is_done_is_not_run_again(folder: Path, here: Here) -> None:
    assert go(folder, *SMALL, "--methods", "clip-static").returncode == 0
    more = go(folder, *SMALL, "--methods", "bbt,clip-static", "--seeds", "13,21", "--json")
    assert len(here.ran) == len(set(here.ran)) == 4
    value = json.loads(more.stdout)
    assert len(value["results"]) == 2 + 4
    fewer = go(folder, *SMALL, "--methods", "bbt")
    assert len(here.ran) == 4
    assert "clip-static" in fewer.stdout  # what is done stays in the table
    assert len(results(folder)) == 2 + 4


def test_several_experiments_have_one_table(folder: Path, here: Here) -> None:
    words = (*SMALL, "--experiments", "main,subnetworks", "--methods", "clip-static")
    done = go(folder, *words)
    assert done.returncode == 0, done.stderr
    rows = results(folder)
    values = [row["value"] for row in rows if row["setting"] == "subnetworks"]
    assert values == ["1", "2", "3", "5", "8"]
    assert "how many subnetworks" in done.stdout
    again = go(folder, *SMALL, "--methods", "bbt")
    assert "how many subnetworks" in again.stdout
    assert len(results(folder)) == len(rows) + 1


def test_what_another_process_adds_meanwhile_stays(folder: Path, here: Here) -> None:
    words = (*SMALL, "--experiments", "clip-ratio", "--values", "0.3")
    here.meanwhile = lambda: go(folder, *words)
    assert go(folder, *SMALL, "--methods", "bbt").returncode == 0
    assert {row["setting"] for row in results(folder)} == {"main", "clip-ratio"}


def test_a_search_that_two_experiments_ask_for_is_run_once(folder: Path, here: Here) -> None:
    words = (*SMALL, "--methods", "clip-static")
    assert go(folder, *words).returncode == 0
    assert go(folder, *words, "--experiments", "subnetworks").returncode == 0
    assert len(here.ran) == 1 + 4
    assert not [name for name in here.ran if "subnetworks-3" in name]  # as tiny.tree has it
    (plain,) = [
        row for row in results(folder) if row["method"] == "clip-static" and not row["value"]
    ]
    (shared,) = [row for row in results(folder) if row["value"] == "3"]
    assert {**shared, "setting": "main", "value": None} == plain
    trials = folder / "out" / "subnetworks" / "trials"
    (copy,) = trials.glob("*subnetworks-3*")
    assert cliptune_here("show", str(copy)).returncode == 0


def test_some_values_of_an_experiment_are_run_and_others_added(folder: Path, here: Here) -> None:
    words = (*SMALL, "--experiments", "clip-ratio,beyond")
    assert go(folder, *words, "--values", "0.3,rank-mean").returncode == 0
    assert [row["value"] for row in results(folder)] == ["0.3", "rank-mean"]
    assert go(folder, *words, "--values", "0.05").returncode == 0
    assert len(here.ran) == 3
    assert {row["value"] for row in results(folder)} == {"0.05", "0.3", "rank-mean"}


def test_every_method_runs_to_its_end(folder: Path, here: Here) -> None:
    done = go(folder, *SMALL)
    assert done.returncode == 0, done.stderr
    assert len(results(folder)) == 2 + len(here.ran)  # and no prompt, as it is and calibrated
    assert {"random", "bbt", "clip-static", "clip-dynamic", "deep-bbt", "deep-clip"} < {
        row["method"] for row in results(folder)
    }


def test_what_fails_is_said_and_the_rest_is_kept(folder: Path, here: Here) -> None:
    here.failing = ["task-sst2-method-bbt-seed-13"]
    done = go(folder, *SMALL, "--methods", "bbt,clip-static")
    assert done.returncode == 1
    assert "1 of 2 trials failed" in done.stderr
    assert [row["method"] for row in results(folder)] == ["manual", "clip-static"]


def test_what_is_done_when_it_is_stopped_is_in_the_tables(folder: Path, here: Here) -> None:
    here.stop_after = 1
    stopped = go(folder, *SMALL, "--methods", "bbt,clip-static")
    assert stopped.returncode == 130
    assert [row["method"] for row in results(folder)] == ["manual", "bbt"]


def test_a_file_has_every_line_of_a_wide_table_in_one_piece(
    folder: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    words = ("--methods", "bbt,clip-static", "--seeds", "13,21")
    done = go(folder, *SMALL, *words)
    row = next(line for line in done.stdout.splitlines() if line.startswith("│ clip-static "))
    assert "±" in row
    assert len(row) > 40


def test_searches_are_listed_and_not_run(folder: Path, here: Here) -> None:
    done = go(folder, *SMALL, "--methods", "bbt", "--list")
    assert done.stdout.splitlines() == [
        "task=sst2 method=bbt  seeds 13  8 prompts",
        "1 trials",
    ]
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "sst3"], "did you mean sst2?"),
        (["--seeds", "one"], "--seeds: expected whole numbers"),
        (["--seeds", "13,-1"], "--seeds: expected whole numbers"),
        (["--seeds", "9" * 20], "18 digits at most"),
        (["run_dir=a"], "under --into"),
        (["search.seed=1"], "--seeds is for that"),
        (
            ["--experiments", "clip-ratio", "--methods", "bbt"],
            "nothing is left to run of --methods bbt and",
        ),
        (["--values", "0.3"], "main varies nothing but methods"),
        (["--experiments", "clip-ratio", "--values", "0.4"], "there is no 0.4"),
        (["--seeds", "99"], "16-99"),
    ],
)
def test_bad_input_is_one_sentence(
    words: list[str], message: str, folder: Path, here: Here
) -> None:
    done = go(folder, *SMALL, *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (folder / "out").exists()


def test_what_cannot_be_read_any_more_is_said_and_its_results_stay(
    folder: Path, here: Here
) -> None:
    assert go(folder, *SMALL, "--methods", "bbt").returncode == 0
    before = results(folder)
    (run,) = (folder / "out" / "main" / "trials").iterdir()
    (run / "config.yaml").write_text("[")
    again = go(folder, *SMALL, "--methods", "bbt")
    assert again.returncode != 0
    assert "1 of 1 trials are done and cannot be read" in again.stderr
    assert "config.yaml is damaged" in again.stderr
    assert results(folder) == before


def test_results_that_are_damaged_are_said_before_anything_is_run(folder: Path, here: Here) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "results.parquet").write_bytes(b"PAR1 and no more")
    assert "does not hold results" in go(folder, *SMALL, "--methods", "bbt").stderr
    assert here.ran == []


def test_another_budget_in_the_same_folder_is_refused(folder: Path, here: Here) -> None:
    assert go(folder, *SMALL, "--methods", "bbt").returncode == 0
    other = go(folder, *SMALL, "--methods", "bbt", "--budget", "12")
    assert other.returncode == 2
    assert "search.budget is 12, there it is 8" in other.stderr
    assert len(results(folder)) == 2
