"""Curves of characters."""

import pytest

from jobs.chart import plot, sparkline


def test_a_sparkline_has_a_character_a_value() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 20) == "▁▂▃▄▅▆▇█"


def test_a_sparkline_does_not_depend_on_scale_or_sign() -> None:
    assert sparkline([-70, -35, 0], 20) == sparkline([1e-6, 1.5e-6, 2e-6], 20) == "▁▅█"


def test_a_narrow_sparkline_shows_means_of_neighbours() -> None:
    assert sparkline([0, 2, 4, 6, 8, 6], 3) == sparkline([1, 5, 7], 3)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_constant_is_a_flat_line(count: int) -> None:
    assert sparkline([3.5] * count, 20) == "▁" * count


def test_a_long_history_fits_however_narrow_the_place() -> None:
    assert len(sparkline([float(i % 7) for i in range(1000)], 1)) == 1


def test_a_plot_fills_what_is_under_the_curve() -> None:
    assert plot([0, 7, 15], 3, 2) == ["  █", "▁██"]


def test_a_plot_has_its_height_and_at_most_its_width() -> None:
    rows = plot([float(i % 13) for i in range(999)], 60, 5)
    assert len(rows) == 5
    assert max(map(len, rows)) == 60


def test_a_short_history_is_spread_over_the_width() -> None:
    assert plot([0, 1], 7, 1) == ["▁▁▁███"]
