"""Options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

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
        help="The cluster's dashboard; else RAY_API_SERVER_ADDRESS, else RAY_ADDRESS where that is "
        "an http address, else http://127.0.0.1:8265.",
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
