"""The run directory: never overwritten, complete, and enough to run the search again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tiny
import yaml
from safetensors.numpy import load_file

from cliptune.config import Config, validate
from cliptune.errors import RunError
from cliptune.evaluation import Row
from cliptune.journal import PREVIOUS, Generation, Validation
from cliptune.run import Cost, Result, RunDirectory, Telemetry, choose_run_dir
from cliptune.scorer import ModelFacts
from cliptune.task import Task

LATENT = np.array([0.1, -1 / 3, 2e-17, 4.0, 5.0])
PROMPT = np.arange(12, dtype=np.float32).reshape(3, 4) / 7
VALIDATION = Validation(0.75, 0.3)
TABLE = [Row("manual prompt", {"train": 0.5, "test": 0.4}), Row("tuned prompt", {"test": 0.9})]
COST = Cost(12, 216, 24, 90, 1.5, 2.5)


def config(run_dir: Path | None, **sections: Any) -> Config:
    return tiny.config(Path("model"), Path("data"), run_dir, **sections)


def start(run_dir: Path, facts: ModelFacts | None = None, **sections: Any) -> RunDirectory:
    scorer = tiny.PlainScorer(config(run_dir, **sections))
    return RunDirectory(scorer.config, scorer.task, facts or scorer.facts())


def finished(run_dir: Path, **sections: Any) -> Path:
    start(run_dir, **sections).finish(
        Result(run_dir, 2, 1, LATENT, VALIDATION, TABLE, COST), PROMPT
    )
    return run_dir


def origin(run: RunDirectory) -> str:
    """What the journal's first file says it begins from."""
    rewards = np.zeros((2, 1))
    run.journal.append(Generation(0, np.zeros((2, 5)), rewards, rewards[:, 0], 1, 0, VALIDATION))
    file = pa.ipc.open_file(run.path / "journal" / "000000.arrow")
    return str(file.schema.metadata[PREVIOUS].decode())


# Where to


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"is not empty\. Choose a new one; .* never overwritten"):
        start(tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["notes.txt"]


def test_a_second_run_into_the_same_folder_is_refused(tmp_path: Path) -> None:
    start(tmp_path / "run")
    with pytest.raises(RunError, match="never overwritten"):
        start(tmp_path / "run")


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RunError, match=r"run_dir .*run is not empty"):
        start(tmp_path / "run")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(RunError, match=r"run_dir .*file/run cannot be made: Not a directory"):
        start(tmp_path / "file" / "run")


def test_an_empty_folder_and_a_new_one_are_taken(tmp_path: Path) -> None:
    assert choose_run_dir(config(tmp_path)) == tmp_path
    assert start(tmp_path / "a" / "b").path == tmp_path / "a" / "b"


def test_without_a_run_dir_the_task_and_the_time_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = choose_run_dir(config(None))
    assert path.parent == Path("runs")
    assert path.name.startswith("tiny-20")
    assert not path.exists()


# What is written


def test_the_config_runs_the_search_again(tmp_path: Path) -> None:
    run = start(tmp_path / "run", task={"label_words": ["No", "größer"]}, search={"sigma": 1e-5})
    tree = yaml.safe_load((run.path / "config.yaml").read_text(encoding="utf-8"))
    again = validate(Config, tree)
    expected = config(run.path, task={"label_words": ["No", "größer"]}, search={"sigma": 1e-5})
    assert again == expected
    assert tree["schema_version"] == 1
    assert tree["run_dir"] == str(run.path)


def test_a_chosen_run_dir_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scorer = tiny.PlainScorer(config(None))
    run = RunDirectory(scorer.config, scorer.task, scorer.facts())
    assert yaml.safe_load((run.path / "config.yaml").read_text())["run_dir"] == str(run.path)


def test_telemetry_is_a_file_a_generation(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    telemetry = Telemetry(3, 1.5, 1.25, 72, workers=2, retries=1)
    run.record(telemetry)
    [file] = (run.path / "telemetry").iterdir()
    assert file.name == "000003.arrow"
    [row] = pa.ipc.open_file(file).read_all().to_pylist()
    assert Telemetry(**row) == telemetry


def test_an_unfinished_run_has_no_result(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    names = {file.name for file in run.path.iterdir()}
    assert names == {"config.yaml", "journal", "telemetry"}


def test_a_finished_run_has_its_prompt_and_result(tmp_path: Path) -> None:
    names = {file.name for file in finished(tmp_path / "run").iterdir()}
    assert names == {
        *("config.yaml", "journal", "telemetry"),
        *("prompt.safetensors", "prompt.json", "result.json"),
    }


def test_the_prompt_is_a_tensor_of_length_by_width(tmp_path: Path) -> None:
    saved = load_file(finished(tmp_path / "run") / "prompt.safetensors")
    assert list(saved) == ["prompt"]
    assert saved["prompt"].dtype == np.float32
    assert np.array_equal(saved["prompt"], PROMPT)


def test_the_card_says_what_the_prompt_belongs_to(tmp_path: Path) -> None:
    run_dir = finished(tmp_path / "run", search={"seed": 7}, prompt={"seed": 3})
    facts = tiny.PlainScorer(config(None)).facts()
    card = json.loads((run_dir / "prompt.json").read_text(encoding="utf-8"))
    assert card == {
        "schema_version": 1,
        "shape": [3, 4],
        "position": "after-first",
        "model": {
            "name": facts.name,
            "sha256": facts.sha256,
            "width": facts.width,
            "parameters": facts.parameters,
            "truncated": facts.truncated,
            "tokens": facts.tokens,
        },
        "task": "tiny",
        "template": "{text} . it was {mask} .",
        "label_words": ["bad", "great"],
        "seeds": {"search": 7, "prompt": 3, "ensemble": 7, "task": 0},
        "scores": {
            "validation": {"accuracy": 0.75, "loss": 0.3},
            "accuracy": {row.name: row.accuracy for row in TABLE},
        },
    }


def test_the_result_holds_choice_table_and_cost(tmp_path: Path) -> None:
    run_dir = finished(tmp_path / "run")
    result = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))
    assert result["run_dir"] == str(run_dir)
    assert result["selected"] == {
        "generation": 2,
        "candidate": 1,
        "validation_accuracy": 0.75,
        "validation_loss": 0.3,
        "latent": LATENT.tolist(),  # to the bit
    }
    assert result["accuracy"] == {row.name: row.accuracy for row in TABLE}
    assert Cost(**result["cost"]) == COST


def test_words_are_written_as_they_are_read(tmp_path: Path) -> None:
    run_dir = finished(tmp_path / "run", task={"label_words": ["schlecht", "größer"]})
    for name in ("config.yaml", "prompt.json"):
        assert "größer" in (run_dir / name).read_text(encoding="utf-8")


# What the journal is bound to


def test_the_journal_begins_from_what_decides_the_results(tmp_path: Path) -> None:
    plain = tiny.PlainScorer(config(None))
    first = origin(start(tmp_path / "a"))
    assert len(first) == 64
    assert origin(start(tmp_path / "b", search={"budget": 400})) == first
    assert origin(start(tmp_path / "c", search={"seed": 1})) != first
    other_model = ModelFacts(**{**vars(plain.facts()), "sha256": "1" * 64})
    assert origin(start(tmp_path / "d", other_model)) != first
    splits = {**plain.task.splits, "test": tiny.task(8)["test"]}
    task = Task("tiny", plain.task.template, plain.task.label_words, splits)
    assert origin(RunDirectory(config(tmp_path / "e"), task, plain.facts())) != first
