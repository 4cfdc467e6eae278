"""Searches and evaluations of the command without its engine, where that is not the point."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from cliptune.local import LocalScorer
from cliptune.observer import Observer
from cliptune.task import Task
from cluster.config import ClusterSearch
from cluster.placement import Node
from cluster.session import fit


@contextmanager
def without_ray() -> Iterator[None]:
    """What the actors would do is done in this process: to the same bits, and seconds sooner."""

    @contextmanager
    def scoring(config: ClusterSearch, task: Task, observer: Observer) -> Iterator[LocalScorer]:
        observer.phase(f"Loading {config.model.name} here")
        yield LocalScorer(fit(config, [Node(cpus=1, gpus=0)]), task)

    with patch("cluster.session.scoring", scoring), patch("jobs.evaluate.scoring", scoring):
        yield
