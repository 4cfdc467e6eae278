"""A sweep's section: the figures' means and error bars, the ranking, what failed."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from overlaps import faults
from sweep_tables import trial, write

from cliptune.report.look import LIGHT
from cliptune.report.parts import Picture, Section
from cliptune.report.sweeps import sweep_section
from cliptune.report.trials import read_sweep

RATIO, NUMBER, MIXER = "ensemble.clip_ratio", "ensemble.subnetworks", "ensemble.mixer"


def section(folder: Path, rows: Sequence[dict[str, Any]], varies: Sequence[str]) -> Section:
    return sweep_section(read_sweep(write(folder, rows, varies)))


def drawn(picture: Picture) -> Figure:
    with LIGHT.style():
        figure = picture.draw(LIGHT)
    assert faults(figure) == []
    return figure


def points(figure: Figure, across: bool = False) -> dict[str, list[tuple[float, float, float]]]:
    """Value, mean and length of the bar to one side, by the name of the line."""
    found = {}
    for container in figure.axes[0].containers:
        line, _, (bars,) = container.lines  # type: ignore[attr-defined]
        ends = [segment[:, 0 if across else 1] for segment in bars.get_segments()]
        xs, ys = line.get_data()
        spans = [(high - low) / 2 for low, high in ends]
        values, means = (ys, xs) if across else (xs, ys)
        found[str(container.get_label())] = list(zip(values, means, spans, strict=True))
    return found


def test_scores_over_a_numeric_setting_are_means_with_standard_deviations(tmp_path: Path) -> None:
    rows = [trial({RATIO: p}, s, 0.5 + p + s / 10, p + s / 10) for p in (0.2, 0.1) for s in (0, 1)]
    found = section(tmp_path, [*rows, trial({RATIO: 0.5}, 0, 0.6, 0.4)], [RATIO])
    test, validation = found.pictures
    deviation = statistics.stdev([0.0, 0.1])
    lines = points(drawn(test))
    assert list(lines) == ["tuned prompt", "thinned ensemble", "manual prompt"]
    expected = [(0.1, 0.15, deviation), (0.2, 0.25, deviation), (0.5, 0.4, 0.0)]
    for point, by_hand in zip(lines["tuned prompt"], expected, strict=True):
        assert point == pytest.approx(by_hand)
    assert test.caption == "Means over 1 to 2 trials; bars are standard deviations."
    (chosen,) = points(drawn(validation)).values()
    assert [mean for _, mean, _ in chosen] == pytest.approx([0.65, 0.75, 0.6])


def test_trials_that_were_stopped_are_in_the_means_that_they_have(tmp_path: Path) -> None:
    rows = [
        trial({RATIO: 0.1}, 0, 0.7, 0.6),
        trial({RATIO: 0.1}, 1, 0.9, None, state="stopped"),
        trial({RATIO: 0.2}, 0, 0.8, 0.5),
    ]
    found = section(tmp_path, rows, [RATIO])
    (line,) = points(drawn(found.pictures[1])).values()
    assert [mean for _, mean, _ in line] == pytest.approx([0.8, 0.8])
    assert [mean for _, mean, _ in points(drawn(found.pictures[0]))["tuned prompt"]] == [0.6, 0.5]
    assert found.facts["trials"] == "2 done, 1 stopped"


def test_over_two_settings_each_has_a_line_a_value_of_the_other(tmp_path: Path) -> None:
    rows = [trial({RATIO: p, NUMBER: n}, 0, 0.5, p * n) for p in (0.1, 0.2) for n in (1, 2, 4)]
    found = section(tmp_path, rows, [RATIO, NUMBER])
    lines = points(drawn(found.pictures[0]))
    assert list(lines) == ["1", "2", "4"]
    assert [mean for _, mean, _ in lines["4"]] == pytest.approx([0.4, 0.8])
    assert list(points(drawn(found.pictures[2]))) == ["0.1", "0.2"]
    assert "A line for each value of ensemble.subnetworks" in found.pictures[0].caption


def test_over_more_settings_the_others_are_averaged_and_that_is_said(tmp_path: Path) -> None:
    settings = [{RATIO: p, NUMBER: n, MIXER: m} for p in (0.1, 0.2) for n in (1, 2) for m in "ab"]
    rows = [trial(each, 0, 0.5, each[RATIO]) for each in settings]
    found = section(tmp_path, rows, [RATIO, NUMBER, MIXER])
    assert [mean for _, mean, _ in points(drawn(found.pictures[0]))["tuned prompt"]] == [0.1, 0.2]
    assert "Over all values of ensemble.subnetworks, ensemble.mixer." in found.pictures[0].caption
    assert len(found.pictures) == 2 * 3


def test_names_stand_below_each_other_however_long_they_are(tmp_path: Path) -> None:
    values = ["mean", "$m$ " * 20, ["embedding", "attention-output", "ffn-output"]]
    rows = [trial({MIXER: v}, s, 0.5, 0.25 * n) for n, v in enumerate(values) for s in (0, 1)]
    figure = drawn(section(tmp_path, rows, [MIXER]).pictures[0])
    assert [mean for _, mean, _ in points(figure, across=True)["tuned prompt"]] == [0, 0.25, 0.5]
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert shown == ["mean", "$m$ $m$ $m$ $m$ $m$ $…", "embedding, attention-…"]


def test_long_names_that_begin_alike_have_a_line_each(tmp_path: Path) -> None:
    values = [["embedding", "attention-output"], ["embedding", "attention-output", "ffn-output"]]
    rows = [
        trial({RATIO: p, MIXER: v}, 0, 0.5, p + 0.25 * n)
        for p in (0.1, 0.2)
        for n, v in enumerate(values)
    ]
    test = section(tmp_path, rows, [RATIO, MIXER]).pictures[0]
    assert len(drawn(test).axes[0].containers) == 2
    assert test.table is not None
    assert {cells[1] for cells in test.table.rows} == {", ".join(value) for value in values}


def test_an_axis_of_very_different_numbers_is_logarithmic(tmp_path: Path) -> None:
    rows = [trial({NUMBER: n}, 0, 0.5, 0.5) for n in (1, 2, 100)]
    assert drawn(section(tmp_path, rows, [NUMBER]).pictures[0]).axes[0].get_xscale() == "log"


def test_the_ranking_says_how_many_seeds_are_done(tmp_path: Path) -> None:
    rows = [
        trial({RATIO: 0.1}, 0, 0.5, 0.4),
        trial({RATIO: 0.1}, 1, 0.75, 0.5),
        trial({RATIO: 0.2}, 0, 0.5, None, state="stopped"),
    ]
    (table,) = section(tmp_path, rows, [RATIO]).tables
    assert table.rows[0] == [
        *("1", f"{RATIO}=0.1", "2 of 2"),
        *("-0.375 ± 0.177", "62.5% ± 17.7%", "45.0% ± 7.1%", "46.0% ± 7.1%"),
    ]
    assert table.rows[1] == ["2", f"{RATIO}=0.2", "0 of 1", "-0.500", "50.0%", "", ""]


def test_what_failed_is_listed_with_its_reason(tmp_path: Path) -> None:
    failed = trial({RATIO: 0.1}, 1, None, None, state="failed", error="no <memory>")
    _, table = section(tmp_path, [trial({RATIO: 0.1}, 0, 0.5, 0.5), failed], [RATIO]).tables
    assert table.rows == [[failed["trial"], "no <memory>"]]


def test_a_sweep_that_has_just_begun_says_so(tmp_path: Path) -> None:
    waiting = trial({RATIO: 0.1}, 0, None, None, state="waiting")
    found = section(tmp_path, [waiting], [RATIO])
    assert found.pictures == []
    assert [absent.why for absent in found.absent] == ["no trial has come to its end yet"]
    assert found.steps == []


def test_a_sweep_over_seeds_alone_has_its_table(tmp_path: Path) -> None:
    found = section(tmp_path, [trial({}, s, 0.5, 0.5) for s in (0, 1)], [])
    assert found.title == "Sweep over seeds"
    assert found.tables[0].rows[0][1:3] == ["all", "2 of 2"]
    assert found.pictures == []


def test_the_best_trial_is_looked_at_next_wherever_the_sweep_lies(tmp_path: Path) -> None:
    rows = [trial({RATIO: 0.1}, 0, 0.5, 0.4), trial({RATIO: 0.2}, 7, 0.6, 0.3)]
    (step,) = section(tmp_path / "a sweep", rows, [RATIO]).steps
    name = rows[1]["trial"]
    assert step.command == f"cliptune report '{tmp_path}/a sweep/trials/{name}'"
