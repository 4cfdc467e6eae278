"""`cliptune reproduce`: the paper's experiments, each a sweep, and one table of results."""

import json
from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

from cliptune.config import merge, validate
from cliptune.errors import ConfigError, RunError
from cliptune.models.load import shape_of
from cliptune.record import read_json
from cliptune.results import (
    MAIN,
    RESULTS,
    Cells,
    by_experiment,
    difference_cells,
    differences,
    is_results,
    lines_of,
    markdown,
    read_results,
    results_of,
    table_cells,
    table_of,
)
from cliptune.storage import open_folder
from cliptune.wording import flat
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
    values_of,
)
from jobs.manifest import ABSENT
from jobs.ranking import Row, parquet
from jobs.sweep import Prepared, carry_on, list_trials, place_of, prepare, refuse_failures
from jobs.sweepdisplay import choose
from jobs.sweepfile import brief, has_seed
from jobs.sweepplan import SweepPlan
from jobs.words import make_console, titled_table

TABLES, SETTINGS = "results.md", "settings.json"
WIDE = 400  # columns
DIGITS = 18  # of a seed


def main(
    words: Sequence[str],
    *,
    tasks: str | None,
    which: str | None,
    seeds: str | None,
    budget: int,
    experiments: str | None,
    values: str | None,
    data: str | None,
    into: str,
    as_json: bool,
    listed: bool,
) -> None:
    """Run what is left of the experiments, and write and print their tables."""
    asked = named(experiments, list(EXPERIMENTS), "--experiments") if experiments else [MAIN]
    base = read_tree(words, {"search": {"budget": budget}})
    if "run_dir" in base:
        raise ConfigError("run_dir: every search has its own under --into; leave it out.")
    if has_seed(base):
        raise ConfigError("search.seed: --seeds is for that; leave it out.")
    sizes = _sizes(base, budget)
    matrix = Matrix(
        tasks=named(tasks, list(TASKS), "--tasks"),
        methods=named(which, list(METHODS), "--methods"),
        seeds=_seeds(seeds),
        values=_values(values, asked, sizes),
        data=data,
    )
    every = {name: sweep_of(name, matrix, sizes, base) for name in asked}
    prepared = {name: prepare(sweep) for name, sweep in every.items() if sweep is not None}
    if not prepared:
        raise ConfigError(
            f"{', '.join(asked)}: nothing is left to run of --methods {which or 'all'} and "
            f"--values {values or 'all'}."
        )
    if listed:
        for one in prepared.values():
            list_trials(one)
        return
    place = place_of(into)
    _refuse_other_settings(place, base)
    _run(prepared, place, as_json=as_json)


def _refuse_other_settings(place: str, base: dict[str, Any]) -> None:
    """Results of different settings have no common table. On which machines they came about does
    not matter."""
    folder = open_folder(place)
    folder.make()
    now = {name: value for name, value in flat(base).items() if not name.startswith("cluster.")}
    before = flat(read_json(folder, SETTINGS)) if folder.exists(SETTINGS) else now
    before.pop("search.seed", None)  # it never was that of a search
    names = {**before, **now}
    if other := [n for n in names if before.get(n, ABSENT) != now.get(n, ABSENT)]:
        first = other[0]
        raise RunError(
            f"{place} holds results of other settings: {first} is {_said(now, first)}, there it is "
            f"{_said(before, first)}. Give another folder with --into."
        )
    folder.write(SETTINGS, (json.dumps(now, indent=2, ensure_ascii=False) + "\n").encode())


def _said(settings: dict[str, Any], name: str) -> str:
    return brief(settings[name]) if name in settings else "not given"


def _run(prepared: dict[str, Prepared], place: str, *, as_json: bool) -> None:
    """One experiment after the other; what is done is written after each, stopped or not.

    A search that several of them ask for is run once.
    """

    def known() -> dict[str, list[Row]]:
        return by_experiment(read_results(place)) if is_results(place) else {}

    def keep(name: str, plan: SweepPlan) -> None:  # beside what others have added meanwhile
        results = known()
        found = results_of(_valued(plan, name), name)
        cells = list(map(_cell, found))
        past = [row for row in results.get(name, []) if _cell(row) not in cells]
        _write(place, {**results, name: [*found, *past]})

    known()  # what is damaged is said before anything is run

    plans = [
        carry_on(
            one,
            f"{place}/{name}",
            choose(quiet=as_json),
            partial(keep, name),
            [f"{place}/{other}" for other in EXPERIMENTS if other != name],
        )
        for name, one in prepared.items()
    ]
    results = known()
    if as_json:
        print(json.dumps({"directory": place, "results": list(chain(*results.values()))}))
    else:
        _show(place, results)
    for plan in plans:
        refuse_failures(plan)


def _cell(row: Row) -> tuple[Any, ...]:
    return row["task"], row["seed"], row["method"], row["value"]


def _valued(plan: SweepPlan, experiment: str) -> list[Row]:
    """The rows of a sweep with the value of what it varies."""
    entries = plan.manifest.entries
    return [{**plan.rows[one.name], "value": one.settings.get(experiment)} for one in entries]


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


def _values(asked: str | None, experiments: Sequence[str], sizes: Sizes) -> list[str] | None:
    known = values_of(experiments, sizes)
    if asked is not None and not known:
        raise ConfigError(
            f"--values: {', '.join(experiments)} varies nothing but methods; name an experiment "
            "that does with --experiments."
        )
    return None if asked is None else named(asked, known, "--values")


def _seeds(asked: str | None) -> list[int]:
    if asked is None:
        return list(SEEDS)
    seeds = [word.strip() for word in asked.split(",")]
    if not all(seed.isdecimal() and len(seed) <= DIGITS for seed in seeds):
        raise ConfigError(
            f"--seeds: expected whole numbers of {DIGITS} digits at most with commas, such as "
            f"13,21; found {asked!r}."
        )
    return list(dict.fromkeys(map(int, seeds)))


def _tables(results: dict[str, list[Row]]) -> list[tuple[str, Cells]]:
    """Titles and tables of all experiments."""
    found = []
    every = list(chain(*results.values()))
    for name, rows in results.items():
        if not rows:
            continue
        question = f": {EXPERIMENTS[name].question}" if name in EXPERIMENTS else ""
        found.append((f"{name}{question}; test accuracy in %", table_cells(lines_of(rows))))
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
    if not console.is_terminal:  # a file has room for a table as wide as it comes
        console.width = WIDE
    for title, (head, *body) in _tables(results):
        table = titled_table(title, *head)
        table.columns[0].no_wrap = True
        for row in body:
            table.add_row(*row)
        console.print(table)
    console.print(f"written to {place}: {RESULTS}, {TABLES}", soft_wrap=True)
