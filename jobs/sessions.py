"""Sessions of one search, as processes of their own: each goes on where the one before ended."""

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cliptune.errors import ScorerError

LOOK = 0.05  # seconds between two looks at a search
PATIENCE = 60.0  # with a driver that was asked to end
SCRIPT = Path(sys.executable).with_name("cliptune")


class Sessions:
    """`cliptune search`, then `cliptune search --resume`, as often as it takes."""

    def __init__(self, words: Sequence[str], run: Path, environment: Mapping[str, str]) -> None:
        """`words` are a search's, without run_dir; what it says is kept beside the run."""
        self.run = run
        self.count = 0
        self._words = [*words, f"run_dir={run}"]
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def generations(self) -> int:
        """Files in the journal, a damaged last one included."""
        folder = self.run / "journal"
        return sum(path.suffix == ".arrow" for path in folder.iterdir()) if folder.exists() else 0

    @property
    def _log(self) -> Path:
        return self.run.with_name(f"{self.run.name}.log")

    def start(self) -> None:
        """Begin the search, or go on with it."""
        resume = ["--resume", str(self.run)] if (self.run / "config.yaml").is_file() else []
        command = [str(SCRIPT), "search", "--quiet", *resume, *self._words]
        self.count += 1
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is not for it
            )

    def ended(self) -> int | None:
        """The exit code of a session that has ended by itself, once."""
        code = None if self._process is None else self._process.poll()
        if code is not None:
            self._process = None
        return code

    def kill(self) -> str:
        """End the session on the spot."""
        return self._end(signal.SIGKILL)

    def terminate(self) -> str:
        """Ask the session to end."""
        return self._end(signal.SIGTERM)

    def last_words(self) -> str:
        """The last line that any session wrote."""
        lines = self._log.read_text(errors="replace").split("\n") if self._log.exists() else []
        return next((line for line in reversed(lines) if line.strip()), "nothing")

    def _end(self, number: signal.Signals) -> str:
        process, self._process = self._process, None
        if process is None:
            return ""
        process.send_signal(number)
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise ScorerError(
                f"The driver, process {process.pid}, did not end within {PATIENCE:.0f} seconds of "
                f"{number.name}."
            ) from None
        return f"process {process.pid}, exit code {code}"
