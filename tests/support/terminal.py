"""A standard output that is a terminal."""

import io
from contextlib import redirect_stdout


class Terminal(io.StringIO):
    """A standard output that is a terminal."""

    def isatty(self) -> bool:
        return True


def in_terminal() -> redirect_stdout[Terminal]:
    """Entered by the tests: what a fixture puts in its place, pytest's capture replaces again."""
    return redirect_stdout(Terminal())
