"""A generation in a job's log, written and read again."""

from dataclasses import replace
from datetime import UTC, datetime

from handmade import progress

from jobs.logline import last_generation, log_line

NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)


def test_a_generation_is_one_line_of_keys_and_values() -> None:
    line = log_line(progress(), NOON)
    fields = [field.split("=") for field in line.split(" ")]
    assert all(len(field) == 2 for field in fields)
    values = dict(fields)
    assert values["time"] == "2025-01-01T12:00:00+00:00"
    done, of = progress().generation.number + 1, progress().generations
    assert values["generation"] == f"{done}/{of}"
    assert float(values["best_accuracy"]) == progress().best.validation.accuracy


def test_what_is_not_known_is_left_out() -> None:
    line = log_line(replace(progress(), generations=None, seconds_left=None), NOON)
    assert "seconds_left" not in line
    assert f"generation={progress().generation.number + 1} " in line


def test_the_last_generation_of_a_log_is_found_between_other_lines() -> None:
    first, second = log_line(progress(1), NOON), log_line(progress(2), NOON)
    assert second != first
    log = f"Starting Ray ...\n{first}\nNo actor is left, waiting\n{second}\nStopped. time=soon\n"
    assert last_generation(log) == dict(field.split("=") for field in second.split(" "))
    assert last_generation("Starting Ray ...\n") == {}
