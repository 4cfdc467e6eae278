"""The options of what is measured here: `cliptune benchmark`, `scaling` and `chaos`."""

import sys
from typing import Annotated

import typer

from jobs.cli.options import ReportFile, Words


def benchmark(
    model: Annotated[
        str, typer.Option(help="A folder, or minilm, roberta-base, roberta-large: random weights.")
    ] = "minilm",
    task: Annotated[
        str | None, typer.Option(metavar="FILE", help="Lines of JSON; else made-up sentences.")
    ] = None,
    population: Annotated[int, typer.Option(help="Candidates.")] = 20,
    subnetworks: Annotated[int, typer.Option(help="N.")] = 5,
    clip_ratio: Annotated[float, typer.Option(help="p, the share of units dropped.")] = 0.1,
    prompt_length: Annotated[int, typer.Option(help="Prompt vectors, L.")] = 50,
    sites: Annotated[
        str, typer.Option(help="What is thinned.")
    ] = "embedding,attention-output,ffn-output",
    threads: Annotated[int, typer.Option(help="Of an actor.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    dtype: Annotated[str, typer.Option(help="Of the scorer, as model.dtype.")] = "auto",
    micro_batch: Annotated[str, typer.Option(help="As model.micro_batch.")] = "auto",
    rounds: Annotated[int, typer.Option(help="That the contenders take turns.")] = 3,
    slice: Annotated[
        int | None, typer.Option(help="Candidates of a naive round; if not given 4, on a GPU all.")
    ] = None,
    naive_head: Annotated[
        str, typer.Option(help="Where the naive loop computes the vocabulary: mask or all.")
    ] = "mask",
    clock: Annotated[
        str, typer.Option(help="wall, or cpu: leaves out the time in which others compute.")
    ] = "wall",
    contenders: Annotated[
        str, typer.Option(help="Who takes part.")
    ] = "naive,population,scorer,inference,ceiling",
    clip_table: Annotated[
        bool, typer.Option("--clip-table", help="Also time clip ratios and sites.")
    ] = False,
    changes: Annotated[
        bool, typer.Option("--changes", help="Also time it without each of its changes.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 0,
    actors: Annotated[
        int, typer.Option(min=0, help="Also measure the engine's share with so many; 0 does not.")
    ] = 0,
    json: ReportFile = None,
) -> None:
    """Measure how fast the scorer is here, beside other ways to score and the machine itself."""
    given = dict(locals())
    from jobs.benchmark import main

    main(given, actors=given.pop("actors"), file=given.pop("json"))


def scaling(
    actors: Annotated[str, typer.Option(metavar="N,N,...", help="Of each measurement.")] = (
        "2,8,32,64"
    ),
    unit_seconds: Annotated[float, typer.Option(help="That an actor takes for a unit.")] = 0.05,
    generations: Annotated[
        int | None,
        typer.Option(min=1, help="Of each measurement; if not given 30, for the memory 2000."),
    ] = None,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory", help="Show instead what 2 actors and the driver hold; units take no time."
        ),
    ] = False,
    json: ReportFile = None,
) -> None:
    """Measure what the engine adds to a generation, with actors here that compute nothing."""
    from jobs import display
    from jobs.scaling import main

    shown = display.choose(quiet=not sys.stdout.isatty(), json=False)
    main(
        actors,
        unit_seconds=unit_seconds,
        generations=generations,
        memory=memory,
        file=json,
        display=shown,
    )


def chaos(
    words: Words = None,
    faults: Annotated[int, typer.Option(help="How many, spread over the search.")] = 100,
    generations: Annotated[int, typer.Option(help="Of the search.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the faults: their kinds and when.")] = 0,
    nodes: Annotated[
        int, typer.Option(help="Machines with one CPU, beside a head that does no work.")
    ] = 2,
    json: ReportFile = None,
) -> None:
    """Search while actors, machines and the driver are killed; compare with a calm search."""
    given = dict(locals())
    from jobs.chaos import main

    main(given.pop("words") or [], file=given.pop("json"), **given)
