"""`cliptune reproduce`: the paper's experiments, each a sweep, and one table of results."""

import json
from collections.abc import Sequence
from itertools import chain
from typing import Any

from rich.table import Table

from cliptune.config import merge, validate
from cliptune.errors import ConfigError
from cliptune.models.load import shape_of
from cliptune.results import (
    MAIN,
    RESULTS,
    Cells,
    difference_cells,
    differences,
    lines_of,
    markdown,
    results_of,
    table_cells,
    table_of,
)
from cliptune.storage import open_folder
from cluster.config import ClusterSearch
from jobs.config import read_tree
from jobs.experiments import (
    EXPERIMENTS,
    METHODS,
    SEEDS,
    TASKS,
    Matrix,
    Sizes,
    named,
    sweep_of,
)
from jobs.ranking import Row, parquet
from jobs.sweep import Prepared, carry_on, list_trials, place_of, prepare, refuse_failures
from jobs.sweepdisplay import choose
from jobs.sweepfile import brief
from jobs.sweepplan import SweepPlan
from jobs.words import make_console

TABLES = "results.md"


def main(
    words: Sequence[str],
    *,
    tasks: str | None,
    which: str | None,
    seeds: str | None,
    budget: int,
    experiments: str | None,
    data: str | None,
    into: str,
    as_json: bool,
    listed: bool,
) -> None:
    """Run what is left of the experiments, and write and print their tables."""
    asked = named(experiments, list(EXPERIMENTS), "--experiments") if experiments else [MAIN]
    matrix = Matrix(
        tasks=named(tasks, list(TASKS), "--tasks"),
        methods=named(which, list(METHODS), "--methods"),
        seeds=_seeds(seeds),
        data=data,
    )
    base = read_tree(words, {"search": {"budget": budget}})
    if "run_dir" in base:
        raise ConfigError("run_dir: every search has its own under --into; leave it out.")
    sizes = _sizes(base, budget)
    every = {name: sweep_of(name, matrix, sizes, base) for name in asked}
    prepared = {name: prepare(sweep) for name, sweep in every.items() if sweep is not None}
    if not prepared:
        raise ConfigError(
            f"None of the methods {which} is part of {', '.join(asked)}: there is nothing to run."
        )
    if listed:
        for one in prepared.values():
            list_trials(one)
        return
    _run(prepared, place_of(into), as_json=as_json)


def _run(prepared: dict[str, Prepared], place: str, *, as_json: bool) -> None:
    """One experiment after the other; what is done is written after each."""
    plans: list[SweepPlan] = []
    results: dict[str, list[Row]] = {}
    for name, one in prepared.items():
        plan = carry_on(one, f"{place}/{name}", choose(quiet=as_json))
        plans.append(plan)
        results[name] = results_of(_valued(plan), name)
        _write(place, results)
    if as_json:
        print(json.dumps({"directory": place, "results": list(chain(*results.values()))}))
    else:
        _show(place, results)
    for plan in plans:
        refuse_failures(plan)


def _valued(plan: SweepPlan) -> list[Row]:
    """The rows of a sweep with what it varies in words."""
    rows = []
    for entry in plan.manifest.entries:
        varied = {n: v for n, v in entry.settings.items() if n not in ("task", "method")}
        value = ", ".join(brief(one) for one in varied.values()) if varied else None
        rows.append({**plan.rows[entry.name], "value": value})
    return rows


def _sizes(base: dict[str, Any], budget: int) -> Sizes:
    """What the methods need to know of the model and of the settings of all."""
    config = validate(ClusterSearch, merge({"task": {"name": "sst2"}}, base))
    layers, width = shape_of(config.model.name)
    return Sizes(
        budget=config.search.budget or budget,
        subnetworks=config.ensemble.subnetworks,
        layers=layers,
        numbers=width * config.prompt.length,
    )


def _seeds(asked: str | None) -> list[int]:
    if asked is None:
        return list(SEEDS)
    try:
        return [int(seed) for seed in asked.split(",")]
    except ValueError:
        raise ConfigError(
            f"--seeds: expected whole numbers with commas, such as 13,21; found {asked!r}."
        ) from None


def _tables(results: dict[str, list[Row]]) -> list[tuple[str, Cells]]:
    """Titles and tables of all experiments."""
    found = []
    every = list(chain(*results.values()))
    for name, rows in results.items():
        if not rows:
            continue
        question = EXPERIMENTS[name].question
        found.append((f"{name}: {question}; test accuracy in %", table_cells(lines_of(rows))))
        if compared := differences(name, every):
            title = f"{name}: differences of test accuracy, paired by task and seed"
            found.append((title, difference_cells(compared)))
    return found


def _write(place: str, results: dict[str, list[Row]]) -> None:
    folder = open_folder(place)
    folder.write(RESULTS, parquet(table_of(list(chain(*results.values())))))
    text = "\n".join(f"**{title}**\n\n{markdown(cells)}" for title, cells in _tables(results))
    folder.write(TABLES, text.encode())


def _show(place: str, results: dict[str, list[Row]]) -> None:
    console = make_console()
    for title, (head, *body) in _tables(results):
        table = Table(title=title, title_justify="left", title_style="bold")
        for number, heading in enumerate(head):
            table.add_column(heading, justify="right" if number else "left", no_wrap=number == 0)
        for row in body:
            table.add_row(*row)
        console.print(table)
    console.print(f"written to {place}: {RESULTS}, {TABLES}", soft_wrap=True)
