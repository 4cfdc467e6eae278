"""Runs made by hand, as a report reads them: every number is known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tiny

from cliptune.config import Config
from cliptune.journal import Generation, Validation
from cliptune.loop import search
from cliptune.record import RunRecord, Telemetry, read_run
from cliptune.task import SPLITS


def generation(number: int, rewards: Any, accuracy: float, loss: float) -> Generation:
    """A generation of `(population, subnetworks)` rewards."""
    values = np.asarray(rewards, dtype=np.float64)
    fitness = values.mean(axis=1)
    return Generation(
        number=number,
        latents=np.zeros((len(values), 5)),
        rewards=values,
        fitness=fitness,
        step_size=1.0 / (number + 1),
        best=int(fitness.argmax()),
        validation=Validation(accuracy, loss, macro_f1=accuracy, score=-loss),
    )


GENERATIONS = [
    generation(0, [[-4.0, -2.0], [-2.0, -2.0], [-3.0, -4.0]], accuracy=0.5, loss=0.75),
    generation(1, [[-3.0, -1.0], [-1.0, -2.0], [-2.0, -3.0]], accuracy=0.75, loss=0.5),
    generation(2, [[-3.0, -1.0], [-1.0, -1.0], [-2.0, -2.0]], accuracy=1.0, loss=0.6),
]
TELEMETRY = [
    Telemetry(0, seconds=2.0, device_seconds=3.0, forward_passes=18, workers=2, retries=0),
    Telemetry(1, seconds=1.0, device_seconds=1.5, forward_passes=18, workers=2, retries=3),
    Telemetry(2, seconds=1.5, device_seconds=1.0, forward_passes=18, workers=1, retries=0),
]


def record(**changed: Any) -> RunRecord[Config]:
    """An unfinished run of three generations of three candidates, through two subnetworks."""
    sections = {
        "search": {"population": 3, "budget": 30},
        "ensemble": {"subnetworks": 2},
    }
    config = tiny.config(Path("model"), Path("data"), **{**sections, **changed.pop("sections", {})})
    values: dict[str, Any] = {
        "path": "runs/handmade",
        "config": config,
        "facts": tiny.PlainScorer(config).facts(),
        "identity": {},
        "generations": GENERATIONS,
        "telemetry": TELEMETRY,
        "result": None,
    }
    return RunRecord(**values | changed)


def result(prompts: int = 9, **changed: Any) -> dict[str, Any]:
    """A result.json of the record, at its end after so many prompts."""
    cost = ("search_passes", "validation_passes", "evaluation_passes", "device_seconds")
    accuracy = {"manual prompt": 0.5, "tuned prompt": 0.75}
    return {
        "stopped": "the budget of 9 prompts is spent",
        "accuracy": {name: dict.fromkeys(SPLITS, value) for name, value in accuracy.items()},
        "cost": {"prompts_scored": prompts, "seconds": 5.0, **dict.fromkeys(cost, 1)},
        **changed,
    }


def searched(run_dir: Path, **sections: Any) -> RunRecord[Config]:
    """A run that really was searched and has ended, without a model."""
    config = tiny.config(Path("model"), Path("data"), run_dir, **sections)
    search(config, tiny.PlainScorer(config))
    return read_run(Config, str(run_dir))


def without(run_dir: Path, file: str, name: str) -> None:
    """Take from a JSON file what an older cliptune did not write."""
    path = run_dir / file
    tree = json.loads(path.read_text(encoding="utf-8"))
    del tree[name]
    path.write_text(json.dumps(tree), encoding="utf-8")
