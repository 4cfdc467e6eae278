"""How times and numbers are put into words."""

import pytest

from jobs.words import clock


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
