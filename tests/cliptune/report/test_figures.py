"""The pictures: that they show their numbers, and that all that is written can be read."""

from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from overlaps import faults
from records import GENERATIONS, generation, record, result

from cliptune.account import outcome
from cliptune.report import figures
from cliptune.report.look import LIGHT, Draw, titled
from cliptune.report.numbers import Course, Neighbour, correlation, course, work

LONG = "a name that is longer than any axis has room for, $x_1$ and <b>"


def drawn(draw: Draw) -> Figure:
    with LIGHT.style():
        return draw(LIGHT)


def lines(figure: Figure, panel: int = 0) -> dict[str, list[list[float]]]:
    """x and y of each line of a panel, by its name."""
    found = figure.axes[panel].get_lines()
    return {str(line.get_label()): [list(axis) for axis in line.get_data()] for line in found}


def way(generations: int = 3, subnetworks: int = 2, population: int = 3) -> Course:
    if generations == 3 and subnetworks == 2:
        return course(GENERATIONS, population)
    rng = np.random.default_rng(0)
    values = rng.normal(-2000, 1, (generations, 4, subnetworks))
    many = [generation(n, each, rng.random(), rng.random()) for n, each in enumerate(values)]
    return course(many, population)


def test_fitness_is_drawn_over_prompts_scored() -> None:
    found = lines(drawn(partial(figures.fitness, course=way())))
    assert found["best of a generation"] == [[3, 6, 9], [-2.0, -1.5, -1.0]]
    assert found["its mean"][1] == pytest.approx([-17 / 6, -2.0, -10 / 6])


def test_validation_is_drawn_with_the_chosen_and_the_manual_prompt() -> None:
    found = lines(drawn(partial(figures.validation, course=way(), manual=0.6)))
    assert found["best of a generation"][1] == [0.5, 0.75, 1.0]
    assert found["chosen so far"][1] == [0.5, 0.75, 0.75]
    assert found["manual prompt"][1] == [0.6, 0.6]
    assert len(lines(drawn(partial(figures.validation, course=way(), manual=None)))) == 2


def test_few_fixed_subnetworks_have_a_line_each_and_the_spread_below() -> None:
    figure = drawn(partial(figures.rewards, course=way(), fixed=True))
    assert lines(figure)["1"] == [[3, 6, 9], [-3, -2, -2]]
    assert list(lines(figure)) == ["1", "2"]
    (below,) = lines(figure, panel=1).values()
    assert below[1] == pytest.approx([1.5 / 3, 2 / 3, 1 / 3])


@pytest.mark.parametrize(("subnetworks", "fixed"), [(12, True), (2, False)])
def test_many_or_changing_subnetworks_are_a_band(subnetworks: int, fixed: bool) -> None:
    course = way(subnetworks=subnetworks)
    figure = drawn(partial(figures.rewards, course=course, fixed=fixed))
    assert list(lines(figure)) == ["mean"]
    (band,) = figure.axes[0].collections
    ys = band.get_paths()[0].vertices[:, 1]
    assert ys.min() == course.rewards.min()
    assert ys.max() == course.rewards.max()


def test_retried_units_are_shown_where_there_were_any() -> None:
    run = record(result=result())
    took = work(run, outcome(run))
    assert took is not None
    figure = drawn(partial(figures.speed, work=took))
    assert next(iter(lines(figure).values())) == [[3, 6, 9], [1.5, 3.0, 2.0]]
    (bars,) = figure.axes[1].collections
    assert [segment[1, 1] for segment in bars.get_segments()] == [0, 3, 0]
    calm = record(telemetry=run.telemetry[:1])
    assert len(drawn(partial(figures.speed, work=work(calm, outcome(calm)))).axes) == 1


def test_the_bars_of_where_the_time_went_are_its_parts() -> None:
    parts = {"computing": 3.25, "waiting, Ray, driver": 1.25, "between generations": 0.5}
    (axes,) = drawn(partial(figures.where_time_went, parts=parts)).axes
    assert [bar.get_width() for bar in axes.patches] == list(parts.values())  # type: ignore[attr-defined]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[1:] == ["waiting, Ray, driver\n1.2 s, 25%", "between generations\n0.5 s, 10%"]


def test_correlation_has_numbers_in_its_cells_while_there_is_room() -> None:
    few, many = correlation(GENERATIONS), correlation([generation(0, np.eye(30), 0.5, 0.5)])
    (axes,) = drawn(partial(figures.correlations, found=few)).axes
    shown = f"{few.pairs[0, 1]:.2f}".replace("0.", ".")
    assert [text.get_text() for text in axes.texts] == ["1.00", shown, shown, "1.00"]
    (axes,) = drawn(partial(figures.correlations, found=many)).axes
    assert len(axes.texts) == 0


def test_agreement_is_blue_and_contradiction_is_orange() -> None:
    found = correlation([generation(0, [[0.0, 1.0, 5.0], [1.0, 0.0, 5.0]], 0.5, 0.5)])
    (axes,) = drawn(partial(figures.correlations, found=found)).axes
    cells = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(cells[0, 0], [*figures.HEAT, figures.STRONGEST])
    np.testing.assert_allclose(cells[0, 1], [*figures.COLD, figures.STRONGEST])
    assert cells[0, 2, 3] == 0  # unknown


def test_confusions_are_counts_in_cells_as_strong_as_their_share_of_a_row() -> None:
    counts = np.array([[3, 1], [0, 2]])
    (axes,) = drawn(partial(figures.confusion, counts=counts, classes=["bad", "great"])).axes
    assert [text.get_text() for text in axes.texts] == ["3", "1", "", "2"]
    alpha = np.asarray(axes.images[0].get_array())[..., 3]
    np.testing.assert_allclose(alpha, figures.STRONGEST * np.array([[0.75, 0.25], [0, 1]]))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1 bad", "2 great"]


def test_a_line_a_run_keeps_its_number_and_colour() -> None:
    curves = {1: (np.arange(2.0), np.ones(2)), 3: (np.arange(2.0), np.zeros(2))}
    figure = drawn(partial(figures.compared, courses=curves, label="fitness"))
    assert list(lines(figure)) == ["1", "3"]
    colours = [line.get_color() for line in figure.axes[0].get_lines()]
    assert colours == [LIGHT.series[0], LIGHT.series[2]]


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        ("Ġgood", "␣good"),
        ("▁good", "␣good"),
        ("##ing", "##ing"),
        ("Ċ", "⏎"),
        ("\u202eevil\x00", "U+202EevilU+0000"),
    ],
)
def test_tokens_are_written_so_that_all_of_them_can_be_seen(token: str, shown: str) -> None:
    assert figures.readable(token) == shown


@cache
def wild() -> dict[str, Draw]:
    """Every picture, of the most that a run may hold."""
    run = record(result=result())
    long = way(generations=500, subnetworks=3, population=10_000)
    vectors = [[Neighbour(LONG, -0.25)], *[[Neighbour("Ġgood", 0.5)]] * 49]
    curves: dict[int, Any] = {n: (long.prompts, long.step_size * n) for n in range(1, 31)}
    rng = np.random.default_rng(0)
    return {
        "fitness": partial(figures.fitness, course=long),
        "validation": partial(figures.validation, course=long, manual=0.99),
        "rewards": partial(figures.rewards, course=way(subnetworks=8), fixed=True),
        "band": partial(figures.rewards, course=long, fixed=False),
        "correlation": partial(
            figures.correlations, found=correlation([generation(0, rng.random((9, 10)), 1, 1)])
        ),
        "all alike": partial(
            figures.correlations, found=correlation([generation(0, np.ones((9, 2)), 1, 1)])
        ),
        "step size": partial(figures.step_size, course=long),
        "one generation": partial(figures.step_size, course=course(GENERATIONS[:1], 3)),
        "speed": partial(figures.speed, work=work(run, outcome(run))),
        "time": partial(
            figures.where_time_went,
            parts={"computing": 1e6, "waiting, Ray, driver": 0.0, "between generations": 3.0},
        ),
        "tokens": partial(figures.tokens, vectors=vectors),
        "confusion": partial(
            figures.confusion, counts=np.full((14, 14), 5000), classes=[LONG] * 14
        ),
        "counts": partial(figures.confusion, counts=np.full((10, 10), 500), classes=[LONG] * 10),
        "classes": partial(figures.confusion, counts=np.eye(150), classes=[LONG] * 150),
        "compared": partial(figures.compared, courses=curves, label="step size", kind="factors"),
        "percent": partial(figures.compared, courses=curves, label="accuracy", kind="percent"),
    }


@pytest.mark.parametrize("name", wild())
def test_nothing_that_is_written_lies_over_something_else_or_is_cut_off(name: str) -> None:
    figure = drawn(wild()[name])
    assert faults(figure) == []
    with LIGHT.style():
        assert faults(titled(figure, "A title, as files have it")) == []
