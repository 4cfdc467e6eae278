"""The `cliptune` command. Nothing heavy is imported until a verb needs it."""

import io
import sys
from pathlib import Path
from typing import Annotated

import typer

import cliptune

SEARCHING, JOBS = "Search", "Jobs of a Ray cluster"
BEFORE, AFTER, HERE = "Before a search", "After it", "How well it runs here"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Clip-Tuning: learn a soft prompt for a frozen language model, without gradients, on Ray.",
)

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CONFIG.yaml] [key=value ...]",
        help="Settings: a YAML file, then single ones over it, e.g. search.seed=1. None at all are "
        "those of the embedded example.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
ReportFile = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report there.")]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The cluster's dashboard; else RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265.",
    ),
]
# of what serves a model
Host = Annotated[str, typer.Option(help="Others than this machine need a token.")]
Port = Annotated[int, typer.Option(min=1, max=65_535)]
Replicas = Annotated[int, typer.Option(min=1, help="Copies of the model.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads of a replica.")]
Gpus = Annotated[
    float | None, typer.Option(min=0, help="Of a replica; if not given 1 where there are any.")
]
TokenFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Holds the token; else CLIPTUNE_TOKEN, else none."),
]
Queue = Annotated[int, typer.Option(min=1, help="Requests that wait at a replica.")]
Seconds = Annotated[float, typer.Option(min=1, help="For a request, its wait included.")]
Megabytes = Annotated[int, typer.Option(min=1, help="Of a request at most.")]
RayAddress = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Of a running Ray; as cluster.address.")
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="Of a job, as `cliptune jobs` has it.")]


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


@app.command(rich_help_panel=SEARCHING)
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


@app.command(rich_help_panel=SEARCHING)
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


@app.command(rich_help_panel=SEARCHING)
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
        data=data,
        into=into,
        as_json=json,
        listed=listed,
    )


@app.command(rich_help_panel=SEARCHING)
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
    megabytes: Megabytes = 16,
    address: RayAddress = None,
) -> None:
    """Serve a frozen model to searches elsewhere: they set scorer.url, and need no model."""
    from jobs.provider import Limits, Stand, main

    stand = Stand(host, port, replicas, threads, gpus, address)
    limits = Limits(queue=queue, seconds=seconds, rows=rows, bytes=megabytes * 2**20)
    main(model, words or [], stand, limits, token_file=token_file)


@app.command(rich_help_panel=JOBS)
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


@app.command(rich_help_panel=JOBS)
def jobs(
    address: Address = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a job.")] = False,
) -> None:
    """List a cluster's jobs: their state, and how far their searches are."""
    from jobs.jobs import main

    main(address=address, as_json=json)


@app.command(rich_help_panel=JOBS)
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


@app.command(rich_help_panel=JOBS)
def stop(id: JobId, address: Address = None) -> None:
    """Stop a job, so that submitting it again goes on with it."""
    from jobs.stop import main

    main(id, address=address)


@app.command(rich_help_panel=BEFORE)
def task(
    words: Words = None,
    json: AsJson = False,
) -> None:
    """Show what a task looks like to its model: inputs, lengths, classes. Loads no weights."""
    from jobs.config import read
    from jobs.task import main

    main(read(words or []), as_json=json)


@app.command(rich_help_panel=BEFORE)
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


@app.command(rich_help_panel=BEFORE)
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


@app.command(rich_help_panel=AFTER)
def show(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Directories that searches have written.")
    ],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a run.")] = False,
) -> None:
    """Show a run, finished or not; or several, side by side."""
    from jobs.show import main

    main(runs, as_json=json)


@app.command(rich_help_panel=AFTER)
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


@app.command(rich_help_panel=AFTER)
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


@app.command(rich_help_panel=AFTER)
def predict(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The directory of a run.")],
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TEXT ...]",
            help="What to classify; of a task of pairs, two by two. Without it and --file: "
            "standard input, a text a line or a JSON object a line.",
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A .jsonl, .csv, .parquet or .txt file.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write all columns and the predictions there, as .jsonl, .csv or .parquet; "
            "replaced where it is there.",
        ),
    ] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Ask the run's thinned networks, and say who agrees.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(metavar="PATH", help="Where the run's model lies now.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the run's if not given.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a text.")] = False,
) -> None:
    """Classify texts with the prompt of a run."""
    from jobs.predict import main

    main(
        run,
        texts or [],
        file=file,
        out=out,
        model=model,
        device=device,
        ensemble=ensemble,
        as_json=json,
    )


@app.command(rich_help_panel=AFTER)
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


@app.command(rich_help_panel=AFTER)
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


@app.command(rich_help_panel=HERE)
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


@app.command(rich_help_panel=HERE)
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


@app.command(rich_help_panel=HERE)
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


def run() -> None:
    """The entry point: an error meant for the user is one sentence and an exit code."""
    from cliptune.errors import CliptuneError

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
