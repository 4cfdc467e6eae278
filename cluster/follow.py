"""Following a job's log to its end, through connections that drop."""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import TypeVar

from cliptune.errors import ClusterError
from cluster.remote import RefusedError, Remote, Submission, UnreachableError

T = TypeVar("T")

SILENCE = 60.0  # seconds after which a connection that says nothing is taken to be dead
PATIENCE = 600.0  # seconds without any contact after which to give up
HOPE = (UnreachableError,)  # that a log comes: of a job that is over, no is no
PAUSES = (1.0, 2.0, 5.0, 10.0)  # seconds between tries to reach the cluster


def follow(
    remote: Remote,
    submission: Submission,
    show: Callable[[str], None],
    warn: Callable[[str], None],
) -> Submission:
    """Show all that the job prints, each line once; returns it as it ended.

    Ray sends a log from its beginning on each connection, and only ever adds to it: what was shown
    is counted, and skipped. Where connections drop, behind a proxy that lets none stay open for
    instance, the log is asked for as a whole in between.
    """
    shown, drops = Shown(show), 0
    while True:
        dropped = asyncio.run(_listen(remote, submission.id, shown))
        submission = _persistently(partial(remote.look, submission), remote, warn)
        if submission.over:
            try:
                shown.part(_persistently(partial(remote.log, submission), remote, warn, HOPE), 0)
            except RefusedError as error:
                warn(f"The end of its log cannot be read: {error}")
            return submission
        if dropped:
            if not drops:
                warn("The connection dropped; listening again.")
            with suppress(UnreachableError, RefusedError):
                shown.part(remote.log(submission), 0)
            time.sleep(PAUSES[min(drops, len(PAUSES) - 1)])
            drops += 1


class Shown:
    """How much of a log has been shown."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._count = 0  # characters

    def part(self, text: str, begins: int) -> None:
        """A part of the log that begins at this character."""
        new = text[max(0, self._count - begins) :]
        if new:
            self._show(new)
            self._count = begins + len(text)


async def _listen(remote: Remote, id: str, shown: Shown) -> bool:
    """Show the log as long as the connection lasts; whether it ended in an error or in silence."""
    from aiohttp import ClientError

    heard = 0
    try:
        async with aclosing(remote.client.tail_job_logs(id)) as parts:
            while True:
                try:
                    part = await asyncio.wait_for(anext(parts), SILENCE)
                except StopAsyncIteration:
                    return False
                shown.part(part, heard)
                heard += len(part)
    except TimeoutError:  # most often just a search that has nothing to say
        return False
    except (ClientError, OSError, RuntimeError):
        return True


def _persistently(
    ask: Callable[[], T],
    remote: Remote,
    warn: Callable[[str], None],
    hope: tuple[type[ClusterError], ...] = (UnreachableError, RefusedError),
) -> T:
    """The cluster's answer, however often it has to be asked while what is raised leaves `hope`."""
    until, tries = time.monotonic() + PATIENCE, 0
    while True:
        try:
            return ask()
        except hope as error:
            if time.monotonic() > until:
                raise ClusterError(
                    f"No contact with the cluster at {remote.address} for "
                    f"{PATIENCE / 60:.0f} minutes: {error} A job that runs there goes on."
                ) from None
        if not tries:
            warn("No contact with the cluster; trying again.")
        time.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
        tries += 1
