"""What replicas count, added up: whoever is scraped says the same, and no counter falls."""

import asyncio
import re
from typing import Any

import pytest
from starlette.responses import Response

from cluster.meters import SILENCE, Meters, Totals


class Handle:
    """Totals as Ray Serve hands them to a replica."""

    def __init__(self, totals: Totals) -> None:
        self.report, self._totals = self, totals

    async def remote(self, *given: Any) -> str:
        return await self._totals.report(*given)


class Gone:
    """A Totals whose process has ended."""

    def __init__(self) -> None:
        self.report = self

    async def remote(self, *_: Any) -> str:
        raise ConnectionError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def text(meters: Meters) -> str:
    return asyncio.run(meters.text())


def value(found: str, name: str) -> float:
    (number,) = re.findall(rf"^cliptune_serve_{re.escape(name)} (\S+)$", found, re.MULTILINE)
    return float(number)


def answered(meters: Meters, count: int = 1, status: int = 200) -> None:
    for _ in range(count):
        meters.request("/v1/classify", Response("four", status), 0.01)


REQUESTS = 'requests_total{path="/v1/classify",status="200"}'


def test_a_replica_without_others_speaks_for_itself() -> None:
    meters = Meters("serve")
    answered(meters, 2)
    answered(meters, status=422)
    found = text(meters)
    assert value(found, REQUESTS) == 2
    assert value(found, 'requests_total{path="/v1/classify",status="422"}') == 1
    assert value(found, "sent_bytes_total") == 12
    assert value(found, "replicas") == 1
    assert "_created" not in found


def test_whichever_replica_is_asked_speaks_for_all() -> None:
    totals = Handle(Totals())
    one, other = Meters("serve", totals), Meters("serve", totals)
    one.gauge("waiting", "Requests", lambda: 2)
    other.gauge("waiting", "Requests", lambda: 3)
    answered(one, 3)
    answered(other, 4)
    text(one)
    assert text(other) == text(one)
    found = text(other)
    assert value(found, REQUESTS) == 7
    assert value(found, 'request_seconds_count{path="/v1/classify"}') == 7
    assert value(found, 'request_seconds_bucket{le="0.025",path="/v1/classify"}') == 7
    assert (value(found, "waiting"), value(found, "replicas")) == (5, 2)


def test_a_replica_that_died_stays_in_the_counters_and_leaves_the_gauges() -> None:
    clock = Clock()
    totals = Handle(Totals(clock))
    dead, new = Meters("serve", totals), Meters("serve", totals)
    dead.gauge("waiting", "Requests", lambda: 2)
    answered(dead, 3)
    text(dead)
    clock.now = SILENCE + 1
    answered(new)
    found = text(new)
    assert value(found, REQUESTS) == 4
    assert value(found, "replicas") == 1
    assert "cliptune_serve_waiting 2" not in found


def test_a_report_that_was_overtaken_does_not_take_counts_back() -> None:
    totals, reports = Totals(), []

    class Kept:
        def __init__(self) -> None:
            self.report = self

        async def remote(self, *given: Any) -> str:
            reports.append(given)
            return ""

    meters = Meters("serve", Kept())
    for _ in range(2):
        answered(meters)
        text(meters)
    for given in reversed(reports):
        found = asyncio.run(totals.report(*given))
        assert value(found, REQUESTS) == 2


def test_without_the_sum_there_is_an_error_and_no_part_of_it() -> None:
    with pytest.raises(ConnectionError):
        text(Meters("serve", Gone()))
