"""`cliptune show`: one run in full, or several side by side; from their directories alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from cliptune.errors import RunError
from cliptune.evaluation import ENSEMBLE, MANUAL, TUNED
from cliptune.record import RunRecord, read_run
from cliptune.strategy import STRATEGY_ENDED
from cliptune.wording import flat
from cluster.config import ClusterSearch
from jobs.chart import plot
from jobs.words import (
    accuracy_table,
    clock,
    cost_line,
    generation_values,
    make_console,
    measures,
    resume_command,
)

Record = RunRecord[ClusterSearch]
PLOT_LINES = 5


@dataclass(frozen=True)
class Outcome:
    """How far a run came; a result is only there once a search has ended."""

    finished: bool
    stopped: str | None
    prompts: int
    seconds: float
    accuracy: Mapping[str, Mapping[str, float]] | None  # by row and split
    cost: Mapping[str, Any] | None


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


def outcome(record: Record) -> Outcome:
    """What result.json says, where it still holds: an extended run's is about its beginning."""
    prompts = len(record.generations) * record.config.search.population
    seconds = sum(one.seconds for one in record.telemetry)
    if record.result is None:
        return Outcome(False, None, prompts, seconds, None, None)
    try:
        cost, accuracy = record.result["cost"], record.result["accuracy"]
        finished = cost["prompts_scored"] == prompts
        cost_line(cost)
        accuracy_table(accuracy)
        stopped = str(record.result["stopped"])
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise RunError(
            f"{record.path}/result.json is not one of cliptune's: {type(error).__name__} {error}."
        ) from None
    if not finished:
        return Outcome(False, None, prompts, seconds, accuracy, None)
    return Outcome(True, stopped, prompts, cost["seconds"], accuracy, cost)


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
    config, model = record.config, record.facts
    task, prompt, search = config.task, config.prompt, config.search
    seeds = {name: getattr(config, name).seed for name in ("search", "prompt", "ensemble", "task")}
    layers = f" at each of {prompt.layers} layers" if prompt.layers > 1 else ""
    rows = {
        "run": record.path,
        "state": _state(record, found),
        "task": f"{task.name}: {len(task.label_words)} classes, {task.k} examples a class",
        "model": f"{model.name}, {config.model.dtype} on {config.model.device}, "
        f"{model.parameters:,} parameters, SHA-256 {model.sha256[:12]}",
        "prompt": f"{prompt.length} vectors of {model.width}, searched in {prompt.dimension} "
        f"dimensions{layers}; init {prompt.init}",
        "networks": _networks(config),
        "search": f"{search.method}, {search.population} prompts a generation, loss {search.loss}; "
        f"chosen by {search.selection}",
        "seeds": ", ".join(f"{name} {seed}" for name, seed in seeds.items()),
    }
    if (best := record.best) is not None:
        rows["best"] = (
            f"generation {best.number + 1}, candidate {best.best + 1}; on validation "
            f"{measures(best.validation)}"
        )
    rows["cost"] = _cost(found)
    table = Table.grid(Column(style="bold"), Column(overflow="fold"), padding=(0, 2, 0, 0))
    for name, text in rows.items():
        table.add_row(name, Text(text))
    return table


def _state(record: Record, found: Outcome) -> str:
    generations = len(record.generations)
    if found.finished:
        return f"finished after {generations} generations: {found.stopped}"
    budget = record.config.search.budget
    of = "" if budget is None else f" of {budget:,}"
    state = f"unfinished: {found.prompts:,}{of} prompts in {generations} generations"
    return state if found.accuracy is None else f"{state}; the table is of an earlier end"


def _networks(config: ClusterSearch) -> str:
    ensemble = config.ensemble
    if ensemble.mode == "none":
        return "the full network alone"
    return (
        f"{ensemble.subnetworks} thinned ones, each without {100 * ensemble.clip_ratio:g}% of "
        f"{', '.join(ensemble.sites)}; {ensemble.mode}, mixed by {ensemble.mixer}"
    )


def _cost(found: Outcome) -> str:
    if found.cost is not None:
        return cost_line(found.cost)
    return f"{found.prompts:,} prompts scored in {clock(found.seconds)}"


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
    command, budget = resume_command(record.path), record.config.search.budget
    console.print()
    if not found.finished:
        console.print(f"go on with it: {command}", soft_wrap=True)
    elif (found.stopped or "").startswith(STRATEGY_ENDED):
        console.print("more budget changes nothing; another search.seed, as a new run, may")
    elif budget is None or found.prompts + record.config.search.population <= budget:
        console.print(f"to extend it, raise the limit that it reached: {command}", soft_wrap=True)
    else:
        console.print(f"to extend it: {command} search.budget={2 * budget}", soft_wrap=True)


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
        words = [f"{name}={_typed(value)}" for name, value in settings.items()]
        words += [] if found.finished else ["unfinished"]
        table.add_row(
            Text.assemble((record.path, "bold"), ("\n" * bool(words) + "  ".join(words), "dim")),
            _chosen(record, selection),
            *(_test(found, row) for row in (MANUAL, TUNED, ENSEMBLE)),
            f"{found.prompts:,}",
            clock(found.seconds),
        )
    return table


def _typed(value: Any) -> str:
    """A setting's value as a person types it."""
    return value if isinstance(value, str) else json.dumps(value)


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


def differences(configs: Sequence[ClusterSearch]) -> list[dict[str, Any]]:
    """Of each config the settings in which they are not all equal, by their full names.

    A seed that is search.seed's in all of them says nothing more.
    """
    trees = [flat(config.model_dump(mode="json", exclude={"run_dir"})) for config in configs]
    names = [name for name in trees[0] if len({repr(tree.get(name)) for tree in trees}) > 1]
    for seed in ("prompt.seed", "ensemble.seed"):
        if seed in names and all(tree[seed] == tree["search.seed"] for tree in trees):
            names.remove(seed)
    return [{name: tree[name] for name in names} for tree in trees]
