"""The `cliptune` command. Nothing heavy is imported until a verb needs it."""

import sys
from typing import Annotated

import typer

import cliptune

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Clip-Tuning: learn a soft prompt for a frozen language model, without gradients, on Ray.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cliptune {cliptune.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print and exit."),
    ] = False,
) -> None:
    pass


@app.command()
def search(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG.yaml] [key=value ...]",
            help="Settings: a YAML file, then single ones over it, e.g. search.seed=1. "
            "None at all runs the embedded example.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a generation, then the result.")
    ] = False,
) -> None:
    """Search a prompt on Ray actors, here or on a cluster."""
    from jobs import display
    from jobs.config import read
    from jobs.search import main

    main(read(words or []), display.choose(quiet=quiet, json=json))


def run() -> None:
    """The entry point: an error meant for the user is one sentence and an exit code."""
    from cliptune.errors import CliptuneError

    try:
        app()
    except CliptuneError as error:
        print(f"cliptune: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
