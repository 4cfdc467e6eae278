"""A file of the user's with functions, in the folder where the search is started."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def written(path: Path, lines: str) -> Iterator[Path]:
    """Within, it can be named by its path and imported; what was imported goes again."""
    path.write_text(lines, encoding="utf-8")
    known = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)
        patch.syspath_prepend(str(path.parent))
        yield path
    for name in set(sys.modules) - known:
        del sys.modules[name]
