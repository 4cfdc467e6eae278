"""`cliptune search`: a whole search, from Ray's start to the table."""

from cliptune.lease import LEASE_SECONDS
from cluster.config import ClusterSearch
from cluster.session import is_starting, search
from jobs.display import Display
from jobs.signals import Stopped, leave, stopping


def main(
    config: ClusterSearch, display: Display, *, resume: bool = False, patient: bool = False
) -> None:
    """Run the search, or go on with the one in run_dir, and show it.

    With `patient`, wait while another search may hold run_dir that died and cannot let go of it.
    """
    try:
        with stopping(at_once=is_starting), display:
            patience = 1.25 * LEASE_SECONDS if patient else 0.0
            search(config, display, resume=resume, patience=patience)
    except Stopped as stopped:
        display.stopped()
        leave(stopped.exit_code)
