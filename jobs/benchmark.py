"""`cliptune benchmark`: the scorer beside others, and what the engine adds to it."""

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cliptune.benchmark import (
    Options,
    chosen_task,
    measure,
    names,
    number_or_auto,
    stored_model,
)
from cliptune.comparison import (
    ENGINE_SHARE,
    lines,
    tables,
)
from cliptune.config import validate
from cliptune.errors import ConfigError
from cliptune.observer import Observer, Progress
from cliptune.record import Telemetry
from cliptune.reportfile import writable, write
from cliptune.task import Task
from cluster import session
from cluster.config import ClusterSearch
from jobs.words import make_console, plain_table

GENERATIONS = 4  # of the search that the engine's share is read off; the first does not count


class Listener(Observer):
    """Keeps what each generation took."""

    def __init__(self) -> None:
        self.heard: list[Telemetry] = []

    def generation(self, progress: Progress) -> None:
        self.heard.append(progress.telemetry)


def main(given: Mapping[str, Any], *, actors: int, file: Path | None) -> None:
    """Measure, print, and write the report where that is asked for."""
    options = parsed(given)
    file = writable(file)
    report = measure(options)
    if actors:
        report["actors"] = actors
        report[ENGINE_SHARE] = engine_share(options, actors)
    console = make_console()
    for columns, body in tables(report):
        table = plain_table(*columns)
        for row in body:
            table.add_row(*row)
        console.print(table)
        console.print()
    for line in lines(report):
        console.print(line)
    write(report, file)


def parsed(given: Mapping[str, Any]) -> Options:
    """The options as the command line has them: lists are names with commas."""
    parts = {key: names(given[key]) for key in ("sites", "contenders")}
    try:
        micro_batch = number_or_auto(given["micro_batch"])
    except ValueError:
        raise ConfigError(
            f"--micro-batch must be a number or auto; found {given['micro_batch']}."
        ) from None
    return Options(**{**given, **parts, "micro_batch": micro_batch})


def engine_share(options: Options, actors: int) -> float:
    """The share of a generation in which the actors do not compute, of a short search on Ray."""
    listener = Listener()
    with TemporaryDirectory(prefix="cliptune-benchmark-") as folder:
        config = short_search(options, actors, Path(folder))
        session.search(config, listener)
    return statistics.median(idle(one) for one in listener.heard[1:])


def idle(telemetry: Telemetry) -> float:
    """1 - computing / (workers x seconds)."""
    return 1 - telemetry.device_seconds / telemetry.workers / telemetry.seconds


def short_search(options: Options, actors: int, folder: Path) -> ClusterSearch:
    """A search of a few generations on what the benchmark scores; all of its files in a folder."""
    task = chosen_task(options)
    tree = {
        "task": {
            "name": "benchmark",
            "data": str(_stored_task(task, folder / "data")),
            "template": task.template.source,
            "label_words": task.label_words,
            "k": "all",
        },
        "model": {
            "name": stored_model(options, folder),
            "readout": "masked-lm",
            "dtype": options.dtype,
            "device": options.device,
            "micro_batch": options.micro_batch,
        },
        "prompt": {"length": options.prompt_length},
        "ensemble": {
            "subnetworks": options.subnetworks,
            "clip_ratio": options.clip_ratio,
            "sites": options.sites,
        },
        "search": {
            "population": options.population,
            "budget": GENERATIONS * options.population,
            "seed": options.seed,
        },
        "cluster": {"actors": actors, "threads_per_actor": options.threads},
        "run_dir": str(folder / "run"),
    }
    return validate(ClusterSearch, tree)


def _stored_task(task: Task, folder: Path) -> Path:
    """The examples as files; validation and test are the same as train."""
    folder.mkdir()
    train = task["train"]
    pairs = zip(train.texts, train.labels.tolist(), strict=True)
    text = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in pairs)
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return folder
