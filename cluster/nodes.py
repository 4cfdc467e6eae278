"""The cluster's machines, as Ray sees them now."""

import contextlib
from typing import Any

import ray
from ray._private import state, utils  # all that knows of drained machines, growth and memory
from ray.util.placement_group import get_current_placement_group

from cluster.placement import Growth, Node


def present() -> list[Node]:
    """What every living machine of the connected cluster has."""
    return [_node(entry["Resources"]) for entry in _entries() if entry["Alive"]]


def alive() -> set[str]:
    """Ids of the machines that are there."""
    return {entry["NodeID"] for entry in _entries() if entry["Alive"]}


def draining() -> set[str]:
    """Ids of the machines that are about to go: a preemption notice, for instance."""
    return set(state.state.get_draining_nodes())


def here() -> str:
    """The resource that the machine of this process has, and no other."""
    me = ray.get_runtime_context().get_node_id()
    mine = next(entry["Resources"] for entry in _entries() if entry["NodeID"] == me)
    names = (str(name) for name in mine if name != "node:__internal_head__")
    return next(name for name in names if name.startswith("node:"))


def reserved() -> Any:
    """The placement group that this process's actors belong into: a trial's, or none."""
    return get_current_placement_group()


def growth() -> list[Growth]:
    """What an autoscaler may add; nothing where there is none."""
    config = None
    with contextlib.suppress(Exception):  # not a public interface
        config = state.state.get_cluster_config()
    groups = [] if config is None else config.node_group_configs
    return [
        Growth(_node(group.resources), group.max_count if group.max_count >= 0 else 10_000)
        for group in groups
    ]


def free_memory() -> float:
    """Bytes that a Ray started on this machine would let actors have; 0 where nobody says."""
    with contextlib.suppress(Exception):  # not a public interface
        available = utils.estimate_available_memory()  # type: ignore[no-untyped-call]
        return float(available - utils.resolve_object_store_memory(available))
    return 0.0


def _entries() -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return entries


def _node(resources: Any) -> Node:
    cpus, gpus, memory = (float(resources.get(name, 0.0)) for name in ("CPU", "GPU", "memory"))
    return Node(cpus, gpus, memory)
