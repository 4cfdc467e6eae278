"""`cliptune show`: one run in full, or several side by side; from their directories alone."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from cliptune.account import Outcome, clock, differences, facts, next_step, outcome, typed
from cliptune.evaluation import ENSEMBLE, MANUAL, TUNED
from cliptune.record import RunRecord, read_run
from cluster.config import ClusterSearch
from jobs.chart import plot
from jobs.words import accuracy_table, generation_values, make_console

Record = RunRecord[ClusterSearch]
PLOT_LINES = 5


def main(places: Sequence[str], *, as_json: bool) -> None:
    """Show the runs of these directories."""
    records = [read_run(ClusterSearch, place) for place in places]
    outcomes = [outcome(record) for record in records]
    console = make_console()
    if as_json:
        for record, found in zip(records, outcomes, strict=True):
            print(json.dumps(as_values(record, found), ensure_ascii=False))
    elif len(records) == 1:
        console.print(in_full(records[0], outcomes[0], console.width))
        _print_next_step(console, records[0], outcomes[0])
    else:
        console.print(side_by_side(records, outcomes))


def as_values(record: Record, found: Outcome) -> dict[str, Any]:
    """A run as JSON values."""
    best = record.best
    return {
        "run_dir": record.path,
        **asdict(found),
        "best": None if best is None else generation_values(best),
        "model": asdict(record.facts),
        "config": record.config.model_dump(mode="json"),
        "generations": [generation_values(generation) for generation in record.generations],
    }


def in_full(record: Record, found: Outcome, width: int) -> RenderableType:
    """Everything about one run that a person asks for."""
    parts: list[RenderableType] = [_facts(record, found)]
    if found.accuracy is not None:
        parts += ["", accuracy_table(found.accuracy)]
    if record.generations:
        parts += ["", *_course(record, width)]
    return Group(*parts)


def _facts(record: Record, found: Outcome) -> Table:
    table = Table.grid(Column(style="bold"), Column(overflow="fold"), padding=(0, 2, 0, 0))
    for name, text in facts(record, found).items():
        table.add_row(name, Text(text))
    return table


def _course(record: Record, width: int) -> list[RenderableType]:
    """Fitness and validation over the generations."""
    generations, selection = record.generations, record.config.search.selection
    span = f"generations 1 to {len(generations)}"
    fitness = [float(generation.fitness.max()) for generation in generations]
    scores = [generation.validation.score for generation in generations]
    less = ", less is better" if selection == "loss" else ""
    return [
        Text(f"fitness of each generation's best prompt, {span}", style="bold"),
        *_plot(fitness, [f"{max(fitness):.3f}", f"{min(fitness):.3f}"], "cyan", width),
        Text(f"its {selection} on validation{less}", style="bold"),
        *_plot(
            scores, [_score(selection, one) for one in (max(scores), min(scores))], "green", width
        ),
    ]


def _plot(values: list[float], ends: list[str], style: str, width: int) -> list[RenderableType]:
    """A plot with what its highest and lowest value stand for."""
    margin = max(map(len, ends))
    labels = [ends[0], *[""] * (PLOT_LINES - 2), ends[1]]
    lines = plot(values, width - margin - 2, PLOT_LINES)
    return [
        Text.assemble(f"{label:>{margin}} ", "┤" if label else "│", (line, style), no_wrap=True)
        for label, line in zip(labels, lines, strict=True)
    ]


def _score(selection: str, score: float) -> str:
    """A selection's score as its measure is usually read."""
    if selection == "loss":
        return f"{-score:.3f}"
    return f"{score:.1%}" if selection in ("accuracy", "macro-f1") else f"{score:.3f}"


def _print_next_step(console: Console, record: Record, found: Outcome) -> None:
    words, command = next_step(record, found)
    console.print()
    console.print(words if command is None else f"{words}: {command}", soft_wrap=True)


def side_by_side(records: Sequence[Record], outcomes: Sequence[Outcome]) -> Table:
    """A row a run: the settings that differ between them, what they reached and what they took."""
    differing = differences([record.config for record in records])
    selections = {record.config.search.selection for record in records}
    selection = selections.pop() if len(selections) == 1 else "accuracy"
    title = f"{selection} on validation; manual, tuned and ensemble: accuracy on test"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.collapse_padding = True
    table.add_column("run", overflow="fold")
    for header in (selection, "manual", "tuned", "ensemble", "prompts", "time"):
        table.add_column(header, justify="right", no_wrap=True)
    for record, found, settings in zip(records, outcomes, differing, strict=True):
        words = [f"{name}={typed(value)}" for name, value in settings.items()]
        words += [] if found.finished else ["unfinished"]
        table.add_row(
            Text.assemble((record.path, "bold"), ("\n" * bool(words) + "  ".join(words), "dim")),
            _chosen(record, selection),
            *(_test(found, row) for row in (MANUAL, TUNED, ENSEMBLE)),
            f"{found.prompts:,}",
            clock(found.seconds),
        )
    return table


def _chosen(record: Record, selection: str) -> str:
    """How good the chosen prompt is on validation."""
    if (best := record.best) is None:
        return ""
    if record.config.search.selection == selection:
        return _score(selection, best.validation.score)
    return f"{best.validation.accuracy:.1%}"


def _test(found: Outcome, row: str) -> str:
    accuracy = (found.accuracy or {}).get(row)
    return "" if accuracy is None else f"{accuracy['test']:.1%}"
