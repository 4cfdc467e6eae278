"""The journal: what was asked and what was answered, a file a generation, append only.

Files are Arrow IPC, a row a candidate. Each carries the SHA-256 of the file before, the first
one the digest of what decides the search, so that a journal can be trusted as a whole. Equal
searches write equal bytes: what differs from run to run belongs into the telemetry.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from cliptune.errors import RunError
from cliptune.types import Fitness, Latents, Rewards

SCHEMA_VERSION = 1
PREVIOUS = b"cliptune.previous"
VERSION = b"cliptune.schema_version"

SCHEMA = pa.schema(
    [
        ("generation", pa.int64()),
        ("candidate", pa.int64()),
        ("latent", pa.list_(pa.float64())),
        ("rewards", pa.list_(pa.float64())),  # by subnetwork
        ("fitness", pa.float64()),
        ("step_size", pa.float64()),
        ("validation", pa.float64()),  # accuracy; null where a candidate was not validated
        ("validation_loss", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Validation:
    """A candidate on the validation set, through the full network."""

    accuracy: float
    loss: float  # cross-entropy

    def order(self, selection: str) -> tuple[float, float]:
        """Larger is better by `search.selection`; the other measure decides between equals."""
        by_loss = (-self.loss, self.accuracy)
        return by_loss if selection == "loss" else by_loss[::-1]


@dataclass(frozen=True)
class Generation:
    """One turn of the search, told as a whole."""

    number: int
    latents: Latents
    rewards: Rewards
    fitness: Fitness
    step_size: float  # that the latents were drawn with
    best: int  # the candidate that was validated
    validation: Validation


class Journal(Protocol):
    """Where a search is written down."""

    def append(self, generation: Generation) -> None:
        """Make a generation durable; when this returns, it is."""

    def read(self) -> Iterator[Generation]:
        """All generations, in order."""


class ArrowJournal:
    """A folder of `000000.arrow`, `000001.arrow`, ..."""

    def __init__(self, folder: Path, origin: str) -> None:
        self._folder = folder
        self._previous = origin
        self._origin = origin
        self._next = 0

    def append(self, generation: Generation) -> None:
        path = self._path(generation.number)
        if generation.number != self._next or path.exists():
            raise RunError(
                f"A journal is only appended to: generation {self._next} comes next, "
                f"found {generation.number} for {path}."
            )
        table = _to_table(generation)
        content = to_bytes(table, {PREVIOUS: self._previous.encode()})
        write_durably(path, content)
        self._previous = hashlib.sha256(content).hexdigest()
        self._next += 1

    def read(self) -> Iterator[Generation]:
        self._previous, self._next = self._origin, 0
        for number in range(len(list(self._folder.glob("*.arrow")))):
            path = self._path(number)
            content = _read_bytes(path)
            table = _open(path, content)
            named = table.schema.metadata.get(PREVIOUS, b"").decode(errors="replace")
            if named != self._previous:
                raise RunError(
                    f"{path} does not follow the file before it: expected SHA-256 "
                    f"{self._previous[:12]}..., it names {named[:12]}.... The journal was changed "
                    "or is another search's."
                )
            self._previous, self._next = hashlib.sha256(content).hexdigest(), number + 1
            yield _from_table(table)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.arrow"


def to_bytes(table: pa.Table, metadata: Mapping[bytes, bytes]) -> bytes:
    """An Arrow IPC file with its schema version and further metadata."""
    stamped = table.replace_schema_metadata({VERSION: str(SCHEMA_VERSION).encode(), **metadata})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, stamped.schema) as writer:
        writer.write_table(stamped)
    return bytes(sink.getvalue())


def write_durably(path: Path, content: bytes) -> None:
    """Write under a temporary name, flush to the disk, rename: whole or not there at all."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise RunError(
            f"{path} cannot be written: {error.strerror}. What was written before is intact; "
            "make room or choose another run_dir."
        ) from error


def _to_table(generation: Generation) -> pa.Table:
    population = len(generation.latents)
    validated = [i == generation.best for i in range(population)]
    columns: dict[str, list[Any]] = {
        "generation": [generation.number] * population,
        "candidate": list(range(population)),
        "latent": generation.latents.tolist(),
        "rewards": generation.rewards.tolist(),
        "fitness": generation.fitness.tolist(),
        "step_size": [generation.step_size] * population,
        "validation": [generation.validation.accuracy if v else None for v in validated],
        "validation_loss": [generation.validation.loss if v else None for v in validated],
    }
    return pa.table(columns, schema=SCHEMA)


def _from_table(table: pa.Table) -> Generation:
    columns = table.to_pydict()
    best = next(i for i, value in enumerate(columns["validation"]) if value is not None)
    return Generation(
        number=columns["generation"][0],
        latents=np.array(columns["latent"], dtype=np.float64),
        rewards=np.array(columns["rewards"], dtype=np.float64),
        fitness=np.array(columns["fitness"], dtype=np.float64),
        step_size=columns["step_size"][0],
        best=best,
        validation=Validation(columns["validation"][best], columns["validation_loss"][best]),
    )


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.") from error


def _open(path: Path, content: bytes) -> pa.Table:
    try:
        table = pa.ipc.open_file(pa.BufferReader(content)).read_all()
        table.validate(full=True)
        whole = table.schema.equals(SCHEMA) and table["validation"].null_count == len(table) - 1
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is damaged: {error}.") from error
    if not whole:
        raise RunError(f"{path} is not a generation of a journal, or damaged.")
    if (version := (table.schema.metadata or {}).get(VERSION)) != str(SCHEMA_VERSION).encode():
        raise RunError(
            f"{path} has journal schema version {version!r}; this cliptune reads {SCHEMA_VERSION}."
        )
    return table
