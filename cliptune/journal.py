"""The journal: what was asked and what was answered, a file a generation, append only.

Files are Arrow IPC, a row a candidate. Each carries the SHA-256 of its own bytes and that of the
file before, the first one the digest of what decides the search, so that a journal can be trusted
as a whole and a damaged file is known before it is parsed. Equal searches write equal bytes: what
differs from run to run belongs into the telemetry.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cliptune.errors import RunError
from cliptune.storage import Folder
from cliptune.types import Biases, Fitness, Latent, Latents, Rewards

SCHEMA_VERSION = 2
VERSION = b"cliptune.schema_version"
PREVIOUS = b"cliptune.previous"
OWN = b"cliptune.own"
MICRO_BATCH = b"cliptune.micro_batch"
MEAN = b"cliptune.mean"
BIASES = b"cliptune.biases"
OWN_PREFIX = b"sha256:"
OWN_PATTERN = re.compile(rb"sha256:([0-9a-f]{64})")
BLANK = b"0" * 64
SUFFIX = ".arrow"
FOLDER = "journal"

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
        ("validation_f1", pa.float64()),
        ("validation_score", pa.float64()),  # of search.selection's metric
    ]
)


@dataclass(frozen=True)
class Validation:
    """A candidate on the validation set, through the full network."""

    accuracy: float
    loss: float  # cross-entropy
    macro_f1: float
    score: float  # of search.selection's metric, higher is better

    @property
    def order(self) -> tuple[float, float, float]:
        """Larger is better; loss, then accuracy, decide between equal scores."""
        return (self.score, -self.loss, self.accuracy)


@dataclass(frozen=True)
class Generation:
    """One turn of the search, told as a whole."""

    number: int
    latents: Latents
    rewards: Rewards
    fitness: Fitness
    step_size: float  # that the latents were drawn with
    best: int  # the fittest candidate
    validation: Validation
    micro_batch: int | None = None  # where memory ran out: rows from here on; else the config's
    mean: Latent | None = None  # what the candidates were drawn around, where that is validated
    biases: Biases | None = None  # of the validated prompt, where class scores are calibrated

    @property
    def validated(self) -> Latent:
        """The latent that stands for the generation."""
        return self.latents[self.best] if self.mean is None else self.mean

    @property
    def name(self) -> str:
        """Which latent that is, in words."""
        which = f"candidate {self.best + 1}" if self.mean is None else "the mean"
        return f"generation {self.number + 1}, {which}"

    @property
    def spread(self) -> float:
        """How far subnetworks disagree: standard deviation over them, mean over candidates."""
        return float(self.rewards.std(axis=1).mean())


def best_of(generations: Sequence[Generation]) -> Generation:
    """The generation whose prompt is chosen; the first one of equals."""
    return max(generations, key=lambda generation: generation.validation.order)


class Journal:
    """The files `journal/000000.arrow`, `000001.arrow`, ... of a run directory."""

    def __init__(self, folder: Folder, origin: str) -> None:
        self._folder = folder
        self._previous = origin
        self._next = 0
        self._damaged: str | None = None

    def append(self, generation: Generation) -> None:
        """Make a generation durable; when this returns, it is."""
        name = _name(generation.number)
        if generation.number != self._next or self._folder.exists(name):
            raise RunError(
                f"A journal is only appended to: generation {self._next} comes next, "
                f"found {generation.number} for {self._at(name)}."
            )
        metadata = {PREVIOUS: self._previous.encode()}
        if generation.micro_batch is not None:
            metadata[MICRO_BATCH] = str(generation.micro_batch).encode()
        for key, numbers in ((MEAN, generation.mean), (BIASES, generation.biases)):
            if numbers is not None:
                metadata[key] = numbers.astype("<f8").tobytes().hex().encode()
        content = sealed(_to_table(generation), metadata)
        self._folder.write(name, content)
        self._previous = unsealed(content) or ""
        self._next += 1

    def read(self) -> list[Generation]:
        """All generations, in order, but for a last one that is damaged; see `set_aside`.

        Must be called before anything is appended to a journal that exists.
        """
        numbers = [name for name in self._folder.names(FOLDER) if name.endswith(SUFFIX)]
        generations: list[Generation] = []
        for number, found in enumerate(numbers):
            name = _name(number)
            if f"{FOLDER}/{found}" != name:
                raise RunError(f"{self._at(name)} is missing; the journal goes on with {found}.")
            content = self._folder.read(name)
            own = unsealed(content)
            if own is None and number == len(numbers) - 1 and not _is_older(content):
                self._damaged = name
                break
            table = _open(self._at(name), content, own)
            named = table.schema.metadata.get(PREVIOUS, b"").decode(errors="replace")
            if named != self._previous:
                raise RunError(
                    f"{self._at(name)} does not follow the file before it: expected SHA-256 "
                    f"{self._previous[:12]}..., it names {named[:12]}.... The journal was changed "
                    "or is another search's."
                )
            self._previous, self._next = str(own), number + 1
            generations.append(_from_table(table))
        return generations

    def set_aside(self) -> str | None:
        """Rename the damaged last file that `read` found, if it did; returns its new place."""
        if self._damaged is None:
            return None
        aside = f"{self._damaged}.damaged"
        self._folder.move(self._damaged, aside)
        self._damaged = None
        return self._at(aside)

    def _at(self, name: str) -> str:
        return f"{self._folder.place}/{name}"


def sealed(table: pa.Table, metadata: Mapping[bytes, bytes]) -> bytes:
    """An Arrow file that carries its own SHA-256, taken with zeros in the digest's place."""
    content = to_bytes(table, {**metadata, OWN: OWN_PREFIX + BLANK})
    digest = hashlib.sha256(content).hexdigest().encode()
    return content.replace(OWN_PREFIX + BLANK, OWN_PREFIX + digest)


def unsealed(content: bytes) -> str | None:
    """The digest that a sealed file carries; None where its bytes have another."""
    for digest in set(OWN_PATTERN.findall(content)):
        blank = content.replace(OWN_PREFIX + digest, OWN_PREFIX + BLANK)
        if hashlib.sha256(blank).hexdigest().encode() == digest:
            return str(digest.decode())
    return None


def to_bytes(table: pa.Table, metadata: Mapping[bytes, bytes]) -> bytes:
    """An Arrow IPC file with its schema version and further metadata."""
    stamped = table.replace_schema_metadata({VERSION: str(SCHEMA_VERSION).encode(), **metadata})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, stamped.schema) as writer:
        writer.write_table(stamped)
    return bytes(sink.getvalue())


def _name(number: int) -> str:
    return f"{FOLDER}/{number:06d}{SUFFIX}"


def _is_older(content: bytes) -> bool:
    """Whether a whole file of schema version 1 could be this, which carried no digest."""
    return OWN not in content and content.endswith(b"ARROW1") and PREVIOUS in content


def _to_table(generation: Generation) -> pa.Table:
    population = len(generation.latents)
    validation = generation.validation

    def of_best(value: float) -> list[float | None]:
        return [value if i == generation.best else None for i in range(population)]

    columns: dict[str, list[Any]] = {
        "generation": [generation.number] * population,
        "candidate": list(range(population)),
        "latent": generation.latents.tolist(),
        "rewards": generation.rewards.tolist(),
        "fitness": generation.fitness.tolist(),
        "step_size": [generation.step_size] * population,
        "validation": of_best(validation.accuracy),
        "validation_loss": of_best(validation.loss),
        "validation_f1": of_best(validation.macro_f1),
        "validation_score": of_best(validation.score),
    }
    return pa.table(columns, schema=SCHEMA)


def _from_table(table: pa.Table) -> Generation:
    columns, metadata = table.to_pydict(), table.schema.metadata
    micro_batch = metadata.get(MICRO_BATCH)
    best = next(i for i, value in enumerate(columns["validation"]) if value is not None)
    return Generation(
        number=columns["generation"][0],
        latents=np.array(columns["latent"], dtype=np.float64),
        rewards=np.array(columns["rewards"], dtype=np.float64),
        fitness=np.array(columns["fitness"], dtype=np.float64),
        step_size=columns["step_size"][0],
        best=best,
        validation=Validation(
            accuracy=columns["validation"][best],
            loss=columns["validation_loss"][best],
            macro_f1=columns["validation_f1"][best],
            score=columns["validation_score"][best],
        ),
        micro_batch=None if micro_batch is None else int(micro_batch),
        mean=_numbers(metadata.get(MEAN)),
        biases=_numbers(metadata.get(BIASES)),
    )


def _numbers(value: bytes | None) -> NDArray[np.float64] | None:
    return None if value is None else np.frombuffer(bytes.fromhex(value.decode()), "<f8")


def _open(place: str, content: bytes, own: str | None) -> pa.Table:
    """Parse a file; only one whose bytes are those that were written."""
    if own is None:
        if _is_older(content):
            raise RunError(
                f"{place} is of journal schema version 1, which an older cliptune wrote; this one "
                f"reads {SCHEMA_VERSION}. The run's config.yaml can be searched again."
            )
        raise RunError(f"{place} is damaged: its bytes are not those that were written.")
    table = pa.ipc.open_file(pa.BufferReader(content)).read_all()
    version = (table.schema.metadata or {}).get(VERSION, b"none").decode(errors="replace")
    if version != str(SCHEMA_VERSION):
        raise RunError(
            f"{place} is of journal schema version {version}; this cliptune reads "
            f"{SCHEMA_VERSION}. Update cliptune to go on with this run."
        )
    return table
