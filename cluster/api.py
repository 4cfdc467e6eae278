"""A search on Ray in one call: as `cliptune.search`, with the section `cluster`."""

from collections.abc import Mapping
from typing import Any

from cliptune.api import Callbacks, Settings, configured, told
from cliptune.record import Result
from cluster import session
from cluster.config import ClusterSearch


def search(
    settings: Settings | None = None,
    observer: Callbacks = None,
    *,
    resume: bool = False,
    **sections: Mapping[str, Any] | str | None,
) -> Result:
    """Search a prompt on Ray actors; see `cliptune.search` for how settings are given.

    Connects to the Ray of `cluster.address`, of RAY_ADDRESS or of this process, else to one of its
    own, which ends with the search. Functions that are registered in a notebook or a script alone
    are refused: actors and later processes would not find them.
    """
    config = configured(ClusterSearch, settings, sections)
    return session.search(config, told(observer), resume=resume)
