"""A generation, a progress and a result made by hand: what is shown of a search."""

from typing import Any

import numpy as np

from cliptune.evaluation import ENSEMBLE, MANUAL, TUNED, Row
from cliptune.journal import Generation, Validation
from cliptune.observer import Progress
from cliptune.record import Cost, Result, Telemetry
from cliptune.task import SPLITS


def generation(number: int, accuracy: float, score: float = -0.25) -> Generation:
    rewards = np.array([[-1.0, -3.0], [-0.5, -0.5], [-2.0, -4.0]])
    return Generation(
        number=number,
        latents=np.zeros((3, 5)),
        rewards=rewards,
        fitness=rewards.mean(axis=1),
        step_size=0.75,
        best=1,
        validation=Validation(accuracy, loss=0.25, macro_f1=0.5625, score=score),
    )


def progress(number: int = 1, *, score: float = -0.25, **changed: Any) -> Progress:
    values: dict[str, Any] = {
        "generation": generation(number, 0.625, score),
        "generations": 4,
        "best": generation(0, 0.875, score),
        "manual": Validation(0.5, loss=0.7, macro_f1=0.4, score=-0.7),
        "telemetry": Telemetry(number, 0.5, 0.9, 78, workers=2, retries=1),
        "prompts_scored": 3 * (number + 1),
        "seconds": 20.0,
        "seconds_left": 65.9,
    }
    return Progress(**values | changed)


def result(run_dir: str = "runs/tiny-20250101-000000", rows: int = 3, **cost: Any) -> Result:
    accuracies = {
        MANUAL: (0.5, 0.5, 0.25),
        TUNED: (1.0, 0.875, 0.75),
        ENSEMBLE: (0.9, 0.8, 0.125),
    }
    table = [
        Row(name, dict(zip(SPLITS, values, strict=True))) for name, values in accuracies.items()
    ]
    costs: dict[str, Any] = {
        "prompts_scored": 8000,
        "search_passes": 1280000,
        "validation_passes": 12832,
        "evaluation_passes": 90,
        "seconds": 61.4,
        "device_seconds": 120.6,
    }
    return Result(
        run_dir=run_dir,
        generation=2,
        candidate=1,
        latent=np.array([0.5, -0.25]),
        validation=Validation(0.875, loss=0.3, macro_f1=0.8, score=-0.3),
        table=table[:rows],
        cost=Cost(**{**costs, **cost}),
        stopped="the budget of 8,000 prompts is spent",
    )
