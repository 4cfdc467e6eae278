"""The options of what is done with runs: `cliptune show`, `report`, `evaluate`, `predict`, ..."""

import sys
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
)


def show(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Directories that searches have written.")
    ],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a run.")] = False,
) -> None:
    """Show a run, finished or not; or several, side by side."""
    from jobs.show import main

    main(runs, as_json=json)


def report(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|SWEEP...", help="Directories that searches or sweeps have written."
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The page; replaced where it is there.")
    ] = Path("report.html"),
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write every picture there as well."),
    ] = None,
    format: Annotated[str, typer.Option(help="Of these pictures: png or svg.")] = "png",
) -> None:
    """Make one HTML page of a run, of several beside each other, or of a sweep."""
    from jobs.report import main

    main(places, out=out, pictures=pictures, kind=format)


def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The directory of a run.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[key=value ...]",
            help="Other machines, or other places of the model and the examples, "
            "e.g. cluster.actors=1 or model.name=PATH.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Other examples of the same classes: all of a file, or a split of a folder or of "
            "a dataset, as in task.data.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    json: AsJson = False,
) -> None:
    """Score the prompt of a run again: more measures, confusions, agreement of the subnetworks."""
    from jobs import display
    from jobs.evaluate import main

    shown = display.choose(quiet=json or not sys.stdout.isatty(), json=False)
    main(run, words or [], data=data, split=split, display=shown, as_json=json)


def predict(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The directory of a run.")],
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TEXT ...]",
            help="What to classify; of a task of pairs, two by two. Without it and --file: "
            "standard input.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A .jsonl, .json, .csv, .tsv, .parquet, .arrow, .feather or .txt file.",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="Of standard input: jsonl, csv, parquet, arrow, feather or txt; if not given, "
            "lines of text, or of JSON where the first one begins with a brace.",
        ),
    ] = None,
    batch: Annotated[
        int,
        typer.Option(min=1, help="Texts read ahead and computed together; 1 answers line by line."),
    ] = 512,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write all columns and the predictions there, as .jsonl, .csv, .tsv, .parquet, "
            ".arrow or .feather; replaced where it is there.",
        ),
    ] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Ask the run's thinned networks, and say who agrees.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(metavar="PATH", help="Where the run's model lies now.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the run's if not given.")] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU threads; as many as there are cores if not given."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a text.")] = False,
) -> None:
    """Classify texts with the prompt of a run."""
    from jobs.predict import main

    main(
        run,
        texts or [],
        file=file,
        kind=format,
        batch=batch,
        out=out,
        model=model,
        device=device,
        threads=threads,
        ensemble=ensemble,
        as_json=json,
    )


def serve(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]RUN ...",
            help="Directories of runs of one model; a prompt is called as its folder, or NAME.",
        ),
    ],
    host: Host = "127.0.0.1",
    port: Port = 8401,
    replicas: Replicas = 1,
    threads: Threads = 1,
    gpus: Gpus = None,
    token_file: TokenFile = None,
    texts: Annotated[int, typer.Option(min=1, help="Of a request, and computed together.")] = 256,
    characters: Annotated[int, typer.Option(min=1, help="Of a text at most.")] = 20_000,
    megabytes: Megabytes = 1,
    queue: Queue = 64,
    seconds: Seconds = 30,
    model: Annotated[
        str | None, typer.Option(metavar="PATH", help="Where the runs' model lies now.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the run's if not given.")] = None,
    address: RayAddress = None,
) -> None:
    """Answer over HTTP with the prompts of runs, and show a page to try them."""
    given = dict(locals())
    from jobs.serve import main

    main(given.pop("runs"), **given)


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The directory of a finished run.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            help="peft: an adapter for PeftModel.from_pretrained; embeddings: safetensors, for "
            "engines that take prompt embeddings.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="A new folder.")],
    model: Annotated[
        str | None, typer.Option(metavar="PATH", help="Where the run's model lies now.")
    ] = None,
) -> None:
    """Write the prompt of a run for other programs, with a model card."""
    from jobs.export import main

    main(run, to, out, model=model)
