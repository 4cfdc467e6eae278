"""`cliptune logs`: what a job has printed, or prints while it goes on."""

import sys

from cluster.follow import follow
from cluster.remote import STOPPED, SUCCEEDED, Remote, Submission, connect

NOT_FOUND = 127  # a shell's exit code for a command that there is not
INTERRUPTED, TERMINATED = 130, 143


def main(name: str, *, address: str | None, following: bool) -> None:
    """Print a job's log; following, to the job's end."""
    remote = connect(address, warn)
    submission = remote.find(name)
    if following:
        watch(remote, submission)
    else:
        show(remote.log(submission))


def watch(remote: Remote, submission: Submission) -> Submission:
    """Show what the job prints until it has ended, and then how."""
    try:
        ended = follow(remote, submission, show, warn)
    except KeyboardInterrupt:
        warn(f"no longer listening; {submission.id} goes on. cliptune stop {submission.name}")
        sys.exit(INTERRUPTED)
    warn(outcome(ended))
    return ended


def outcome(ended: Submission) -> str:
    """How a job ended, in a sentence."""
    if ended.state == SUCCEEDED:
        return f"{ended.id} has succeeded."
    if ended.state == STOPPED:
        return f"{ended.id} was stopped; the same submission again goes on with it."
    if ended.exit_code == NOT_FOUND:
        return (
            f"{ended.id} has failed: there is no command cliptune on the cluster's head. Install "
            "it in the environment that Ray was started from, with that environment's bin in PATH."
        )
    if ended.exit_code is not None:
        return f"{ended.id} has failed with exit code {ended.exit_code}; its log says why."
    return f"{ended.id} has failed: {' '.join(ended.message.split())[:300]}"


def exit_code(ended: Submission) -> int:
    """0 for a success alone; of a failure its command's own, of a stop that of SIGTERM."""
    if ended.state == SUCCEEDED:
        return 0
    if ended.state == STOPPED:
        return TERMINATED
    return ended.exit_code if ended.exit_code and 0 < ended.exit_code < 256 else 1


def show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def warn(message: str) -> None:
    """Beside the output, whatever that is."""
    print(f"cliptune: {message}", file=sys.stderr, flush=True)
