"""The run directory: config, journal, telemetry, and at the end the result and the prompt.

config.yaml         as resolved; running it again repeats the search
journal/            the search, deterministic (see journal.py)
telemetry/          what differs from run to run: seconds, actors, retries
result.json         the chosen prompt, the table, the cost
prompt.safetensors  `prompt`, (length, width) float32
prompt.json         what the prompt belongs to
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from safetensors.numpy import save

from cliptune.config import Config, digest
from cliptune.errors import RunError
from cliptune.evaluation import Row
from cliptune.journal import ArrowJournal, Validation, to_bytes, write_durably
from cliptune.scorer import ModelFacts
from cliptune.task import Task
from cliptune.types import Latent, PromptArray


@dataclass(frozen=True)
class Cost:
    """What a search took: prompts, forward passes by purpose, seconds."""

    prompts_scored: int
    search_passes: int  # prompts x subnetworks x training examples
    validation_passes: int
    evaluation_passes: int  # of the table at the end
    seconds: float  # of the search, without starting up
    device_seconds: float  # summed over the workers


@dataclass(frozen=True)
class Result:
    """What a search found."""

    run_dir: Path
    generation: int
    candidate: int
    latent: Latent
    validation: Validation
    table: list[Row]
    cost: Cost


@dataclass(frozen=True)
class Telemetry:
    """What one generation took."""

    generation: int
    seconds: float
    device_seconds: float
    forward_passes: int
    workers: int
    retries: int


def choose_run_dir(config: Config) -> Path:
    """`run_dir`, or a new name under runs/; refused where something is already there."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    path = config.run_dir or Path("runs") / f"{config.task.name}-{stamp}"
    try:
        taken = path.exists() and (not path.is_dir() or any(path.iterdir()))
    except OSError as error:
        raise RunError(f"run_dir {path} cannot be used: {error.strerror}.") from error
    if taken:
        raise RunError(
            f"run_dir {path} is not empty. Choose a new one; runs are never overwritten."
        )
    return path


class RunDirectory:
    """Writes the record of one search."""

    def __init__(self, config: Config, task: Task, facts: ModelFacts) -> None:
        self.path = choose_run_dir(config)
        self._task = task
        self._facts = facts
        self._config = config.model_copy(update={"run_dir": self.path})
        identity = {
            "config": config.identity(),
            "model": facts.sha256,
            "data": task.digest(),
            "prompt_file": _file_digest(config.prompt.file),
        }
        try:
            for name in ("journal", "telemetry"):
                (self.path / name).mkdir(parents=True)
        except OSError as error:
            raise RunError(f"run_dir {self.path} cannot be made: {error.strerror}.") from error
        tree = self._config.model_dump(mode="json")
        text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
        write_durably(self.path / "config.yaml", text.encode())
        self.journal = ArrowJournal(self.path / "journal", origin=digest(identity))

    def record(self, telemetry: Telemetry) -> None:
        """Write what a generation took."""
        table = pa.Table.from_pylist([asdict(telemetry)])
        path = self.path / "telemetry" / f"{telemetry.generation:06d}.arrow"
        write_durably(path, to_bytes(table, {}))

    def finish(self, result: Result, prompt: PromptArray) -> None:
        """Write the prompt, what it belongs to, and the result; the result comes last."""
        write_durably(self.path / "prompt.safetensors", save({"prompt": prompt}))
        config = self._config
        scores = {"validation": asdict(result.validation), "accuracy": _table(result)}
        card = {
            "schema_version": config.schema_version,
            "shape": list(prompt.shape),
            "position": config.prompt.position,
            "model": asdict(self._facts),
            "task": config.task.name,
            "template": config.task.template,
            "label_words": list(config.task.label_words),
            "seeds": {
                "search": config.search.seed,
                "prompt": config.prompt.seed,
                "ensemble": config.ensemble.seed,
                "task": config.task.seed,
            },
            "scores": scores,
        }
        self._write_json("prompt.json", card)
        self._write_json("result.json", result_json(result))

    def _write_json(self, name: str, value: Any) -> None:
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        write_durably(self.path / name, text.encode())


def _file_digest(path: Path | None) -> str | None:
    return None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


def result_json(result: Result) -> dict[str, Any]:
    """A result as JSON values."""
    return {
        "run_dir": str(result.run_dir),
        "selected": {
            "generation": result.generation,
            "candidate": result.candidate,
            "validation_accuracy": result.validation.accuracy,
            "validation_loss": result.validation.loss,
            "latent": result.latent.tolist(),
        },
        "accuracy": _table(result),
        "cost": asdict(result.cost),
    }


def _table(result: Result) -> dict[str, dict[str, float]]:
    return {row.name: row.accuracy for row in result.table}
