"""The run directory: never overwritten, complete, and enough to read or to search again."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import runs
import tiny
import yaml
from safetensors.numpy import load_file

from cliptune.config import Config, validate
from cliptune.errors import ConfigError, ModelError, RunError
from cliptune.evaluation import Row
from cliptune.hashing import digest
from cliptune.identity import fingerprint
from cliptune.journal import PREVIOUS, Generation, Validation
from cliptune.loop import search
from cliptune.record import Cost, Result, Telemetry, read_config
from cliptune.run import RunDirectory, opened
from cliptune.settings import read_file

LATENT = np.array([0.1, -1 / 3, 2e-17, 4.0, 5.0])
PROMPT = np.arange(12, dtype=np.float32).reshape(3, 4) / 7
NEAREST = [[("good", 0.75), ("##ing", 0.5)], [("film", 0.25)], []]
VALIDATION = Validation(accuracy=0.75, loss=0.3, macro_f1=0.7, score=-0.3)
TABLE = [
    Row("manual prompt", {"train": 0.5, "test": 0.4}),
    Row("tuned prompt", {"test": 0.9}, [[3, 1], [0, 2]]),
]
COST = Cost(12, 216, 24, 90, 1.5, 2.5)
STOPPED = "the budget of 12 prompts is spent"


def config(run_dir: Path | str | None, **sections: Any) -> Config:
    place = {"run_dir": None if run_dir is None else str(run_dir)}
    return tiny.config(Path("model"), Path("data"), **sections, **place)


def begin(run: RunDirectory, config: Config) -> list[Generation]:
    scorer = tiny.PlainScorer(config)
    return run.begin(config, scorer.task, scorer.facts(), scorer.canary())


def started(run_dir: Path, **sections: Any) -> Path:
    """A run that has begun and searched nothing."""
    with opened(config(run_dir, **sections)) as run:
        begin(run, config(run_dir, **sections))
    return run_dir


def finished(run_dir: Path, **sections: Any) -> Path:
    with opened(config(run_dir, **sections)) as run:
        begin(run, config(run_dir, **sections))
        result = Result(str(run_dir), 2, 1, LATENT, VALIDATION, TABLE, COST, STOPPED)
        run.finish(result, PROMPT, NEAREST)
    return run_dir


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


# Where to


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    message = rf"is not empty\. Choose a new one, or .*search --resume {tmp_path}$"
    with pytest.raises(RunError, match=message), opened(config(tmp_path)):
        raise AssertionError("opened")
    assert names(tmp_path) == {"notes.txt"}


def test_a_second_run_into_the_same_folder_is_refused(tmp_path: Path) -> None:
    before = runs.tree_bytes(started(tmp_path / "run"))
    with pytest.raises(RunError, match="is not empty"):
        started(tmp_path / "run", search={"seed": 1})
    assert runs.tree_bytes(tmp_path / "run") == before


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RunError, match=r"run_dir .*run cannot be made: File exists\."):
        started(tmp_path / "run")


def test_an_empty_folder_and_a_new_one_are_taken(tmp_path: Path) -> None:
    for folder in (tmp_path / "a" / "b", tmp_path / "c"):
        with opened(config(folder)) as run:
            assert run.path == str(folder)
            assert not run.begun
    (tmp_path / "d").mkdir()
    started(tmp_path / "d")


def test_without_a_run_dir_the_task_and_the_time_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with opened(config(None)) as run:
        assert run.path.startswith("runs/tiny-20")
        assert Path(run.path).is_dir()
        begin(run, config(None))
    assert yaml.safe_load((Path(run.path) / "config.yaml").read_text())["run_dir"] == run.path


def test_config_yaml_given_as_a_file_says_the_same(tmp_path: Path) -> None:
    """Also of words that look like numbers."""
    mine = config(tmp_path, task={"label_words": ["1e5", "2.5e3"]})
    with opened(mine):
        assert validate(Config, read_file(tmp_path / "config.yaml")) == mine


def test_default_folders_never_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Still(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime(2030, 1, 2, 3, 4, 5)

    monkeypatch.setattr("cliptune.run.datetime", Still)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "tiny-20300102-030405-3").mkdir()
    with opened(config(None)) as one, opened(config(None)) as two, opened(config(None)) as three:
        found = [run.path for run in (one, two, three)]
    assert found == [f"runs/tiny-20300102-030405{end}" for end in ("", "-2", "-4")]


@pytest.mark.parametrize("target", ["nowhere", "file"])
def test_a_runs_folder_that_is_none_is_one_sentence(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "runs").symlink_to(tmp_path / target)
    message = r"run_dir runs/tiny.* cannot be made: File exists\."
    with pytest.raises(RunError, match=message), opened(config(None)):
        raise AssertionError("opened")


# Starts that fail


def test_a_failed_start_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError), opened(config(tmp_path / "run")):
        assert names(tmp_path / "run") == {"config.yaml"}
        raise ModelError("There is no such model.")
    assert names(tmp_path) == set()


def test_a_failed_start_leaves_no_default_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError), opened(config(None)):
        raise ModelError("There is no such model.")
    assert names(tmp_path / "runs") == set()


def test_a_failed_start_leaves_a_folder_that_was_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError), opened(config(tmp_path)):
        raise ModelError("There is no such model.")
    assert tmp_path.is_dir()
    assert names(tmp_path) == set()


def test_a_search_that_fails_once_it_began_keeps_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError), opened(config(tmp_path / "run")) as run:
        begin(run, config(tmp_path / "run"))
        raise ModelError("It went away.")
    assert names(tmp_path / "run") == {"config.yaml", "origin.json"}


@pytest.mark.parametrize(
    ("sections", "error", "message"),
    [
        ({"model": {"name": "no/such/model"}}, ModelError, "no/such/model"),
        ({"search": {"selection": "nowhere.py:f"}}, ConfigError, "nowhere.py:f cannot be imp"),
        ({"search": {"max_forward_passes": 3}}, ConfigError, "must hold at least one generation"),
    ],
)
def test_a_search_that_cannot_start_leaves_no_folder(
    sections: dict[str, Any],
    error: type[Exception],
    message: str,
    model_dir: Path,
    task_dir: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(error, match=message):
        search(tiny.config(model_dir, task_dir, tmp_path / "run", **sections))
    assert names(tmp_path) == set()


def test_a_run_of_which_another_search_holds_the_folder_is_refused(tmp_path: Path) -> None:
    place = started(tmp_path / "run")
    again = config(place)
    message = "by another search"
    with opened(again, resume=True):
        with pytest.raises(RunError, match=message), opened(again, resume=True):
            raise AssertionError("held twice")
        with pytest.raises(RunError, match=message), opened(again):
            raise AssertionError("held twice")
    with opened(again, resume=True) as run:
        assert run.begun


# What is written


def test_the_config_runs_the_search_again(tmp_path: Path) -> None:
    sections = {"task": {"label_words": ["No", "größer"]}, "search": {"sigma": 1e-5}}
    run_dir = started(tmp_path / "run", **sections)
    tree = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))
    assert validate(Config, tree) == config(run_dir, **sections)
    assert tree["schema_version"] == 1
    assert read_config(str(run_dir)) == tree


def test_the_origin_says_what_is_searched_and_where(tmp_path: Path) -> None:
    run_dir = started(tmp_path / "run")
    origin = json.loads((run_dir / "origin.json").read_text(encoding="utf-8"))
    scorer = tiny.PlainScorer(config(run_dir))
    assert origin["identity"]["config"] == scorer.config.identity()
    assert origin["facts"] == vars(scorer.facts())
    assert origin["platforms"] == [fingerprint()]
    assert origin["canaries"] == [scorer.canary()]


def test_the_journal_begins_from_what_decides_the_results(tmp_path: Path) -> None:
    def first(name: str, **sections: Any) -> str:
        place = tmp_path / name
        with opened(config(place, **sections)) as run:
            begin(run, config(place, **sections))
            nothing = np.zeros((2, 1))
            latents = np.zeros((2, 5))
            run.journal.append(Generation(0, latents, nothing, nothing[:, 0], 1, 0, VALIDATION))
        origin = json.loads((place / "origin.json").read_text())
        file = pa.ipc.open_file(place / "journal" / "000000.arrow")
        assert file.schema.metadata[PREVIOUS].decode() == digest(origin["identity"])
        return digest(origin["identity"])

    assert first("a") == first("b", search={"budget": 400})
    assert first("a2") != first("c", search={"seed": 1})


def test_telemetry_is_a_file_a_generation(tmp_path: Path) -> None:
    telemetry = Telemetry(3, 1.5, 1.25, 72, workers=2, retries=1)
    with opened(config(tmp_path / "run")) as run:
        begin(run, config(tmp_path / "run"))
        run.record(telemetry)
        assert run.telemetry() == [telemetry]
    [file] = (tmp_path / "run" / "telemetry").iterdir()
    assert file.name == "000003.arrow"
    [row] = pa.ipc.open_file(file).read_all().to_pylist()
    assert Telemetry(**row) == telemetry


@pytest.mark.parametrize("content", [b"", b"half", None])
def test_telemetry_that_cannot_be_read_is_left_out(content: bytes | None, tmp_path: Path) -> None:
    """It decides nothing."""
    with opened(config(tmp_path / "run")) as run:
        begin(run, config(tmp_path / "run"))
        for number in range(3):
            run.record(Telemetry(number, 1.5, 1.25, 72, workers=2, retries=1))
        file = tmp_path / "run" / "telemetry" / "000001.arrow"
        whole = file.read_bytes()
        file.write_bytes(whole[:-100] + bytes(100) if content is None else content)
        (file.parent / "000007.arrow.tmp").write_bytes(whole)
        assert [one.generation for one in run.telemetry()] == [0, 2]


def test_a_finished_run_has_its_prompt_and_result(tmp_path: Path) -> None:
    assert names(finished(tmp_path / "run")) == {
        *("config.yaml", "origin.json"),
        *("prompt.safetensors", "prompt.json", "result.json"),
    }


def test_the_prompt_is_a_tensor_of_length_by_width(tmp_path: Path) -> None:
    saved = load_file(finished(tmp_path / "run") / "prompt.safetensors")
    assert list(saved) == ["prompt"]
    assert saved["prompt"].dtype == np.float32
    assert np.array_equal(saved["prompt"], PROMPT)


def test_the_card_says_what_the_prompt_belongs_to(tmp_path: Path) -> None:
    run_dir = finished(tmp_path / "run", search={"seed": 7}, prompt={"seed": 3})
    card = json.loads((run_dir / "prompt.json").read_text(encoding="utf-8"))
    assert card == {
        "schema_version": 1,
        "shape": [3, 4],
        "position": "after-first",
        "model": vars(tiny.PlainScorer(config(None)).facts()),
        "task": "tiny",
        "template": "{text} . it was {mask} .",
        "label_words": ["bad", "great"],
        "seeds": {"search": 7, "prompt": 3, "ensemble": 7, "task": 0},
        "scores": {
            "validation": {"accuracy": 0.75, "loss": 0.3, "macro_f1": 0.7, "score": -0.3},
            "accuracy": {row.name: row.accuracy for row in TABLE},
        },
        "nearest": [
            [{"token": "good", "cosine": 0.75}, {"token": "##ing", "cosine": 0.5}],
            [{"token": "film", "cosine": 0.25}],
            [],
        ],
    }


def test_the_result_holds_choice_table_and_cost(tmp_path: Path) -> None:
    run_dir = finished(tmp_path / "run")
    result = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))
    assert result["run_dir"] == str(run_dir)
    assert result["stopped"] == STOPPED
    assert result["selected"] == {
        "generation": 2,
        "candidate": 1,
        "validation_accuracy": 0.75,
        "validation_macro_f1": 0.7,
        "validation_loss": 0.3,
        "validation_score": -0.3,
        "latent": LATENT.tolist(),  # to the bit
    }
    assert result["accuracy"] == {row.name: row.accuracy for row in TABLE}
    assert result["test_confusion"] == {"tuned prompt": [[3, 1], [0, 2]]}
    assert Cost(**result["cost"]) == COST


def test_words_are_written_as_they_are_read(tmp_path: Path) -> None:
    run_dir = finished(tmp_path / "run", task={"label_words": ["schlecht", "größer"]})
    for name in ("config.yaml", "origin.json", "prompt.json"):
        assert "größer" in (run_dir / name).read_text(encoding="utf-8")
