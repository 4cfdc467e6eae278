"""The figures of a search as a Prometheus server reads them from Ray."""

import json
import re
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from clusters import one_machine
from handmade import progress

from cluster.metrics import GAUGES, RETRIES, Metrics

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana.json"
EXPOSED = {f"ray_{name}" for name in GAUGES} | {f"ray_{RETRIES}_total"}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def read(port: int) -> dict[str, tuple[str, float]]:
    """Our metrics as they are exposed: the run and the value, by name."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
            text = page.read().decode()
    except (urllib.error.URLError, ConnectionError):
        return {}
    found = re.findall(r'^(ray_cliptune_\w+)\{.*\brun="([^"]*)".*\} (\S+)$', text, re.M)
    return {name: (run, float(value)) for name, run, value in found}


@pytest.mark.slow
def test_a_generation_can_be_read_from_ray_by_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("prometheus_client", reason="Ray exposes metrics with ray[default] only")
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "500")
    port = free_port()
    with one_machine(1, _metrics_export_port=port):
        metrics = Metrics("runs/a b")
        metrics.workers(2)
        metrics.generation(progress(7))
        until, found = time.monotonic() + 60, read(port)
        while set(found) < EXPOSED and time.monotonic() < until:
            found = read(port)
    assert found == {
        "ray_cliptune_generation": ("runs/a b", 8),
        "ray_cliptune_fitness_best": ("runs/a b", -0.5),
        "ray_cliptune_fitness_mean": ("runs/a b", pytest.approx(-11 / 6)),
        "ray_cliptune_spread": ("runs/a b", pytest.approx(2 / 3)),
        "ray_cliptune_step_size": ("runs/a b", 0.75),
        "ray_cliptune_validation_accuracy": ("runs/a b", 0.875),
        "ray_cliptune_prompts_per_second": ("runs/a b", 6),
        "ray_cliptune_actors": ("runs/a b", 2),
        "ray_cliptune_units_retried_total": ("runs/a b", 1),
    }


def test_the_dashboard_shows_each_metric_and_no_other() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    targets = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert {name for expr in targets for name in re.findall(r"ray_\w+", expr)} == EXPOSED
    assert all('run=~"$run"' in expr for expr in targets)


def test_no_panel_of_the_dashboard_covers_another() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells)) == 24 * 8 * 4
