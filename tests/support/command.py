"""The installed `cliptune` command, as a person starts it."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(sys.executable).with_name("cliptune")


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "COLUMNS": "80", **more}


def cliptune(*words: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end in a folder, with more environment."""
    return subprocess.run(
        [SCRIPT, *words],
        cwd=folder,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=200,
    )
