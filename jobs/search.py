"""`cliptune search`: a whole search, from Ray's start to the table."""

import sys

from cluster.config import ClusterSearch
from cluster.session import search
from jobs.display import Display


def main(config: ClusterSearch, display: Display) -> None:
    """Run the search and show it."""
    with display:
        try:
            result = search(config, display)
        except KeyboardInterrupt:
            display.stopped()
            sys.exit(130)
        display.result(result)
