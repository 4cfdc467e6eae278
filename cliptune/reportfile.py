"""The file that `--json` names: refused before anything is measured, written at the end."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cliptune.errors import ConfigError


def writable(file: Path | None) -> Path | None:
    """The file for the report; refused before anything is measured. What it holds stays until
    there is another."""
    try:
        if file is not None:
            file.open("a").close()
    except OSError as error:
        raise ConfigError(_unwritten(file, error)) from None
    return file


def write(report: Mapping[str, Any], file: Path | None) -> None:
    """The report as JSON, where it was asked for."""
    if file is None:
        return
    try:
        file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    except OSError as error:  # of a disk that has filled up meanwhile
        raise ConfigError(_unwritten(file, error)) from None


def _unwritten(file: Path | None, error: OSError) -> str:
    return f"--json: {file} cannot be written: {error.strerror}."
