"""`cliptune words`: what it prints, and a file that a search takes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import yaml
from command import cliptune_here
from numpy.typing import NDArray

from cliptune.calibration import calibrated
from cliptune.evaluation import calibrate as calibrated_biases
from cliptune.evaluation import validate as validated
from cliptune.local import LocalScorer
from cliptune.subnetwork import FULL_NETWORK
from cliptune.task import load_task
from jobs.config import read
from jobs.findwords import best_of


@pytest.fixture
def file(model_dir: Path, task_dir: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny.tree(model_dir, task_dir)), encoding="utf-8")
    return path


def found_in(done: Any) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_best_words_are_written_with_all_other_settings(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "words.yaml"
    words = ("search.seed=3", "--count", "2", "--out", str(out))
    done = cliptune_here("words", str(file), *words)
    assert done.returncode == 0, done.stderr
    config = read([str(out)])
    before = read([str(file), "search.seed=3"])
    assert config.task.verbalizer is not None
    assert config.task.model_copy(update={"verbalizer": None}) == before.task
    assert config.search == before.search
    for name, words in zip(before.task.label_words, config.task.verbalizer, strict=True):
        assert words[0] == name
        assert all(word in done.stdout for word in words)
    assert "(chosen)" in done.stdout
    assert f"cliptune search {out}" in done.stdout


def test_words_are_added_to_those_that_the_task_has(file: Path) -> None:
    own = [["bad", "dull"], ["great", "fun"]]
    words = ("task.verbalizer=[[bad, dull], [great, fun]]", "--count", "2", "--json")
    none, two = found_in(cliptune_here("words", str(file), *words))["tried"]
    assert (none["added"], none["words"]) == (0, own)
    assert [each[:2] for each in two["words"]] == own
    assert [len(each) for each in two["words"]] == [4, 4]
    assert len({word for each in two["words"] for word in each}) == 8


def test_validation_chooses_how_many(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its losses are what the choice is made by, and those chosen are what is written."""
    given: list[float] = []

    def second(losses: Sequence[NDArray[np.float64]]) -> int:
        given.extend(each.mean() for each in losses)
        return 1

    monkeypatch.setattr("jobs.findwords.best_of", second)
    out = tmp_path / "words.yaml"
    value = found_in(cliptune_here("words", str(file), "--out", str(out), "--json"))
    tried = value["tried"]
    assert [one["added"] for one in tried][:3] == [0, 1, 3]
    assert given == pytest.approx([one["validation"]["loss"] for one in tried])
    assert value["best"] == tried[1]
    assert read([str(out)]).task.verbalizer == tuple(map(tuple, tried[1]["words"]))


def test_words_are_added_where_they_are_better_by_more_than_a_standard_error() -> None:
    own = np.array([1.0, 1.0, 1.0, 1.0])
    clearly, hardly, worse = own - [0.1, 0.2, 0.2, 0.3], own - [0.9, -0.9, 0.3, 0.1], own + 1
    assert best_of([own, worse, clearly]) == 2
    assert best_of([own, hardly, worse]) == 0
    assert best_of([own, clearly, hardly - 1]) == 2  # the least loss counts, however far they lie
    assert best_of([own, worse]) == best_of([own]) == 0


@pytest.mark.parametrize("calibrate", [True, False])
def test_what_words_are_worth_is_what_a_search_says_of_them(calibrate: bool, file: Path) -> None:
    words = (f"search.calibrate={str(calibrate).lower()}", "--test", "--json")
    value = found_in(cliptune_here("words", str(file), *words))
    for one in value["tried"]:
        config = read([str(file), f"search.calibrate={str(calibrate).lower()}"])
        task = config.task.model_copy(update={"verbalizer": one["words"]})
        scorer = LocalScorer(config, load_task(task))
        biases = calibrated_biases(scorer, None)
        known = validated(scorer, None, biases)
        assert one["validation"]["accuracy"] == known.accuracy
        assert one["validation"]["loss"] == pytest.approx(known.loss, rel=1e-5)
        if one not in (value["tried"][0], value["best"]):
            assert one["test_accuracy"] is None
            continue
        scores = calibrated(scorer.class_scores(None, "test", [FULL_NETWORK])[0], biases)[0]
        labels = scorer.task["test"].labels
        assert one["test_accuracy"] == (scores.argmax(axis=-1) == labels).mean()


def test_where_no_words_are_left_the_task_stays_as_it_is(file: Path, tmp_path: Path) -> None:
    *_, most = found_in(cliptune_here("words", str(file), "--json"))["tried"]
    out = tmp_path / "same.yaml"
    words = f"task.verbalizer={json.dumps(most['words'])}"
    done = cliptune_here("words", str(file), words, "--out", str(out))
    assert "No other words tell the classes apart; the task stays as it is." in done.stdout
    assert read([str(out)]).task == read([str(file), words]).task


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["scorer.url=http://127.0.0.1:1"], "a provider gives scores of label words alone"),
        (["model.readout=encoder"], "compares texts and reads no words"),
        (["--count", "0"], "greater than or equal to 1"),
        (["--out", "none/words.yaml"], "--out: there is no folder none; make it first"),
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
