"""The installed `cliptune` command, as a person starts it."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from jobs.cli import run

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


def started(*command: str | Path, folder: Path, **more: str) -> subprocess.Popen[str]:
    """A command with its pipes, in a process group of its own, as a terminal starts it."""
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def cliptune_here(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command's entry point in this process, where the next one is at once."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with patch("sys.argv", ["cliptune", *words]), redirect_stdout(out), redirect_stderr(err):
        try:
            run()
        except SystemExit as end:
            code = end.code or 0
    assert isinstance(code, int), f"exited with {code!r}"
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())
