"""A log that is sent from its beginning again and again, shown once."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from cluster import follow as module
from cluster.follow import Shown, follow
from cluster.remote import RefusedError, Submission


def test_what_was_shown_is_not_shown_again() -> None:
    parts: list[str] = []
    shown = Shown(parts.append)
    shown.part("one\ntw", 0)
    shown.part("o\n", 6)
    shown.part("one\n", 0)  # the connection dropped, and the log begins anew, in other parts
    shown.part("two\nthree\n", 4)
    shown.part("one\ntwo\nthree\n", 0)
    assert "".join(parts) == "one\ntwo\nthree\n"


class Jobs:
    """A cluster behind something that lets no connection stay open; its job ends in time."""

    address = "http://head:8265"

    def __init__(self, logs: list[str | None]) -> None:
        self.client = self
        self._logs = logs  # at each look; None where it is refused

    async def tail_job_logs(self, id: str) -> AsyncIterator[str]:
        raise ConnectionError
        yield id

    def look(self, submission: Submission) -> Submission:
        return replace(submission, state="running" if len(self._logs) > 1 else "succeeded")

    def log(self, submission: Submission) -> str:
        content = self._logs.pop(0)
        if content is None:
            raise RefusedError(404, "no such file.")
        return content


def followed(
    monkeypatch: pytest.MonkeyPatch, logs: list[str | None]
) -> tuple[list[str], list[str], str]:
    monkeypatch.setattr(module, "PAUSES", (0.0,))
    shown: list[str] = []
    warned: list[str] = []
    jobs: Any = Jobs(logs)
    job = Submission("first", "running", "", {}, None, 1.0, 2.0)
    return shown, warned, follow(jobs, job, shown.append, warned.append).state


def test_a_log_is_shown_where_no_connection_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    found = followed(monkeypatch, ["a", "ab", "abc", "abcd"])
    dropped = "The connection dropped; listening again."
    assert found == (["a", "b", "c", "d"], [dropped], "succeeded")


def test_a_job_that_is_over_has_ended_whatever_becomes_of_its_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown, warned, state = followed(monkeypatch, ["a", None])
    assert (shown, state) == (["a"], "succeeded")
    assert warned[-1].startswith("The end of its log cannot be read: ")
