"""Small journals of random generations."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from cliptune.journal import Generation, Journal, Validation
from cliptune.storage import LocalFolder

ORIGIN = "0" * 64


def generation(number: int, seed: int = 0) -> Generation:
    rng = np.random.default_rng([number, seed])
    return Generation(
        number=number,
        latents=rng.standard_normal((4, 3)),
        rewards=rng.standard_normal((4, 2)),
        fitness=rng.standard_normal(4),
        step_size=float(rng.random()),
        best=2,
        validation=Validation(*rng.random(4).tolist()),
    )


def journal(folder: Path, origin: str = ORIGIN) -> Journal:
    return Journal(LocalFolder(str(folder)), origin)


def write(folder: Path, *generations: Generation, origin: str = ORIGIN) -> list[Path]:
    writer = journal(folder, origin)
    for each in generations:
        writer.append(each)
    return sorted((folder / "journal").iterdir())


def read(folder: Path, origin: str = ORIGIN) -> list[Generation]:
    return journal(folder, origin).read()


def table(file: Path) -> pa.Table:
    return pa.ipc.open_file(file).read_all()
