"""`cliptune export`: the prompt of a run for other programs."""

from pathlib import Path

from cliptune.config import Config
from cliptune.export import export
from cliptune.record import read_run


def main(place: str, to: str, out: Path, *, model: str | None) -> None:
    """Write the prompt of the run at `place` to the folder `out`."""
    files = export(read_run(Config, place), to, out, model)
    print(f"{', '.join(files)} written to {out}")
