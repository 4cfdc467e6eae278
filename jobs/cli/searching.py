"""The options of what searches: `cliptune search`, `sweep`, `reproduce`, and `provider` for it."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.options import (
    AsJson,
    Gpus,
    Host,
    Megabytes,
    Port,
    Queue,
    RayAddress,
    Replicas,
    Seconds,
    Threads,
    TokenFile,
    Words,
)


def search(
    words: Words = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a generation, then the result.")
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="RUN",
            help="Go on with the search in this run directory, with its settings; key=value words "
            "may give it a larger budget or other machines.",
        ),
    ] = None,
    go_on: Annotated[
        bool,
        typer.Option(
            "--continue",
            help="Begin, or go on where run_dir holds this very search already: the same command "
            "can be given again until it is done, by whatever repeats jobs that failed.",
        ),
    ] = False,
    log: Annotated[
        bool, typer.Option("--log", help="Print one line of key=value a generation: for logs.")
    ] = False,
) -> None:
    """Search a prompt on Ray actors, here or on a cluster."""
    from cliptune.errors import ConfigError
    from jobs import display
    from jobs.config import read, read_or_continue
    from jobs.search import main

    shown = display.choose(quiet=quiet, json=json, log=log)
    if go_on and resume is not None:
        raise ConfigError(
            "--resume RUN goes on with a run that is there; --continue, with run_dir=RUN, also "
            "begins it. Give one of them."
        )
    if go_on:
        config, begun = read_or_continue(words or [])
        main(config, shown, resume=begun, patient=True)
    else:
        main(read(words or [], resume), shown, resume=resume is not None)


def sweep(
    file: Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="Base, space, seeds.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value ...]", help="Settings of all trials, over the base."),
    ] = None,
    into: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder or URI; sweeps/SWEEP if not given."),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the trials and run none.")] = False,
    json: AsJson = False,
) -> None:
    """Run many searches on one cluster and rank them; given again, go on where it ended."""
    from jobs.sweep import main

    main(file, words or [], into=into, as_json=json, listed=listed)


def reproduce(
    words: Words = None,
    tasks: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="sst2, agnews, ...: all seven if none.")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="bbt, clip-static, ...: all if none.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="N,...", help="Of splits; 13,21,42,87,100 if none.")
    ] = None,
    budget: Annotated[int, typer.Option(min=1, help="Prompts of a search.")] = 8000,
    experiments: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="main, clip-ratio, ...: main alone if none."),
    ] = None,
    values: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Of what experiments vary: 0.3, zero; all if none."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Examples, with {task} and {seed} in it; the hub's if none."
        ),
    ] = None,
    into: Annotated[
        str, typer.Option(metavar="DIR", help="Where the sweeps and the results are written.")
    ] = "reproduction",
    listed: Annotated[bool, typer.Option("--list", help="Only say what would be run.")] = False,
    json: AsJson = False,
) -> None:
    """Run the paper's experiments, or what is left of them, and write their tables."""
    from jobs.reproduce import main

    main(
        words or [],
        tasks=tasks,
        which=methods,
        seeds=seeds,
        budget=budget,
        experiments=experiments,
        values=values,
        data=data,
        into=into,
        as_json=json,
        listed=listed,
    )


def provider(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As model.name.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[model.KEY=value ...]", help="E.g. model.dtype=float32."),
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 8400,
    replicas: Replicas = 1,
    threads: Threads = 1,
    gpus: Gpus = None,
    token_file: TokenFile = None,
    queue: Queue = 16,
    seconds: Seconds = 120,
    rows: Annotated[int, typer.Option(min=1, help="Of a micro-batch at most.")] = 4096,
    sessions: Annotated[int, typer.Option(min=1, help="Searches served at the same time.")] = 16,
    megabytes: Megabytes = 16,
    address: RayAddress = None,
) -> None:
    """Serve a frozen model to searches elsewhere: they set scorer.url, and need no model."""
    from jobs.provider import Limits, Stand, main

    stand = Stand(host, port, replicas, threads, gpus, address)
    limits = Limits(
        queue=queue, seconds=seconds, rows=rows, bytes=megabytes * 2**20, sessions=sessions
    )
    main(model, words or [], stand, limits, token_file=token_file)
