"""Searches without a model, what they leave behind, and ways to interrupt them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import tiny

from cliptune.journal import Generation
from cliptune.loop import search
from cliptune.observer import Observer, Progress
from cliptune.record import Cost, Result
from cliptune.scorer import Scorer
from cliptune.storage import LocalFolder

BUDGET = {"budget": 24}  # of three generations
BEFORE = 3  # writes until a search has begun: its config twice, its origin
WRITES = BEFORE + 2 * 3 + 3  # journal and telemetry a generation; prompt, card and result


class Listener(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.places: list[str] = []
        self.resumptions: list[tuple[int, Generation]] = []
        self.progress: list[Progress] = []
        self.warnings: list[str] = []

    def phase(self, message: str) -> None:
        self.phases.append(message)

    def writing(self, run_dir: str) -> None:
        self.places.append(run_dir)

    def resumed(self, generations: int, best: Generation) -> None:
        self.resumptions.append((generations, best))

    def generation(self, progress: Progress) -> None:
        self.progress.append(progress)

    def warning(self, message: str) -> None:
        self.warnings.append(message)


def plain(run_dir: Path | str | None, **sections: Any) -> tiny.PlainScorer:
    """A scorer of 20 generations of 8 candidates, without a model."""
    defaults = {"budget": 160, "population": 8}
    sections["search"] = defaults | sections.get("search", {})
    place = {"run_dir": None if run_dir is None else str(run_dir)}
    return tiny.PlainScorer(tiny.config(Path("model"), Path("data"), **(sections | place)))


def run(scorer: Scorer, observer: Observer | None = None, *, resume: bool = False) -> Result:
    return search(scorer.config, scorer, observer, resume=resume)


def rows(run_dir: Path | str, folder: str = "journal") -> list[list[dict[str, Any]]]:
    """Rows of a run's journal, or telemetry, by generation."""
    files = sorted((Path(run_dir) / folder).glob("*.arrow"))
    return [pa.ipc.open_file(file).read_all().to_pylist() for file in files]


def journal_bytes(run_dir: Path | str) -> dict[str, bytes]:
    """Content of a run's journal, by file."""
    files = sorted((Path(run_dir) / "journal").glob("*.arrow"))
    assert files, f"{run_dir} has no journal"
    return {file.name: file.read_bytes() for file in files}


def tree_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by its path in it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def lasting(run_dir: Path) -> dict[str, bytes]:
    """What a finished run has in common with its equals: all but places and times."""
    files = tree_bytes(run_dir)
    varying = {"config.yaml", "result.json", *(name for name in files if "telemetry" in name)}
    assert varying <= set(files)
    return {name: content for name, content in files.items() if name not in varying}


def timeless(result: Result) -> dict[str, Any]:
    """A result without what differs from run to run: the place and the seconds."""
    cost: Cost = replace(result.cost, seconds=0.0, device_seconds=0.0)
    return {**vars(result), "cost": cost, "run_dir": "", "latent": result.latent.tolist()}


class Killed(BaseException):
    """The process ends here, as by SIGKILL: nobody handles it and nothing is tidied up."""


@contextmanager
def killed_at(write: int, *, amid: bool = False) -> Iterator[None]:
    """Die before the write of this number, from 0; with `amid`, when half of it is on the disk."""
    real, left = LocalFolder.write, iter([False] * write + [True])

    def deadly(self: LocalFolder, name: str, content: bytes) -> None:
        if not next(left, False):
            return real(self, name, content)
        if amid:
            path = Path(self.place) / f"{name}.tmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content[: len(content) // 2])
        raise Killed

    with patch.object(LocalFolder, "write", deadly):
        yield
