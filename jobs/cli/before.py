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
    count: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Add so many to each class; else 1, 3, 10 and 30 are tried, and none are added "
            "unless they are clearly better on the validation set.",
            show_default=False,
        ),
    ] = None,
    test: Annotated[
        bool, typer.Option("--test", help="Score the test set as well, with the best and without.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the settings there, with the best words."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Find more words to read the classes from, by what the model says of training examples.

    How many are added is chosen on the validation set, without a soft prompt, by the loss.
    """
    from jobs.findwords import main

    main(words or [], count=count, test=test, out=out, as_json=json)


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
