"""The numbers of the pictures, against those worked out by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import records
from records import GENERATIONS, generation, record, result

from cliptune.account import outcome
from cliptune.config import Config
from cliptune.errors import RunError
from cliptune.record import read_run
from cliptune.report.numbers import (
    MOST,
    Neighbour,
    confusions,
    correlation,
    course,
    neighbours,
    work,
)


def test_the_course_of_a_search_is_what_its_generations_say() -> None:
    found = course(GENERATIONS, population=3)
    assert found.prompts.tolist() == [3, 6, 9]
    assert found.best.tolist() == [-2.0, -1.5, -1.0]
    assert found.mean == pytest.approx([-17 / 6, -2.0, -10 / 6])
    assert found.step_size.tolist() == [1.0, 1 / 2, 1 / 3]
    np.testing.assert_allclose(found.rewards, [[-3, -8 / 3], [-2, -2], [-2, -4 / 3]])
    # Two values differ by their standard deviation, twice: (1 + 0 + 0.5) / 3, ...
    assert found.spread == pytest.approx([1.5 / 3, 2 / 3, 1 / 3])


def test_the_chosen_prompt_is_chosen_by_its_score_not_by_its_accuracy() -> None:
    found = course(GENERATIONS, population=3)
    assert found.accuracy.tolist() == [0.5, 0.75, 1.0]
    assert found.chosen.tolist() == [0.5, 0.75, 0.75]  # the last one has the larger loss


def test_a_long_search_has_as_many_points_as_a_picture_can_show() -> None:
    count = 4 * MOST
    many = [generation(n, [[-count + n], [-count + n]], n / count, 0.5) for n in range(count)]
    found = course(many, population=2)
    assert found.prompts.tolist() == [8 * (i + 1) for i in range(MOST)]
    assert found.best[0] == np.mean([-count, -count + 1, -count + 2, -count + 3])
    assert found.chosen.tolist()[-1] == (count - 1) / count
    assert found.rewards.shape == (MOST, 1)


def test_work_is_what_the_telemetry_says() -> None:
    run = record(result=result())
    found = work(run, outcome(run))
    assert found is not None
    assert found.prompts.tolist() == [3, 6, 9]
    assert found.speed.tolist() == [1.5, 3.0, 2.0]
    assert found.retries.tolist() == [0, 3, 0]
    assert found.workers == (1, 2)
    assert found.computing == 3.0 / 2 + 1.5 / 2 + 1.0 / 1
    assert found.rest == 4.5 - 3.25
    assert found.between == 5.0 - 4.5


def test_seconds_between_generations_are_known_only_of_a_search_that_has_ended() -> None:
    run = record()
    found = work(run, outcome(run))
    assert found is not None
    assert found.between is None


def test_work_is_of_the_generations_whose_telemetry_is_there() -> None:
    run = record(telemetry=records.TELEMETRY[1:], result=result())
    found = work(run, outcome(run))
    assert found is not None
    assert found.prompts.tolist() == [6, 9]
    assert found.between is None  # seconds of the first generation would be in it
    ahead = replace(records.TELEMETRY[0], generation=7)  # of a generation that is not journalled
    assert work(record(telemetry=[ahead]), outcome(run)) is None
    assert work(record(telemetry=[]), outcome(run)) is None


def test_computing_never_takes_longer_than_the_generations() -> None:
    busy = replace(records.TELEMETRY[0], device_seconds=9.0)  # an answer that came twice
    run = record(telemetry=[busy])
    found = work(run, outcome(run))
    assert found is not None
    assert (found.computing, found.rest) == (2.0, 0.0)


def test_correlation_is_pearsons_over_all_candidates_and_within_generations() -> None:
    rows = [[0.0, 1.0], [1.0, 0.0], [10.0, 11.0], [11.0, 10.0]]
    found = correlation([generation(0, rows[:2], 0.5, 0.5), generation(1, rows[2:], 0.5, 0.5)])
    expected = 99 / 101  # covariance 24.75, variances 25.25
    np.testing.assert_allclose(found.pairs, [[1, expected], [expected, 1]])
    assert found.overall == pytest.approx(expected)
    assert found.within == pytest.approx(-1.0)  # in each generation they contradict each other


def test_a_subnetwork_whose_rewards_never_differ_correlates_with_none() -> None:
    rewards = [[0.0, 1.0, 5.0], [1.0, 0.0, 5.0]]
    found = correlation([generation(0, rewards, 0.5, 0.5)])
    assert np.isnan(found.pairs[2]).all()
    assert found.overall == pytest.approx(-1.0)
    assert np.isnan(correlation([generation(0, [[5.0, 5.0]] * 2, 0.5, 0.5)]).overall)


def test_confusions_and_nearest_tokens_are_read_as_they_were_written(tmp_path: Path) -> None:
    run = records.searched(tmp_path / "run")
    tables = confusions(run)
    assert list(tables) == ["manual prompt", "tuned prompt", "thinned ensemble"]
    assert {table.sum() for table in tables.values()} == {6}  # test examples
    accuracy = (run.result or {})["accuracy"]
    for name, table in tables.items():
        assert np.trace(table) / 6 == accuracy[name]["test"]
    assert neighbours(run) == [
        [Neighbour(token, 0.75), Neighbour("##ing", 0.5)]
        for token in ("Ġgood", "<script>alert(1)</script>", "▁$x$")
    ]


def test_an_unfinished_run_has_neither_yet() -> None:
    assert confusions(record()) == {}
    assert neighbours(record()) is None


def test_a_run_from_before_they_were_kept_has_neither(tmp_path: Path) -> None:
    records.searched(tmp_path)
    records.without(tmp_path, "result.json", "test_confusion")
    records.without(tmp_path, "prompt.json", "nearest")
    run = read_run(Config, str(tmp_path))
    assert confusions(run) == {}
    assert neighbours(run) is None


@pytest.mark.parametrize(
    "damaged", [3, {"tuned prompt": [[1]]}, {"a": [[1, -1], [0, 0]]}, {"a": "x"}]
)
def test_damaged_confusions_are_refused_in_a_sentence(damaged: Any) -> None:
    with pytest.raises(RunError, match=r"^runs/handmade/result\.json: test_confusion is damaged"):
        confusions(record(result=result(test_confusion=damaged)))


@pytest.mark.parametrize("damaged", [3, [3], [["good"]], [[{"token": "good"}]]])
def test_damaged_neighbours_are_refused_in_a_sentence(damaged: Any, tmp_path: Path) -> None:
    (tmp_path / "prompt.json").write_text(json.dumps({"nearest": damaged}), encoding="utf-8")
    with pytest.raises(RunError, match=r"prompt\.json: nearest is damaged: (TypeError|KeyError)"):
        neighbours(record(path=str(tmp_path), result=result()))
