"""`cliptune search`: a whole search, from Ray's start to the table."""

from cliptune.lease import LEASE_SECONDS
from cluster.config import ClusterSearch
from cluster.session import is_starting, search
from jobs.display import Display
from jobs.signals import leaving


def main(
    config: ClusterSearch, display: Display, *, resume: bool = False, patient: bool = False
) -> None:
    """Run the search, or go on with the one in run_dir, and show it.

    With `patient`, wait while another search may hold run_dir that died and cannot let go of it.
    """
    patience = 1.25 * LEASE_SECONDS if patient else 0.0
    with leaving(is_starting, display.stopped), display:
        search(config, display, resume=resume, patience=patience)
