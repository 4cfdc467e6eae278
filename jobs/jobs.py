"""`cliptune jobs`: the jobs of a cluster, and how far their searches are."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from cliptune.errors import ClusterError
from cluster.remote import Remote, Submission, connect
from jobs.logline import last_generation
from jobs.logs import warn
from jobs.words import make_console

MEANING = "best and validation: accuracy on validation, of the chosen and of the last prompt"
AT_ONCE = 8  # logs that are read


def main(*, address: str | None, as_json: bool) -> None:
    """A row a job, the latest first."""
    remote = connect(address, warn)
    latest = {one.name: one for one in remote.submissions()}  # of each name the last
    jobs = list(reversed(latest.values()))
    with ThreadPoolExecutor(AT_ONCE) as readers:
        rows = list(readers.map(lambda job: _values(remote, job), jobs))
    if as_json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
    elif rows:
        console = make_console()
        console.print(table(rows))
        console.print(MEANING, soft_wrap=True)
    else:
        make_console().print(f"No jobs on the cluster at {remote.address}.", soft_wrap=True)


def _values(remote: Remote, job: Submission) -> dict[str, Any]:
    """What is known of a job; how far it came stands in its log."""
    try:
        told = last_generation(remote.log(job))
    except ClusterError:  # of a machine that is gone, for instance
        told = {}
    return {
        "id": job.name,
        "submission": job.id,
        "state": job.state,
        "exit_code": job.exit_code,
        "began": job.began,
        "ended": job.ended,
        "metadata": dict(job.metadata),
        "progress": dict(told),
    }


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """As a person reads it."""
    found = Table(box=SIMPLE_HEAD, pad_edge=False)
    found.add_column("id", overflow="fold")
    for header in ("state", "generation", "best", "validation", "since"):
        found.add_column(header, no_wrap=True)
    for row in rows:
        told = row["progress"]
        since = row["ended"] or row["began"]
        found.add_row(
            row["id"],
            row["state"],
            told.get("generation", ""),
            _accuracy(told.get("best_accuracy")),
            _accuracy(told.get("validation_accuracy")),
            "" if since is None else datetime.fromtimestamp(since).strftime("%Y-%m-%d %H:%M"),
        )
    return found


def _accuracy(text: str | None) -> str:
    try:
        return "" if text is None else f"{float(text):.1%}"
    except ValueError:
        return ""
