"""`cliptune search`: a whole search, from Ray's start to the table."""

from cluster.config import ClusterSearch
from cluster.session import is_starting, search
from jobs.display import Display
from jobs.signals import Stopped, leave, stopping


def main(config: ClusterSearch, display: Display, *, resume: bool = False) -> None:
    """Run the search, or go on with the one in run_dir, and show it."""
    try:
        with stopping(at_once=is_starting), display:
            result = search(config, display, resume=resume)
            display.result(result)
    except Stopped as stopped:
        display.stopped()
        leave(stopped.exit_code)
