"""The table of a cluster's jobs."""

from typing import Any

from rich.console import Console

from jobs.jobs import table


def text(*rows: dict[str, Any]) -> str:
    console = Console(width=80)
    with console.capture() as shown:
        console.print(table(rows))
    return shown.get()


def job(**values: Any) -> dict[str, Any]:
    return {"id": "first", "state": "running", "began": 1e9, "ended": None, "progress": {}} | values


def test_a_job_is_a_row_with_how_far_it_is() -> None:
    told = {"generation": "3/30", "best_accuracy": "0.75", "validation_accuracy": "0.5"}
    (row,) = [line for line in text(job(progress=told)).splitlines() if "first" in line]
    assert row.split()[:5] == ["first", "running", "3/30", "75.0%", "50.0%"]
    assert row.split()[5].startswith("2001-09-")


def test_a_job_that_has_searched_nothing_yet_has_a_row_too() -> None:
    shown = text(job(state="pending", began=None))
    assert "pending" in shown
    assert "%" not in shown
