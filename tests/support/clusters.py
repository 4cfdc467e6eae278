"""Rays of one or several machines for the tests, and pools on them."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import failing_actors
import pytest
import ray
from ray.cluster_utils import Cluster

from cliptune.config import Config, validate
from cliptune.observer import Observer
from cliptune.task import load_task
from cluster import nodes
from cluster.actor import ScoringActor
from cluster.config import ClusterSearch
from cluster.pool import ActorPool
from cluster.session import fit

QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
STORE = 100 * 2**20  # bytes of a machine's object store


class Notes(Observer):
    """What was said meanwhile."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, message: str) -> None:
        self.warnings.append(message)

    def said(self, words: str) -> bool:
        return any(words in warning for warning in self.warnings)


@contextmanager
def importable_support() -> Iterator[None]:
    """Ray's workers find the modules of tests/support."""
    with pytest.MonkeyPatch.context() as patch:
        support = str(Path(failing_actors.__file__).parent)
        patch.setenv("PYTHONPATH", support, prepend=os.pathsep)
        yield


@contextmanager
def one_machine(cpus: int, **more: Any) -> Iterator[None]:
    """A Ray that ends with its use."""
    with importable_support():
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, **QUIET, **more)
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def machines(*resources: dict[str, Any]) -> Iterator[tuple[Any, list[Any]]]:
    """A cluster whose head does no work, with further machines; (cluster, those)."""
    with importable_support():
        store: dict[str, Any] = {"object_store_memory": STORE}
        head = {"num_cpus": 0, "include_dashboard": False, **store}
        cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        try:
            added = [cluster.add_node(**{**store, **each}) for each in resources]
            ray.init(address=cluster.address, **QUIET)
            yield cluster, added
        finally:
            ray.shutdown()
            cluster.shutdown()


def fitted(config: Config, actors: Any, **cluster: Any) -> ClusterSearch:
    tree = {"actors": actors, "start_timeout": 100, **cluster}
    config = validate(ClusterSearch, {**config.model_dump(mode="json"), "cluster": tree})
    return fit(config, nodes.present())


def make_pool(
    config: Config,
    actors: Any,
    actor: type[ScoringActor] = ScoringActor,
    observer: Observer | None = None,
    **cluster: Any,
) -> ActorPool:
    return ActorPool(fitted(config, actors, **cluster), load_task(config.task), observer, actor)
