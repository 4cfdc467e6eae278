"""Ray's files stay out of the user's home; terminals are as wide as most."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from clusters import QUIET, STORE
from head import authentication, write_token
from no_ray import without_ray
from ray.cluster_utils import Cluster
from ray_home import own_home
from trials_here import Here, trials_here


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with own_home(tmp_path_factory.getbasetemp() / "home") as folder:
        yield folder


@pytest.fixture(scope="session")
def one_cpu(home: Path) -> Iterator[str]:
    """The address of a Ray with one CPU, which is started once for all modules.

    With the token that a local Ray of another module would have this process use from then on.
    """
    args = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": STORE}
    write_token(home)
    with authentication():
        cluster: Any = Cluster(initialize_head=True, head_node_args=args)
        yield cluster.address
        cluster.shutdown()


@pytest.fixture(scope="module")
def one_ray(one_cpu: str) -> Iterator[None]:
    """A connection to that Ray: the command uses one that is there."""
    ray.init(address=one_cpu, **QUIET)
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
