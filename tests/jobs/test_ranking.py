"""The table of a sweep, and the ranking of its settings."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from jobs.manifest import Entry
from jobs.ranking import Rank, Row, parquet, rank, ranking_table, row_of, table_of


def trial(ratio: float, seed: int, state: str = "done") -> Entry:
    return Entry(f"{ratio}-{seed}", {"ensemble.clip_ratio": ratio}, seed, state)


def row(entry: Entry, score: float | None, test: float | None = None) -> Row:
    found: Row = {"trial": entry.name, "state": entry.state, "validation.score": score}
    found |= {"validation.accuracy": score}
    return found if test is None else {**found, "accuracy.tuned.test": test}


def ranked(*trials: tuple[Entry, float | None, float | None]) -> list[Rank]:
    groups: dict[str, list[Entry]] = {}
    for entry, _, _ in trials:
        groups.setdefault(entry.label, []).append(entry)
    return rank(groups.values(), {entry.name: row(entry, *values) for entry, *values in trials})


def printed(ranks: list[Rank], selection: str) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(ranking_table(ranks, selection))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_settings_are_ranked_by_their_mean_on_validation_never_by_test() -> None:
    found = ranked(
        (trial(0.1, 0), 0.5, 0.9),
        (trial(0.1, 1), 0.6, 0.9),
        (trial(0.3, 0), 0.7, 0.1),
        (trial(0.3, 1), 0.8, 0.2),
    )
    assert [one.settings["ensemble.clip_ratio"] for one in found] == [0.3, 0.1]
    mean, deviation = found[0].score
    assert mean == pytest.approx(0.75)
    assert deviation == pytest.approx(0.0707, abs=1e-4)  # of the sample
    assert found[0].test == pytest.approx((0.15, 0.0707), abs=1e-4)


def test_one_seed_has_no_deviation() -> None:
    (one,) = ranked((trial(0.1, 0), 0.5, 0.9))
    assert one.score == (0.5, None)
    assert "50.0%" in printed([one], "accuracy")
    assert "±" not in printed([one], "accuracy")


def test_stopped_trials_count_and_failed_ones_do_not() -> None:
    (one,) = ranked(
        (trial(0.1, 0), 0.5, 0.9),
        (trial(0.1, 1, "stopped"), 0.3, None),
        (trial(0.1, 2, "failed"), 0.9, None),
        (trial(0.3, 0, "waiting"), None, None),
    )
    assert (one.seeds, one.stopped) == (2, 1)
    assert one.score[0] == pytest.approx(0.4)
    assert one.test == (0.9, None)
    assert "2 (1 stopped)" in printed([one], "accuracy")


def test_losses_are_shown_as_losses() -> None:
    (one,) = ranked((trial(0.1, 0), -0.7, 0.9))
    assert "ranked by validation loss" in printed([one], "loss")
    assert "0.700" in printed([one], "loss")
    assert "-0.700" in printed([one], "my:metric")


def test_columns_have_one_type_each_and_the_table_survives_its_file() -> None:
    rows: list[dict[str, Any]] = [
        {"trial": "a", "task.k": 16, "search.sigma": 1, "ensemble.sites": ["x"], "generations": 3},
        {"trial": "b", "task.k": "all", "search.sigma": 0.5, "ensemble.sites": None},
    ]
    table = pq.read_table(io.BytesIO(parquet(table_of(rows, ["task.k"]))))
    columns = table.to_pydict()
    assert columns["task.k"] == ["16", '"all"']
    assert columns["search.sigma"] == [1.0, 0.5]
    assert columns["ensemble.sites"] == ['["x"]', None]
    assert columns["generations"] == [3, None]
    assert columns["validation.score"] == [None, None]
    assert json.loads(table.schema.metadata[b"cliptune.varies"]) == ["task.k"]


def test_a_trial_that_never_began_has_its_settings_all_the_same(tmp_path: Any) -> None:
    found = row_of(trial(0.1, 4, "waiting"), str(tmp_path / "nothing"))
    assert found["ensemble.clip_ratio"] == 0.1
    assert found["search.seed"] == 4
    assert found["state"] == "waiting"


def test_a_run_that_is_damaged_is_said_in_its_row(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("[")
    found = row_of(trial(0.1, 0), str(tmp_path))
    assert "config.yaml is damaged" in found["error"]
    assert row_of(trial(0.1, 0, "waiting"), str(tmp_path))["error"] is None
