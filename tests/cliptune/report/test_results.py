"""The section of the paper's experiments: tables, methods beside each other, their differences."""

from typing import Any

import pytest
from matplotlib.figure import Figure
from overlaps import faults
from result_rows import row

from cliptune.report.look import LIGHT
from cliptune.report.parts import Picture, Section
from cliptune.report.results import results_section
from cliptune.results import differences, results_of

METHODS = ("random", "bbt", "clip-static", "deep-clip")
TASKS = ("sst2", "agnews")


def results() -> list[dict[str, Any]]:
    main = [
        row(task, seed, method, 0.6 + number / 50 + seed / 1000)
        for task in TASKS
        for seed in (13, 21)
        for number, method in enumerate(METHODS)
    ]
    ratios = [
        row("sst2", seed, "clip-static", 0.7 - ratio / 10, value=str(ratio))
        for seed in (13, 21)
        for ratio in (0.1, 0.3)
    ]
    return [*results_of(main, "main"), *results_of(ratios, "clip-ratio")]


@pytest.fixture(scope="module")
def section() -> Section:
    return results_section("reproduction", results())


def drawn(section: Section, name: str) -> Figure:
    (picture,) = (one for one in section.pictures if one.name == name)
    assert isinstance(picture, Picture)
    with LIGHT.style():
        figure = picture.draw(LIGHT)
    assert faults(figure) == []
    return figure


def test_every_experiment_has_its_table(section: Section) -> None:
    main, differences, ratio, to_main = section.tables
    assert [cells[0] for cells in main.rows] == ["manual", *METHODS]
    assert differences.rows[0][0] == "clip-static - bbt"
    assert [cells[1] for cells in ratio.rows] == ["0.1", "0.3"]
    assert [cells[0] for cells in to_main.rows] == [
        f"clip-static, {value} - clip-static" for value in ("0.1", "0.3")
    ]
    assert section.facts["searches"] == "20, with seeds 13, 21"


def test_methods_stand_under_each_other_with_a_mark_a_task(section: Section) -> None:
    axes = drawn(section, "methods").axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["manual", *METHODS]
    assert {str(one.get_label()) for one in axes.containers} == set(TASKS)


def test_differences_are_drawn_with_their_intervals(section: Section) -> None:
    axes = drawn(section, "main-differences").axes[0]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    (container,) = axes.containers
    line, _, (bars,) = container.lines  # type: ignore[attr-defined]
    expected = differences("main", results())["clip-static - bbt"]
    at = labels.index("clip-static - bbt")
    assert line.get_xdata()[at] == pytest.approx(expected.mean)
    ends = bars.get_segments()[at][:, 0]
    assert tuple(ends) == pytest.approx((expected.low, expected.high))


def test_an_experiment_of_methods_alone_is_drawn_as_the_main_one_is() -> None:
    clipping = [row("sst2", seed, method, 0.7) for seed in (13, 21) for method in METHODS]
    found = results_section("reproduction", [*results(), *results_of(clipping, "clipping")])
    axes = drawn(found, "clipping").axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == list(METHODS)


def test_what_an_experiment_varies_is_the_axis(section: Section) -> None:
    axes = drawn(section, "clip-ratio").axes[0]
    (container,) = axes.containers
    line = container.lines[0]  # type: ignore[attr-defined]
    assert list(line.get_xdata()) == [0.1, 0.3]
    assert list(line.get_ydata()) == pytest.approx([0.69, 0.67])
