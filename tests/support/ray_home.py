"""A home folder of the tests' own: Ray writes its token there, and nothing into the user's."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def own_home(folder: Path) -> Iterator[Path]:
    """Make `folder` the home of this process and of those that it starts.

    One folder for all tests of a process, as Ray reads its token only once.
    """
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        yield folder
