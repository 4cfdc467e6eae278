"""The options of `cliptune submit`, `jobs`, `logs` and `stop`."""

from typing import Annotated

import typer

from jobs.cli.options import Address, JobId, Words


def submit(
    words: Words = None,
    address: Address = None,
    id: Annotated[
        str | None,
        typer.Option(
            "--id", metavar="ID", help="A name for the job; by default of its task and settings."
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show its log to the end, and end with its exit code.")
    ] = False,
    as_is: Annotated[
        list[str] | None,
        typer.Option(
            "--as-is",
            metavar="SETTING",
            help="Do not pack what this setting names, e.g. model.name: the cluster has it.",
        ),
    ] = None,
) -> None:
    """Submit a search to a Ray cluster, or go on with it: as a job, with the files it needs.

    Its run_dir is a place on the cluster, by default ~/runs/ID on its head.
    """
    from jobs.submit import main

    main(words or [], address=address, name=id, wait=wait, as_is=as_is or [])


def jobs(
    address: Address = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a job.")] = False,
) -> None:
    """List a cluster's jobs: their state, and how far their searches are."""
    from jobs.jobs import main

    main(address=address, as_json=json)


def logs(
    id: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")
    ] = False,
    address: Address = None,
) -> None:
    """Show what a job has printed."""
    from jobs.logs import main

    main(id, address=address, following=follow)


def stop(id: JobId, address: Address = None) -> None:
    """Stop a job, so that submitting it again goes on with it."""
    from jobs.stop import main

    main(id, address=address)
