"""How times and numbers are put into words."""

import pytest
from handmade import generation

from jobs.words import clock, spread


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0:00"),
        (5.9, "0:05"),
        (65.9, "1:05"),
        (3599, "59:59"),
        (3600, "1:00:00"),
        (9e4, "25:00:00"),
    ],
)
def test_times_are_minutes_and_seconds_and_hours_where_there_are_any(
    seconds: float, shown: str
) -> None:
    assert clock(seconds) == shown


def test_spread_is_how_far_critics_disagree_about_a_candidate() -> None:
    assert spread(generation(0, 0.5)) == pytest.approx((1.0 + 0.0 + 1.0) / 3)
