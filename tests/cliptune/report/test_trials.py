"""A sweep's table, read: groups of seeds, their means, and their order."""

import math
import statistics
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from sweep_tables import trial, write

from cliptune.errors import RunError
from cliptune.report.trials import is_sweep, measured, ranked, read_sweep

RATIO = "ensemble.clip_ratio"
ROWS = [
    trial({RATIO: 0.1}, 0, 0.7, 0.6),
    trial({RATIO: 0.1}, 1, 0.8, 0.7),
    trial({RATIO: 0.2}, 0, 0.9, 0.5),
    trial({RATIO: 0.2}, 1, 1.0, None, state="stopped"),
    trial({RATIO: 0.5}, 0, None, None, state="failed", error="no memory"),
]


def test_trials_that_differ_in_their_seeds_are_a_group(tmp_path: Path) -> None:
    sweep = read_sweep(write(tmp_path, ROWS, [RATIO]))
    assert sweep.varies == [RATIO]
    assert [group.values for group in sweep.groups] == [{RATIO: 0.1}, {RATIO: 0.2}, {RATIO: 0.5}]
    assert [len(group.trials) for group in sweep.groups] == [2, 2, 1]
    assert len(sweep.trials) == 5


def test_means_are_of_the_trials_that_have_the_score_stopped_ones_too(tmp_path: Path) -> None:
    one, other, failed = read_sweep(write(tmp_path, ROWS, [RATIO])).groups
    found = one.measured("validation.accuracy")
    assert found is not None
    assert found.mean == pytest.approx(0.75)
    assert found.deviation == pytest.approx(statistics.stdev([0.7, 0.8]))
    assert found.count == 2
    both, alone = other.measured("validation.accuracy"), other.measured("accuracy.tuned.test")
    assert both is not None
    assert alone is not None
    assert (both.mean, both.count) == (pytest.approx(0.95), 2)
    assert (alone.mean, alone.deviation, alone.count) == (0.5, None, 1)
    assert failed.measured("validation.accuracy") is None
    assert one.measured("accuracy.of.nothing") is None


def test_what_is_no_number_is_not_measured() -> None:
    assert measured([None, math.nan, "x"]) is None
    found = measured([1, None, 2.0])
    assert found is not None
    assert (found.mean, found.count) == (1.5, 2)


def test_the_ranking_is_by_validation_and_never_by_test(tmp_path: Path) -> None:
    order = [group.setting for group in ranked(read_sweep(write(tmp_path, ROWS, [RATIO])))]
    assert order == [f"{RATIO}=0.2", f"{RATIO}=0.1", f"{RATIO}=0.5"]


def test_a_seed_that_was_stopped_counts_in_the_ranking(tmp_path: Path) -> None:
    """Else a setting would be the better for having its weak seeds stopped."""
    rows = [
        trial({RATIO: 0.1}, 0, 0.9, 0.6),
        trial({RATIO: 0.1}, 1, 0.3, None, state="stopped"),
        trial({RATIO: 0.2}, 0, 0.8, 0.6),
        trial({RATIO: 0.2}, 1, 0.8, 0.6),
    ]
    order = [group.setting for group in ranked(read_sweep(write(tmp_path, rows, [RATIO])))]
    assert order == [f"{RATIO}=0.2", f"{RATIO}=0.1"]


def test_values_that_are_kept_as_json_are_what_they_were(tmp_path: Path) -> None:
    settings = {"ensemble.sites": ["embedding", "ffn-output"], "ensemble.mixer": "mean"}
    sweep = read_sweep(write(tmp_path, [trial(settings, 0, 0.7, 0.6)], list(settings)))
    assert sweep.groups[0].values == settings


def test_a_folder_with_a_table_is_a_sweep(tmp_path: Path) -> None:
    assert is_sweep(write(tmp_path / "sweep", ROWS, [RATIO]))
    assert not is_sweep(str(tmp_path / "nowhere"))


def test_a_table_that_is_none_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "table.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(RunError, match=r"table\.parquet is damaged: ") as caught:
        read_sweep(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "metadata", "why"),
    [
        ({"trial": ["a"]}, {}, "it has no accuracy.tuned.test"),
        ({name: [row] for name, row in ROWS[0].items()}, {}, "does not say which settings vary"),
    ],
)
def test_another_table_is_refused_in_a_sentence(
    columns: Any, metadata: Any, why: str, tmp_path: Path
) -> None:
    table = pa.table(columns).replace_schema_metadata(metadata)
    parquet.write_table(table, tmp_path / "table.parquet")
    with pytest.raises(RunError, match=why):
        read_sweep(str(tmp_path))
