"""The engine: Ray actors that score a search's candidates. `cluster.search` runs one."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.api import search

__all__ = ["search"]


def __getattr__(name: str) -> Any:
    """Import on first use: a worker that needs no Ray must not wait for it."""
    if name != "search":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cluster.api import search

    return search
