"""The section of several runs: one table, and their curves in the same pictures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter

from cliptune.account import Outcome, Record, clock, differences, outcome, typed
from cliptune.evaluation import ENSEMBLE, MANUAL, TUNED
from cliptune.report import figures
from cliptune.report.look import Draw
from cliptune.report.numbers import Course, Numbers, course, work
from cliptune.report.parts import Absent, Picture, Section, Step, Table, report_command

CHOSEN = "Of the prompt that was chosen by then."
SPREAD = "Standard deviation over subnetworks, mean over candidates."
STEPS = "How far from its centre a search draws its candidates."
Lines = Mapping[int, tuple[Numbers, Numbers]]  # by the number of a run: prompts, values


def comparison_section(records: Sequence[Record]) -> Section:
    """Several runs: one table, and their curves in the same pictures."""
    outcomes = [outcome(record) for record in records]
    numbered = dict(enumerate(records, 1))
    absent = [
        Absent(f"Run {number}", "not one generation is in its journal yet")
        for number, record in numbered.items()
        if not record.generations
    ]
    return Section(
        title=f"{len(records)} runs compared",
        subtitle="Each run has a number, and a colour, that are the same everywhere.",
        tables=_tables(records, outcomes),
        pictures=list(_overlays(numbered, outcomes)),
        absent=absent,
        steps=[Step("a report of one run alone", report_command(records[0].path))],
    )


def _tables(records: Sequence[Record], outcomes: Sequence[Outcome]) -> list[Table]:
    keys = [str(number) for number in range(1, len(records) + 1)]
    columns = ["run", "where", "validation", MANUAL, TUNED, ENSEMBLE, "prompts", "time", "state"]
    rows = [
        [
            key,
            record.path,
            "" if record.best is None else f"{record.best.validation.accuracy:.1%}",
            *(_on_test(found, row) for row in (MANUAL, TUNED, ENSEMBLE)),
            f"{found.prompts:,}",
            clock(found.seconds),
            "finished" if found.finished else "unfinished",
        ]
        for key, record, found in zip(keys, records, outcomes, strict=True)
    ]
    title = "Accuracy of the chosen prompts: on validation, and by row of their tables on test"
    tables = [Table(title, columns, rows, words=(1, 8), keyed=True)]
    settings = differences([record.config for record in records])
    if names := list(dict.fromkeys(name for each in settings for name in each)):
        cells = [
            [key, *(typed(each[name]) if name in each else "" for name in names)]
            for key, each in zip(keys, settings, strict=True)
        ]
        title, words = "Settings in which they differ", range(1, len(names) + 1)
        tables.append(Table(title, ["run", *names], cells, words=words, keyed=True))
    return tables


def _on_test(found: Outcome, row: str) -> str:
    accuracy = (found.accuracy or {}).get(row)
    return "" if accuracy is None else f"{accuracy['test']:.1%}"


def _overlays(records: Mapping[int, Record], outcomes: Sequence[Outcome]) -> Iterator[Picture]:
    ways = {
        key: course(record.generations, record.config.search.population)
        for key, record in records.items()
        if record.generations
    }
    if not ways:
        return
    losses = sorted({record.config.search.loss for record in records.values()})
    differ = f" Their losses differ ({', '.join(losses)}): do not compare these."
    warning = differ if len(losses) > 1 else ""

    several = {number: way for number, way in ways.items() if way.rewards.shape[1] > 1}
    yield _picture(
        "validation", "Accuracy on validation", CHOSEN, ways, attrgetter("chosen"), "percent"
    )
    yield _picture(
        "fitness", "Fitness", f"Of each generation's best.{warning}", ways, attrgetter("best")
    )
    if several:
        yield _picture("spread", "Spread of rewards", SPREAD, several, attrgetter("spread"))
    yield _picture("step-size", "Step size", STEPS, ways, attrgetter("step_size"), "factors")
    yield from _speeds(records, outcomes)


def _picture(
    name: str,
    title: str,
    caption: str,
    ways: Mapping[int, Course],
    values: Callable[[Course], Numbers],
    kind: str = "",
) -> Picture:
    lines = {number: (way.prompts, values(way)) for number, way in ways.items()}
    return Picture(name, title, caption, _overlay(lines, title.lower(), kind))


def _overlay(lines: Lines, label: str, kind: str) -> Draw:
    return partial(figures.compared, courses=lines, label=label, kind=kind)


def _speeds(records: Mapping[int, Record], outcomes: Sequence[Outcome]) -> Iterator[Picture]:
    taken = {
        key: took
        for (key, record), found in zip(records.items(), outcomes, strict=True)
        if (took := work(record, found)) is not None
    }
    if taken:
        lines = {key: (took.prompts, took.speed) for key, took in taken.items()}
        again = sum(took.retries.sum() for took in taken.values())
        caption = f"Retried units, all runs together: {again:,.0f}."
        yield Picture("speed", "Prompts a second", caption, _overlay(lines, "prompts a second", ""))
