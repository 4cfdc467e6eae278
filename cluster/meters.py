"""What a server counts for Prometheus, and the sum of it over all of its replicas.

A scrape reaches one replica, whichever Ray Serve chooses. Each one therefore reports what it has
counted since it began, and whoever is scraped answers with the sum. What a replica counted that has
died stays in the sum: a counter never falls.
"""

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import prometheus_client
from prometheus_client.core import Metric
from starlette.responses import Response

BEAT = 5.0  # seconds between two reports of a replica
SILENCE = 6 * BEAT  # seconds until a replica is taken for gone, and its gauges do not count
PATIENCE = 3.0  # seconds that a report may take

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Family:
    """A meter of a replica, as it stands."""

    name: str
    kind: str  # counter, gauge, histogram
    text: str
    samples: tuple[tuple[str, Labels, float], ...]


Report = tuple[Family, ...]


class Totals:
    """Adds up what replicas report. With several of them it is an actor of its own."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, tuple[int, float, Report]] = {}  # by replica: number, when, what

    async def report(self, replica: str, number: int, report: Report) -> str:
        """Take a replica's report, of which it has sent `number` before, and say what all have
        counted, in Prometheus' own format."""
        if number >= self._last.get(replica, (0,))[0]:  # reports may overtake each other
            self._last[replica] = (number, self._clock(), report)
        return prometheus_client.generate_latest(self).decode()

    def collect(self) -> Iterator[Metric]:
        """Each meter, summed over the replicas."""
        now, heads = self._clock(), {}
        sums: dict[str, dict[tuple[str, Labels], float]] = {}
        for _, when, report in self._last.values():
            for family in report:
                heads[family.name] = family
                values = sums.setdefault(family.name, defaultdict(float))
                if family.kind == "gauge" and now - when > SILENCE:
                    continue
                for name, labels, value in family.samples:
                    values[name, labels] += value
        for head in heads.values():
            metric = Metric(head.name, head.text, head.kind)
            for (name, labels), value in sums[head.name].items():
                metric.add_sample(name, dict(labels), value)
            yield metric


class Meters:
    """What one replica counts."""

    def __init__(self, server: str, totals: Any = None) -> None:
        """Names begin with `cliptune_` and the `server`. `totals` is the Ray Serve handle of a
        Totals; without one this replica speaks for itself."""
        self._server, self._totals = server, totals
        self._registry = prometheus_client.CollectorRegistry()
        self._replica, self._numbers = uuid.uuid4().hex, count()
        self._alone = Totals()
        self._requests = self.counter("requests", "Answered", "path", "status")
        self._seconds = self.histogram("request_seconds", "To the answer", "path")
        self._sent = self.counter("sent_bytes", "Bytes of the answers")
        self.received = self.counter("received_bytes", "Bytes of the requests' bodies")
        self.gauge("replicas", "That have reported lately", lambda: 1)

    def counter(self, name: str, text: str, *labels: str) -> Any:
        return prometheus_client.Counter(self._full(name), text, labels, registry=self._registry)

    def histogram(self, name: str, text: str, *labels: str, **more: Any) -> Any:
        return prometheus_client.Histogram(
            self._full(name), text, labels, registry=self._registry, **more
        )

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that is looked at whenever it is reported."""
        found = prometheus_client.Gauge(self._full(name), text, registry=self._registry)
        found.set_function(value)

    def request(self, path: str, response: Response, seconds: float) -> None:
        """An answer that is about to be sent."""
        self._requests.labels(path, str(response.status_code)).inc()
        self._seconds.labels(path).observe(seconds)
        self._sent.inc(len(response.body))

    async def text(self) -> str:
        """What all replicas have counted; the others' numbers are at most BEAT seconds old.

        Raises TimeoutError, or what Ray raises, where the sum cannot be had.
        """
        given = (self._replica, next(self._numbers), self._report())
        if self._totals is None:
            return await self._alone.report(*given)
        answer: str = await asyncio.wait_for(self._totals.report.remote(*given), PATIENCE)
        return answer

    def _report(self) -> Report:
        return tuple(
            Family(
                metric.name,
                metric.type,
                metric.documentation,
                tuple(
                    (sample.name, tuple(sample.labels.items()), sample.value)
                    for sample in metric.samples
                    if not sample.name.endswith("_created")  # times, which cannot be added up
                ),
            )
            for metric in self._registry.collect()
        )

    def _full(self, name: str) -> str:
        return f"cliptune_{self._server}_{name}"
