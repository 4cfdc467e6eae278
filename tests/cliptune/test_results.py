"""The table of results: rows, means over seeds, and paired differences with intervals."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow.parquet import write_table as write_parquet
from result_rows import row

from cliptune.errors import RunError
from cliptune.results import (
    SCHEMA,
    by_experiment,
    difference,
    difference_cells,
    differences,
    is_results,
    lines_of,
    markdown,
    mean_of,
    read_results,
    results_of,
    table_cells,
    table_of,
)

CELLS = [(task, seed) for task in ("sst2", "mrpc") for seed in (13, 21, 42)]
GAINS = [0.01, 0.02, -0.01, 0.03, 0.0, 0.04]


def results() -> list[dict[str, Any]]:
    rows = [row(*cell, "bbt", 0.7) for cell in CELLS]
    rows += [
        row(*cell, "clip-static", 0.7 + gain, **{"accuracy.ensemble.test": 0.72})
        for cell, gain in zip(CELLS, GAINS, strict=True)
    ]
    return results_of(rows, "main")


def test_a_row_a_search_and_one_a_manual_prompt() -> None:
    found = results()
    assert [each["method"] for each in found].count("manual") == 6
    assert len(found) == 6 + 12
    manual = found[0]
    assert (manual["test_accuracy"], manual["test_f1"], manual["prompts_scored"]) == (0.6, 0.55, 0)
    assert found[-1] == {
        "task": "mrpc",
        "seed": 42,
        "method": "clip-static",
        "setting": "main",
        "value": None,
        "validation_accuracy": 0.75,
        "test_accuracy": pytest.approx(0.74),
        "test_f1": pytest.approx(0.64),
        "ensemble_test_accuracy": 0.72,
        "prompts_scored": 600,
        "forward_passes": 57_600,
        "seconds": 30.0,
    }


def test_other_experiments_have_no_manual_rows_and_name_what_they_vary() -> None:
    rows = [
        row("sst2", 13, "clip-static", 0.7, value="0.3"),
        row("sst2", 13, "x", 0.1, state="failed"),
    ]
    (found,) = results_of(rows, "clip-ratio")
    assert (found["setting"], found["value"]) == ("clip-ratio", "0.3")


def test_a_search_that_is_done_and_cannot_be_read_is_no_result() -> None:
    damaged = {**row("sst2", 13, "bbt", 0.7), "error": "it is damaged"}
    del damaged["accuracy.tuned.test"], damaged["accuracy.manual.test"]
    found = results_of([damaged, row("sst2", 21, "bbt", 0.7)], "main")
    assert {each["seed"] for each in found} == {21}


def test_the_table_has_the_columns_that_are_promised() -> None:
    table = table_of(results())
    assert table.schema == SCHEMA
    assert table.column_names[:8] == [
        "task",
        "seed",
        "method",
        "setting",
        "value",
        "validation_accuracy",
        "test_accuracy",
        "test_f1",
    ]
    assert table_of([]).num_rows == 0


def test_means_are_of_seeds_and_averages_of_tasks() -> None:
    manual, bbt, clip = lines_of(results())
    assert (manual.method, bbt.method, clip.method) == ("manual", "bbt", "clip-static")
    assert list(clip.scores) == ["sst2", "mrpc", "mrpc F1"]
    assert str(clip.scores["sst2"]) == "70.7 ± 1.5"
    assert str(clip.scores["mrpc F1"]) == "62.3 ± 2.1"
    assert clip.average == pytest.approx(71.5)
    assert clip.cost == (600, 57_600, 30.0)
    assert str(mean_of([0.5])) == "50.0"


def test_a_method_that_lacks_a_task_has_no_average() -> None:
    some = [each for each in results() if each["task"] == "sst2" or each["method"] == "bbt"]
    *_, clip = lines_of(some)
    assert clip.scores["mrpc"] is None
    assert clip.average is None
    assert table_cells([clip])[1][1:4] == ["70.7 ± 1.5", "", ""]


def test_differences_are_paired_by_task_and_seed() -> None:
    found = differences("main", results()[::-1])["clip-static - bbt"]
    assert found.mean == pytest.approx(100 * np.mean(GAINS))
    assert (found.cells, found.better) == (6, 4)
    assert found.low < found.mean < found.high


def test_the_interval_is_the_bootstraps() -> None:
    """Of n equal draws of -1 and 1 the mean has a known distribution."""
    rows = [row("sst2", seed, "bbt", 0.5) for seed in range(400)]
    rows += [row("sst2", seed, "clip-static", 0.49 + 0.02 * (seed % 2)) for seed in range(400)]
    found = differences("main", results_of(rows, "main"))["clip-static - bbt"]
    assert found.mean == pytest.approx(0, abs=1e-9)
    assert found.low == pytest.approx(-1.96 / 20, abs=0.01)
    assert found.high == pytest.approx(1.96 / 20, abs=0.01)
    assert found == differences("main", results_of(rows, "main"))["clip-static - bbt"]


def test_the_interval_of_few_cells_holds_the_truth_about_as_often_as_it_says() -> None:
    """Of 5 normal cells: 93 of 100 times (in 1,500), where plain percentiles hold it 85 times."""
    draws = np.random.default_rng(0)
    held = []
    for _ in range(300):
        gains = draws.normal(0, 0.02, 5)
        firsts, seconds = (
            results_of([row("sst2", at, method, 0.7 + gain) for at, gain in enumerate(points)], "x")
            for method, points in (("a", gains), ("b", np.zeros(5)))
        )
        found = difference(firsts, seconds)
        assert found is not None
        held.append(found.low <= 0 <= found.high)
    assert 0.89 < np.mean(held) < 0.97


def test_one_cell_has_no_interval() -> None:
    one = results_of([row("sst2", 13, "bbt", 0.5), row("sst2", 13, "clip-static", 0.6)], "main")
    found = differences("main", one)["clip-static - bbt"]
    assert np.isnan([found.low, found.high]).all()
    assert str(found) == "+10.0"


def test_what_an_experiment_varies_is_compared_with_the_main_experiments_method() -> None:
    varied = [row(*cell, "clip-static", 0.75, value="0.3") for cell in CELLS]
    found = differences("clip-ratio", results() + results_of(varied, "clip-ratio"))
    assert list(found) == ["clip-static, 0.3 - clip-static"]
    only = found["clip-static, 0.3 - clip-static"]
    assert only.mean == pytest.approx(5 - 100 * np.mean(GAINS))
    assert only.cells == 6
    assert difference_cells(found)[1] == ["clip-static, 0.3 - clip-static", str(only), "6", "6"]


def test_an_experiment_with_plain_searches_is_compared_with_those() -> None:
    plain = [row(*cell, "clip-static", 0.73, value="plain") for cell in CELLS]
    ranked = [row(*cell, "clip-static", 0.75, value="rank-mean") for cell in CELLS]
    found = differences("beyond", results() + results_of(plain + ranked, "beyond"))
    assert {name: one.mean for name, one in found.items()} == {
        "clip-static, rank-mean - clip-static": pytest.approx(2)
    }
    found = differences("beyond", results() + results_of(plain[:2] + ranked, "beyond"))
    others = 100 * np.mean([0.05 - gain for gain in GAINS[2:]])  # the main experiment's
    assert found["clip-static, rank-mean - clip-static"].mean == pytest.approx(
        (2 * 2 + 4 * others) / 6
    )


def test_methods_are_compared_within_their_experiment() -> None:
    others = [row(*cell, "bbt", 0.6) for cell in CELLS]
    others += [row(*cell, "clip-static", 0.65) for cell in CELLS]
    found = differences("clipping", results() + results_of(others, "clipping"))
    assert {name: one.mean for name, one in found.items()} == {
        "clip-static - bbt": pytest.approx(5)
    }


def test_several_words_a_class_are_compared_without_a_prompt_as_well() -> None:
    words = [
        row(*cell, "bbt", 0.8, value="several", **{"accuracy.manual.test": 0.65}) for cell in CELLS
    ]
    found = differences("verbalizer", results() + results_of(words, "verbalizer"))
    means = {name: one.mean for name, one in found.items()}
    assert means == {
        "manual, several - manual": pytest.approx(5),
        "bbt, several - bbt": pytest.approx(10),
    }


def test_methods_without_a_common_cell_have_no_difference() -> None:
    assert set(differences("main", results())) == {"clip-static - bbt", "clip-static - manual"}
    assert differences("clip-ratio", results()) == {}
    bbt, clip = (
        [each for each in results() if (each["method"], each["seed"]) == pair]
        for pair in (("bbt", 13), ("clip-static", 21))
    )
    assert difference(clip, bbt) is None


def test_markdown_is_a_table() -> None:
    assert markdown([["method", "sst2"], ["bbt", "70.0"]]) == (
        "| method | sst2 |\n| --- | ---: |\n| bbt | 70.0 |\n"
    )


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    more = results_of([row("sst2", 13, "clip-static", 0.7, value="0.3")], "clip-ratio")
    write_parquet(table_of([*more, *results()]), tmp_path / "results.parquet")
    assert is_results(str(tmp_path))
    found = by_experiment(read_results(str(tmp_path)))
    assert list(found) == ["main", "clip-ratio"]
    assert len(found["main"]) == 18
    assert found["clip-ratio"][0]["value"] == "0.3"


@pytest.mark.parametrize("what", ["no parquet", "another table"])
def test_what_holds_no_results_is_refused(what: str, tmp_path: Path) -> None:
    if what == "no parquet":
        (tmp_path / "results.parquet").write_bytes(b"PAR1 and no more")
    else:
        write_parquet(pa.table({"task": ["sst2"]}), tmp_path / "results.parquet")
    with pytest.raises(RunError, match="does not hold results"):
        read_results(str(tmp_path))
