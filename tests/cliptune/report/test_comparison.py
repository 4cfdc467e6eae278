"""Several runs in one section: the same number, and colour, everywhere."""

from dataclasses import replace
from typing import Any

from matplotlib.figure import Figure
from overlaps import faults
from records import GENERATIONS, record, result

from cliptune.report.comparison import comparison_section
from cliptune.report.look import LIGHT
from cliptune.report.parts import Section


def figure(section: Section, name: str) -> Figure:
    (picture,) = [picture for picture in section.pictures if picture.name == name]
    with LIGHT.style():
        drawn = picture.draw(LIGHT)
    assert faults(drawn) == []
    return drawn


def curves(drawn: Figure) -> dict[str, list[float]]:
    return {str(line.get_label()): list(line.get_ydata()) for line in drawn.axes[0].get_lines()}


def seeded(seed: int, **changed: Any) -> Any:
    sections = {"search": {"population": 3, "budget": 30, "seed": seed}}
    return record(path=f"runs/{seed}", sections=sections, **changed)


def test_curves_lie_over_each_other_by_the_number_of_their_run() -> None:
    found = comparison_section([seeded(5), seeded(6, generations=GENERATIONS[:2])])
    assert curves(figure(found, "fitness")) == {"1": [-2.0, -1.5, -1.0], "2": [-2.0, -1.5]}
    assert curves(figure(found, "validation"))["1"] == [0.5, 0.75, 0.75]
    assert curves(figure(found, "speed"))["2"] == [1.5, 3.0]
    assert set(curves(figure(found, "spread"))) == set(curves(figure(found, "step-size")))


def test_the_table_names_runs_results_and_where_they_differ() -> None:
    runs, settings = comparison_section([seeded(5, result=result()), seeded(6)]).tables
    assert runs.rows == [
        ["1", "runs/5", "75.0%", "50.0%", "75.0%", "", "9", "0:05", "finished"],
        ["2", "runs/6", "75.0%", "", "", "", "9", "0:04", "unfinished"],
    ]
    assert settings.columns == ["run", "search.seed"]
    assert settings.rows == [["1", "5"], ["2", "6"]]


def test_equal_runs_have_no_table_of_differences() -> None:
    assert len(comparison_section([record(), record()]).tables) == 1


def test_a_run_that_has_not_begun_leaves_the_others_their_numbers() -> None:
    begun = replace(record(), generations=[], telemetry=[])
    found = comparison_section([begun, record()])
    drawn = figure(found, "fitness")
    assert list(curves(drawn)) == ["2"]
    assert drawn.axes[0].get_lines()[0].get_color() == LIGHT.series[1]
    assert [absent.title for absent in found.absent] == ["Run 1"]


def test_runs_of_other_losses_are_not_to_be_compared_by_fitness() -> None:
    sections = {"search": {"population": 3, "budget": 30, "loss": "hinge"}}
    found = comparison_section([record(), record(sections=sections)])
    (fitness,) = [picture for picture in found.pictures if picture.name == "fitness"]
    assert fitness.caption.endswith(
        "Their losses differ (cross-entropy, hinge): do not compare these."
    )


def test_many_runs_can_still_be_told_apart() -> None:
    drawn = figure(comparison_section([record()] * 20), "fitness")
    looks = {(line.get_color(), line.get_linestyle()) for line in drawn.axes[0].get_lines()}
    assert len(looks) == 20
