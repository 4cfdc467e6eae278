"""Ray's files stay out of the user's home; terminals are as wide as most."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from no_ray import without_ray
from ray_home import own_home
from trials_here import Here, trials_here


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with own_home(tmp_path_factory.getbasetemp() / "home") as folder:
        yield folder


@pytest.fixture(scope="module")
def one_ray(home: Path) -> Iterator[None]:
    """A Ray with one CPU, started once: the command uses a connection that is there."""
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield
    ray.shutdown()


@pytest.fixture
def no_ray() -> Iterator[None]:
    """No engine: what the command would have actors do is done in this process."""
    with without_ray():
        yield


@pytest.fixture
def here() -> Iterator[Here]:
    with trials_here() as runner:
        yield runner


@pytest.fixture
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of the usual size and abilities, for whatever asks the environment."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
