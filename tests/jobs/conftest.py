"""Ray's files stay out of the user's home."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_home import own_home


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with own_home(tmp_path_factory.getbasetemp() / "home") as folder:
        yield folder
