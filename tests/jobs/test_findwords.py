"""`cliptune words`: what it prints, and a file that a search takes."""

import json
from pathlib import Path

import pytest
import tiny
import yaml
from command import cliptune_here

from jobs.config import read


@pytest.fixture
def file(model_dir: Path, task_dir: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny.tree(model_dir, task_dir)), encoding="utf-8")
    return path


def test_the_words_are_written_with_all_other_settings(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "words.yaml"
    done = cliptune_here("words", str(file), "search.seed=3", "--count", "2", "--out", str(out))
    assert done.returncode == 0, done.stderr
    config = read([str(out)])
    assert config.task.verbalizer is not None
    assert [len(words) for words in config.task.verbalizer] == [2, 2]
    before = read([str(file), "search.seed=3"])
    assert config.task.model_copy(update={"verbalizer": None}) == before.task
    assert config.search == before.search
    for word in (word for words in config.task.verbalizer for word in words):
        assert word in done.stdout
    assert "with these words" in done.stdout
    assert f"cliptune search {out}" in done.stdout


def test_as_json_it_says_what_they_are_worth(file: Path) -> None:
    done = cliptune_here("words", str(file), "--json")
    value = json.loads(done.stdout)
    assert len(value["verbalizer"]) == 2
    for tried in value["validation"].values():
        assert 0 <= tried["accuracy"] <= 1
        assert tried["loss"] > 0
    assert value["validation"]["before"] != value["validation"]["after"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["scorer.url=http://127.0.0.1:1"], "a provider gives scores of label words alone"),
        (["model.readout=encoder"], "compares texts and reads no words"),
        (["--count", "0"], "greater than or equal to 1"),
    ],
)
def test_bad_input_is_one_sentence(words: list[str], message: str, file: Path) -> None:
    done = cliptune_here("words", str(file), *words)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


def test_a_file_that_is_there_is_left_alone(file: Path) -> None:
    content = file.read_text(encoding="utf-8")
    done = cliptune_here("words", str(file), "--out", str(file))
    assert done.returncode == 2
    assert "is there already; give a new file" in done.stderr
    assert file.read_text(encoding="utf-8") == content
