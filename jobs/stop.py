"""`cliptune stop`: end a job's search so that it can be gone on with."""

import time

from cliptune.errors import ClusterError
from cluster.remote import STOPPED, SUCCEEDED, connect
from jobs.logs import warn
from jobs.words import make_console

PATIENCE = 90.0  # seconds; Ray itself kills after submit.STOP_SECONDS
BETWEEN_LOOKS = 0.5


def main(name: str, *, address: str | None) -> None:
    """Ask the job to stop, and wait until it has."""
    remote = connect(address, warn)
    submission = remote.find(name)
    console = make_console()
    if submission.over:
        console.print(f"{submission.id} has ended already: {submission.state}.", soft_wrap=True)
        return
    remote.stop(submission)
    until = time.monotonic() + PATIENCE
    while not (submission := remote.look(submission)).over:
        if time.monotonic() > until:
            raise ClusterError(
                f"{submission.id} was asked to stop and still runs after {PATIENCE:.0f} seconds; "
                f"look at its log: cliptune logs {name}."
            )
        time.sleep(BETWEEN_LOOKS)
    if submission.state == STOPPED:
        run = submission.metadata.get("run")
        kept = "" if run is None else f" Its run, {run}, is kept: the same submission goes on."
        console.print(f"{submission.id} has stopped.{kept}", soft_wrap=True)
    elif submission.state == SUCCEEDED:
        console.print(f"{submission.id} came to its own end first.", soft_wrap=True)
    else:
        console.print(f"{submission.id} has failed first: its log says why.", soft_wrap=True)
