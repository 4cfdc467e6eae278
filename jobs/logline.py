"""One line of `key=value` a generation: what a job's log says to people and to programs."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from cliptune.observer import Progress
from jobs.words import generation_values

GENERATION = re.compile(r"^time=\S+ generation=\d+(/\d+)? .*$", re.MULTILINE)


def log_line(progress: Progress, now: datetime | None = None) -> str:
    """`time=... generation=3/30 fitness_best=-0.512 ...`; generations are counted from 1 here."""
    done, of = progress.generation.number + 1, progress.generations
    telemetry = progress.telemetry
    values = generation_values(progress.generation)
    values |= {
        "best_generation": progress.best.number + 1,
        "best_accuracy": progress.best.validation.accuracy,
        "best_loss": progress.best.validation.loss,
        "best_score": progress.best.validation.score,
        "prompts_scored": progress.prompts_scored,
        "seconds": progress.seconds,
        "seconds_left": float("nan") if progress.seconds_left is None else progress.seconds_left,
        "workers": telemetry.workers,
        "retries": telemetry.retries,
    }
    del values["generation"]
    time = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    fields = [f"time={time}", f"generation={done}" if of is None else f"generation={done}/{of}"]
    fields += [f"{key}={value:.6g}" for key, value in values.items()]
    return " ".join(field for field in fields if not field.endswith("=nan"))


def last_generation(log: str) -> Mapping[str, str]:
    """The values of the last such line in a log; nothing where there is none yet."""
    lines = list(GENERATION.finditer(log))
    if not lines:
        return {}
    return dict(field.split("=", 1) for field in lines[-1][0].split() if "=" in field)
