"""The `cliptune` command: its verbs, as functions whose parameters are the options.

Nothing heavy is imported until a verb needs it.
"""

import errno
import io
import sys
from collections.abc import Callable
from typing import Annotated

import typer

import cliptune
from jobs.cli import after, before, here, jobs, searching

PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Search": (searching.search, searching.sweep, searching.reproduce, searching.provider),
    "Jobs of a Ray cluster": (jobs.submit, jobs.jobs, jobs.logs, jobs.stop),
    "Before a search": (before.task, before.words, before.config, before.plan),
    "After it": (
        after.show,
        after.report,
        after.evaluate,
        after.predict,
        after.serve,
        after.export,
    ),
    "How well it runs here": (here.benchmark, here.scaling, here.chaos),
}

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
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, before the verb.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print and exit."),
    ] = False,
) -> None:
    pass


for _panel, _verbs in PANELS.items():
    for _verb in _verbs:
        app.command(rich_help_panel=_panel)(_verb)


def run() -> None:
    """The entry point: an error meant for the user is one sentence and an exit code."""
    from cliptune.errors import CliptuneError, ConfigError

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show is no reason to end
            stream.reconfigure(errors="replace")
    try:
        app()
    except Exception as error:
        if "--debug" in sys.argv[1:]:
            raise
        if isinstance(error, CliptuneError):
            print(f"cliptune: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            # Whoever only asks whether a path is there is told this.
            print(
                f"cliptune: {error.filename} is too long to be a path; give a shorter one.",
                file=sys.stderr,
            )
            sys.exit(ConfigError.exit_code)
        what = " ".join(str(error).split()) or "no message"
        if isinstance(error, MemoryError):
            print(f"cliptune: this machine has too little memory for that: {what}", file=sys.stderr)
            sys.exit(1)
        print(
            f"cliptune: unexpected {type(error).__name__}: {what:.500} (This is a defect of "
            "cliptune; `cliptune --debug ...` shows where it is.)",
            file=sys.stderr,
        )
        sys.exit(1)
