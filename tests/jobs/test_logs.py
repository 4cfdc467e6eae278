"""How a job ended, in words and as an exit code."""

import pytest

from cluster.remote import Submission
from jobs.logs import exit_code, outcome


def ended(state: str, code: int | None = None, message: str = "") -> Submission:
    return Submission("first-2", state, message, {"job": "first", "try": "2"}, code, 1.0, 2.0)


@pytest.mark.parametrize(
    ("job", "code"),
    [
        (ended("succeeded", 0), 0),
        (ended("stopped"), 143),
        (ended("failed", 2), 2),
        (ended("failed", -9), 1),
        (ended("failed"), 1),
    ],
)
def test_only_a_success_ends_with_zero(job: Submission, code: int) -> None:
    assert exit_code(job) == code


def test_a_missing_command_is_said_to_be_missing() -> None:
    assert "there is no command cliptune" in outcome(ended("failed", 127))


def test_what_ray_says_of_a_job_that_never_ran_is_passed_on() -> None:
    assert "first-2 has failed: no room" in outcome(ended("failed", None, "no\nroom"))
