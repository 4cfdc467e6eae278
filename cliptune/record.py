"""Reading run directories: a run, finished or not, as a search wrote it (see run.py)."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pyarrow as pa
import yaml

from cliptune.config import Config, validate
from cliptune.errors import RunError
from cliptune.evaluation import Row
from cliptune.hashing import digest
from cliptune.journal import Generation, Journal, Validation, best_of, unsealed
from cliptune.older import as_now
from cliptune.scorer import Bill, ModelFacts
from cliptune.storage import Folder, open_folder
from cliptune.types import Latent

C = TypeVar("C", bound=Config)

CONFIG = "config.yaml"
ORIGIN = "origin.json"
RESULT = "result.json"
TELEMETRY = "telemetry"
PROMPT = "prompt.safetensors"
BIASES = "biases"  # in it, beside `prompt`
CARD = "prompt.json"
BILL = "bill.json"

CONFUSION = "test_confusion"  # of result.json: counts by row of its table
NEAREST = "nearest"  # of prompt.json: tokens by prompt vector


@dataclass(frozen=True)
class Cost:
    """What a search took, earlier sessions included."""

    prompts_scored: int
    search_passes: int  # prompts x subnetworks x training examples
    validation_passes: int
    evaluation_passes: int  # of the table at the end
    seconds: float  # of the search, without starting up
    device_seconds: float  # summed over the workers


@dataclass(frozen=True)
class Result:
    """What a search found."""

    run_dir: str
    generation: int
    candidate: int | None  # none where it is the generation's mean
    latent: Latent
    validation: Validation
    table: list[Row]
    cost: Cost
    stopped: str  # why the search ended, in words
    bill: Bill | None = None  # of a model behind an API


@dataclass(frozen=True)
class Telemetry:
    """What one generation took."""

    generation: int
    seconds: float
    device_seconds: float
    forward_passes: int
    workers: int
    retries: int


@dataclass(frozen=True)
class RunRecord(Generic[C]):
    """A run directory, read."""

    path: str
    config: C
    facts: ModelFacts
    identity: dict[str, Any]  # what decides the results; see identity.py
    generations: list[Generation]
    telemetry: list[Telemetry]
    result: dict[str, Any] | None  # of result.json; None where the search has not ended
    labels: tuple[int | str, ...] = ()  # what its label column has for each class, where known

    @property
    def label_values(self) -> tuple[int | str, ...]:
        """What a label column has for each class; numbers in runs that do not say."""
        task = self.config.task
        return task.labels or self.labels or tuple(range(len(task.label_words)))

    @property
    def best(self) -> Generation | None:
        """The generation whose prompt is chosen as of now."""
        return best_of(self.generations) if self.generations else None


def read_config(place: str) -> dict[str, Any]:
    """The settings of a run directory, as a tree."""
    folder = open_folder(place)
    check_resumable(folder)
    try:
        tree = yaml.safe_load(folder.read(CONFIG).decode())
    except (ValueError, yaml.YAMLError) as error:
        raise RunError(f"{place}/{CONFIG} is damaged: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise RunError(f"{place}/{CONFIG} is damaged: expected settings, found {tree!r:.60}.")
    return as_now(tree)


def read_run(kind: type[C], place: str) -> RunRecord[C]:
    """Read a run, finished or not, without holding it; RunError for what is none."""
    folder = open_folder(place)
    config = validate(
        kind, {**_sections(kind, read_config(place)), "run_dir": place}, as_written=True
    )
    if not folder.exists(ORIGIN):
        raise RunError(
            f"{place} has no {ORIGIN}: its search has not begun, or an older cliptune wrote it "
            "(its config.yaml can be searched again)."
        )
    origin = read_json(folder, ORIGIN)
    try:
        facts = ModelFacts(**origin["facts"])
        journal = Journal(folder, digest(origin["identity"]))
    except (KeyError, TypeError) as error:
        raise RunError(f"{place}/{ORIGIN} is not one of cliptune's: {error}.") from None
    return RunRecord(
        path=place,
        config=config,
        facts=facts,
        identity=origin["identity"],
        generations=journal.read(),
        telemetry=read_telemetry(folder),
        result=read_json(folder, RESULT) if folder.exists(RESULT) else None,
        labels=_labels(origin, config, place),
    )


def _labels(origin: Mapping[str, Any], config: Config, place: str) -> tuple[int | str, ...]:
    found = origin.get("labels") or []  # older runs do not say
    if found and (
        not isinstance(found, list)
        or {type(value) for value in found} - {int, str}
        or len(found) != len(config.task.label_words)
    ):
        raise RunError(
            f"{place}/{ORIGIN} is not one of cliptune's: expected labels, one of each class; found "
            f"{found!r:.60}."
        )
    return tuple(found)


def _sections(kind: type[Config], tree: dict[str, Any]) -> dict[str, Any]:
    """What this storey knows of the settings: a search on a cluster writes those of its own too."""
    if kind is not Config:
        return tree
    return {name: section for name, section in tree.items() if name in Config.model_fields}


def is_run(place: str) -> bool:
    """Whether a search has begun there, if only to load its model."""
    return open_folder(place).exists(CONFIG)


def check_resumable(folder: Folder) -> None:
    """Refuse what is no run directory."""
    if not folder.exists(CONFIG):
        raise RunError(
            f"{folder.place} is no run directory: there is no {CONFIG} in it. Expected the folder "
            "that a search said it was written to."
        )
    if folder.names("journal") and not folder.exists(ORIGIN):
        raise RunError(
            f"{folder.place} has no {ORIGIN}: an older cliptune wrote it, with journal schema "
            "version 1, or it is incomplete. Its config.yaml can be searched again, with a new "
            "run_dir."
        )


def read_telemetry(folder: Folder) -> list[Telemetry]:
    rows = []
    for name in folder.names(TELEMETRY):
        content = folder.read(f"{TELEMETRY}/{name}") if name.endswith(".arrow") else b""
        if unsealed(content):
            with contextlib.suppress(TypeError):
                rows += [
                    Telemetry(**row) for row in pa.ipc.open_file(content).read_all().to_pylist()
                ]
    return rows


def read_json(folder: Folder, name: str) -> dict[str, Any]:
    try:
        value = json.loads(folder.read(name))
    except ValueError as error:
        raise RunError(f"{folder.place}/{name} is damaged: {error}.") from None
    if not isinstance(value, dict):
        raise RunError(f"{folder.place}/{name} is damaged: expected an object.")
    return value
