"""The options of what is asked before a search: `cliptune task`, `config` and `plan`."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.options import AsJson, Words


def task(
    words: Words = None,
    json: AsJson = False,
) -> None:
    """Show what a task looks like to its model: inputs, lengths, classes. Loads no weights."""
    from jobs.config import read
    from jobs.task import main

    main(read(words or []), as_json=json)


def words(
    words: Words = None,
    count: Annotated[int, typer.Option(min=1, help="Of each class at most.")] = 10,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the settings there, with the words found."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Find words that tell the classes apart, by what the model says of the training examples."""
    from jobs.findwords import main

    main(words or [], count=count, out=out, as_json=json)


def config(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SECTION | SECTION.SETTING ...]", help="Only these, e.g. search or task.k."
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """List the settings: what each is for, its type and its default."""
    from jobs.settings import main

    main(names or [], as_json=json)


def plan(
    words: Words = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="How long to measure this machine's speed.")
    ] = 3.0,
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Take the speed from this JSON file's tokens_per_second, such as `cliptune plan "
            "--json` prints, and measure nothing.",
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Say how long it takes, or only count.")
    ] = True,
    json: AsJson = False,
) -> None:
    """Say what a search will cost: forward passes, tokens, memory, time. Starts no search."""
    from jobs.config import read
    from jobs.plan import main

    main(read(words or []), seconds=seconds, record=record, measure=measure, as_json=json)
