"""Rows of a sweep's table, made by hand, for tables of results."""

from typing import Any


def row(task: str, seed: int, method: str, test: float, **more: Any) -> dict[str, Any]:
    """A search that is done, of a task with a seed by a method."""
    return {
        "task": task,
        "seed": seed,
        "method": method,
        "value": None,
        "state": "done",
        "accuracy.manual.validation": 0.5,
        "accuracy.manual.test": 0.6,
        "accuracy.tuned.validation": 0.75,
        "accuracy.tuned.test": test,
        "f1.manual.test": 0.55,
        "f1.tuned.test": test - 0.1,
        "cost.prompts_scored": 600,
        "cost.search_passes": 600 * 3 * 32,
        "cost.device_seconds": 30.0,
        **more,
    }
