"""`cliptune evaluate`: a run's prompt scored again, on its own examples or on others."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.table import Table

from cliptune.account import outcome
from cliptune.assessment import Assessment, Measures, assess
from cliptune.belonging import biases_of, check_model, check_prompt
from cliptune.errors import ConfigError, RunError, TaskError
from cliptune.evaluation import TUNED
from cliptune.identity import examples_digest
from cliptune.journal import Generation
from cliptune.observer import Observer
from cliptune.record import RunRecord, read_run
from cliptune.task import SPLITS, Task, load_split, load_task
from cliptune.wording import flat
from cluster.config import ClusterSearch
from cluster.session import anchored, is_starting, scoring
from jobs.config import read
from jobs.confusion import confusion_view
from jobs.display import Display
from jobs.signals import leaving

Record = RunRecord[ClusterSearch]

MAY_DIFFER = {"model.device", "model.dtype", "model.micro_batch"}  # they change rounding alone


def main(
    place: str,
    words: Sequence[str],
    *,
    data: str | None,
    split: str,
    display: Display,
    as_json: bool,
) -> None:
    """Evaluate the prompt of the run at `place` and show how good it is."""
    if split not in SPLITS:
        raise ConfigError(f"--split must be one of {', '.join(SPLITS)}; found {split}.")
    record = read_run(ClusterSearch, place)
    best = record.best
    if best is None:
        raise RunError(f"{place} has no prompt yet: not one generation is in its journal.")
    config = settings(record, words, data)
    task = examples(record, config, split, others=data is not None)
    with leaving(is_starting, display.stopped), display:
        found = evaluate(record, best, config, task, split, display)
    if as_json:
        print(json.dumps(as_values(record, best, task, found), ensure_ascii=False))
    else:
        show(record, best, task, found, display.console)


def settings(record: Record, words: Sequence[str], data: str | None) -> ClusterSearch:
    """The run's own settings; other places of data and model, and other machines, may be given."""
    others = []
    if data is not None:
        nowhere = "{train: null, validation: null, test: null}"
        others = [f"task.data={data}", "task.subset=null", f"task.splits={nowhere}"]
    config = read([*others, *words], resume=record.path)
    before, now = flat(record.config.identity()), flat(config.identity())
    if changed := [n for n in now if now[n] != before.get(n) and n not in MAY_DIFFER]:
        raise ConfigError(
            f"{changed[0]} belongs to the search of {record.path}, where it is "
            f"{before.get(changed[0])!r}; found {now[changed[0]]!r}. An evaluation may change "
            f"cluster.*, model.name, {', '.join(sorted(MAY_DIFFER))} and where examples come from."
        )
    return config


def examples(record: Record, config: ClusterSearch, split: str, *, others: bool) -> Task:
    """The task with the one split that is evaluated: the run's own examples, or all of others."""
    if others:
        return load_split(config.task, split)
    task = load_task(config.task)
    task = replace(task, splits={split: task[split]})
    if examples_digest(task[split]) != record.identity["data"][split]:
        raise TaskError(
            f"task.data has other {split} examples than the run at {record.path} had. To evaluate "
            "on them as they are, name them with --data."
        )
    return task


def evaluate(
    record: Record,
    best: Generation,
    config: ClusterSearch,
    task: Task,
    split: str,
    observer: Observer,
) -> Assessment:
    """Score the prompt that the run has chosen, or would choose as of now."""
    with scoring(anchored(config), task, observer) as scorer:
        check_model(record, scorer)
        check_prompt(record, best, scorer)
        observer.phase(f"Scoring {len(task[split]):,} examples")
        return assess(scorer, best.validated, best.number, split, biases_of(record, best))


def as_values(record: Record, best: Generation, task: Task, found: Assessment) -> dict[str, Any]:
    """An evaluation as JSON values."""
    return {
        "run_dir": record.path,
        "generation": best.number,
        "candidate": best.best if best.mean is None else None,
        "finished": outcome(record).finished,
        "split": found.split,
        "source": task[found.split].source,
        "examples": found.examples,
        "label_words": list(task.label_words),
        "prompts": {name: _measures(row) for name, row in found.rows.items()},
        "subnetworks": [{"accuracy": accuracy} for accuracy in found.subnetworks],
        "agreement": found.agreement,
    }


def _measures(row: Measures) -> dict[str, Any]:
    return {**vars(row), "confusion": row.confusion.tolist()}


def show(record: Record, best: Generation, task: Task, found: Assessment, console: Console) -> None:
    """Print an evaluation for people."""
    state = "" if outcome(record).finished else ", the best one of an unfinished run"
    console.print(f"{record.path}: prompt of generation {best.number + 1}{state}", soft_wrap=True)
    source = task[found.split].source
    console.print(f"{found.split}: {found.examples:,} examples of {source}", soft_wrap=True)
    table = Table("")
    for header in ("accuracy", "macro-F1", "loss"):
        table.add_column(header, justify="right")
    for name, row in found.rows.items():
        table.add_row(name, f"{row.accuracy:.1%}", f"{row.macro_f1:.1%}", f"{row.loss:.3f}")
    console.print(table)
    if found.subnetworks:
        console.print(_subnetworks(found))
    console.print()
    matrix = found.rows[TUNED].confusion
    console.print(confusion_view(matrix, task.label_words, TUNED, console.width))


def _subnetworks(found: Assessment) -> str:
    each = ", ".join(f"{accuracy:.1%}" for accuracy in found.subnetworks)
    text = f"accuracy of each thinned subnetwork alone: {each}"
    if len(found.subnetworks) > 1 and found.agreement is not None:
        text += f"; two of them agree on {found.agreement:.1%} of the examples, on average"
    return text
