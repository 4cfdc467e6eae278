"""Sweeps made by hand: what `cliptune sweep` leaves, without a search."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet


def trial(
    settings: Mapping[str, Any],
    seed: int,
    validation: float | None,
    test: float | None,
    state: str = "done",
    **more: Any,
) -> dict[str, Any]:
    """A row of a sweep's table."""
    setting = " ".join(f"{name}={json.dumps(value)}" for name, value in settings.items())
    return {
        "trial": f"{setting} seed {seed}",
        "setting": setting,
        "seed": seed,
        "state": state,
        "error": None,
        "run_dir": f"sweep/trials/{setting}-{seed}",
        "validation.accuracy": validation,
        "validation.score": None if validation is None else validation - 1,
        "accuracy.manual.test": None if test is None else 0.5,
        "accuracy.tuned.test": test,
        "accuracy.ensemble.test": None if test is None else test + 0.01,
        "cost.prompts_scored": 80,
        "cost.seconds": 30.0,
        **{
            name: json.dumps(value) if isinstance(value, list) else value
            for name, value in settings.items()
        },
        **more,
    }


def write(folder: Path, rows: Sequence[Mapping[str, Any]], varies: Sequence[str]) -> str:
    """A sweep's folder with its table."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([dict(row) for row in rows])
    metadata = {b"cliptune.varies": json.dumps(list(varies)), b"cliptune.schema_version": b"1"}
    parquet.write_table(table.replace_schema_metadata(metadata), folder / "table.parquet")
    return str(folder)
