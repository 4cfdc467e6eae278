"""`cliptune sweep`: many searches on one cluster, a table of them, and their ranking."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

from cliptune import limits
from cliptune.config import TaskConfig
from cliptune.errors import ConfigError, RunError, ScorerError
from cliptune.loop import refuse_missing
from cliptune.storage import SCHEME
from cliptune.task import load_task
from cluster.config import ClusterSearch
from cluster.session import connected, is_starting
from jobs.manifest import Manifest, grown, opened
from jobs.ranking import rank, ranking_table
from jobs.signals import Stopped, leave, stopping
from jobs.suggestions import EXTRA, Suggestions
from jobs.sweepdisplay import SweepDisplay, choose
from jobs.sweepfile import SEED, Settings, Sweep, config_of, labelled, read_sweep, tree_of
from jobs.sweepplan import SweepPlan, asha_of
from jobs.sweepspace import Space, corners, points, read_space
from jobs.words import make_console


@dataclass(frozen=True)
class Prepared:
    """A sweep of which every setting has been checked."""

    sweep: Sweep
    space: Space
    drawn: list[Settings]  # all of them, in order; none where each is drawn by what came before
    configs: list[ClusterSearch]  # of these, or of the space's corners


def main(
    file: Path, words: Sequence[str], *, into: str | None, as_json: bool, listed: bool
) -> None:
    """Run what is left of a sweep, and print its ranking; or only list its trials."""
    prepared = prepare(read_sweep(file, words))
    if listed:
        list_trials(prepared)
        return
    plan = carry_out(prepared, place_of(into or f"sweeps/{file.stem}"), choose(quiet=as_json))
    _tell(plan, prepared.configs[0].search.selection, as_json=as_json)
    refuse_failures(plan)


def prepare(sweep: Sweep) -> Prepared:
    """Check all settings, so that what is wrong with one is known before any is run."""
    space = read_space(sweep)
    drawn = [] if sweep.searcher == "optuna" else list(points(sweep, space))
    return Prepared(sweep, space, drawn, _checked(sweep, drawn or corners(space)))


def place_of(into: str) -> str:
    """An absolute path, or a URI as it is."""
    return into if SCHEME.match(into) else str(Path(into).expanduser().absolute())


def carry_out(prepared: Prepared, place: str, display: SweepDisplay) -> SweepPlan:
    """Run what is left of a sweep; where a signal stops that, the process ends here."""
    with opened(place, prepared.sweep) as (manifest, begun):
        for settings in [] if begun else prepared.drawn:
            manifest.add(settings)
        suggestions = _suggestions(prepared.sweep, prepared.space, manifest)
        plan = SweepPlan(manifest, suggestions, display)
        stopped = _run_or_stop(plan, prepared.configs, display)
    _leave_if(stopped, place, display)
    return plan


def carry_on(
    prepared: Prepared,
    place: str,
    display: SweepDisplay,
    keep: Callable[[SweepPlan], None],
    beside: Sequence[str] = (),
) -> SweepPlan:
    """As `carry_out`, of a sweep that may have fewer or more trials than in the session before.

    `keep` is called with what is done, also where the rest is stopped or fails. What sweeps
    `beside` it have done with the same settings is not run again.
    """
    with grown(place, prepared.sweep, beside) as manifest:
        plan = SweepPlan(manifest, None, display)
        try:
            stopped = _run_or_stop(plan, prepared.configs, display)
        finally:
            keep(plan)
    _leave_if(stopped, place, display)
    return plan


def _run_or_stop(
    plan: SweepPlan, configs: Sequence[ClusterSearch], display: SweepDisplay
) -> Stopped | None:
    try:
        with stopping(at_once=is_starting), display:
            _run(plan, configs, display)
    except Stopped as signal:
        return signal
    return None


def _leave_if(stopped: Stopped | None, place: str, display: SweepDisplay) -> None:
    if stopped is not None:
        display.stopped(place)
        leave(stopped.exit_code)


def _run(plan: SweepPlan, configs: Sequence[ClusterSearch], display: SweepDisplay) -> None:
    """Everything that has no end yet, on Ray; nothing lasts of a sweep that is refused."""
    if not plan.left:
        plan.write()
        return
    try:
        from cluster import tuning
    except ImportError as error:
        raise ConfigError(f"A sweep needs Ray Tune ({error}): {EXTRA}") from None
    asha_of(plan, configs)  # what is wrong with it is said before Ray starts
    display.phase("Starting Ray")
    with connected(configs[0].cluster.address):
        plan.refuse_what_never_fits(configs)
        plan.write()
        _on_tune(tuning, plan, configs, display)


def _on_tune(
    tuning: ModuleType, plan: SweepPlan, configs: Sequence[ClusterSearch], display: SweepDisplay
) -> None:
    """All trials on Ray Tune, and what is left of them again where it fails itself."""
    sweep = plan.manifest.sweep
    for tries_left in reversed(range(sweep.failures + 1)):
        display.began(plan.manifest.place, plan.total, plan.total - plan.left)
        asha = asha_of(plan, configs)
        try:
            tuning.run(
                plan, display, concurrency=sweep.concurrency, failures=sweep.failures, asha=asha
            )
            return
        except tuning.TuneError as error:
            if not tries_left:
                raise ScorerError(
                    f"{error} What is done stays; the same command goes on with it."
                ) from error
            display.warning(f"{error} The sweep goes on with what is left.")
        plan.again()


def _checked(sweep: Sweep, every: Sequence[Settings]) -> list[ClusterSearch]:
    """The configs of all settings with the first seed; of other seeds what is said of them."""
    configs = [config_of(tree_of(sweep, one, sweep.seeds[0]), labelled(one)) for one in every]
    examples: dict[str, int] = {}
    for config, settings in zip(configs, every, strict=True):
        refuse_missing(config)
        for task in [config.task, *_tasks_of_other_seeds(sweep, settings)]:
            if (key := task.model_dump_json()) not in examples:
                examples[key] = len(load_task(task)["train"])
            try:
                limits.generations(config, examples[key])
            except ConfigError as error:
                raise ConfigError(f"{labelled(settings)}: {error}") from None
    return configs


def _tasks_of_other_seeds(sweep: Sweep, settings: Settings) -> list[TaskConfig]:
    """Where `{seed}` is part of what the examples come from."""
    if SEED not in sweep.model_dump_json():
        return []
    trees = (tree_of(sweep, settings, seed) for seed in sweep.seeds[1:])
    return [config_of(tree, labelled(settings)).task for tree in trees]


def _suggestions(sweep: Sweep, space: Space, manifest: Manifest) -> Suggestions | None:
    if sweep.searcher != "optuna":
        return None
    return Suggestions(space, sweep.seed, past=len(manifest.groups))


def list_trials(prepared: Prepared) -> None:
    """What would be run."""
    sweep, drawn = prepared.sweep, prepared.drawn
    console, seeds = make_console(), ", ".join(map(str, sweep.seeds))
    for settings, config in zip(drawn, prepared.configs, strict=False):
        budget = config.search.budget
        prompts = "" if budget is None else f"  {budget:,} prompts"
        console.print(f"{labelled(settings)}  seeds {seeds}{prompts}", soft_wrap=True)
    count = (len(drawn) or sweep.samples) * len(sweep.seeds)
    drawer = "" if drawn else ", drawn by Optuna one after another"
    console.print(f"{count} trials{drawer}")


def _tell(plan: SweepPlan, selection: str, *, as_json: bool) -> None:
    """The ranking."""
    ranks = rank(plan.manifest.groups, plan.rows)
    console = make_console()
    failed = [entry for entry in plan.manifest.entries if entry.state == "failed"]
    if as_json:
        value = {
            "directory": plan.manifest.place,
            "trials": len(plan.manifest.entries),
            "failed": {entry.name: entry.error for entry in failed},
            "ranking": [asdict(one) for one in ranks],
        }
        print(json.dumps(value, ensure_ascii=False))
    else:
        if ranks:
            console.print(ranking_table(ranks, selection))
        console.print(f"written to {plan.manifest.place}", soft_wrap=True)


def refuse_failures(plan: SweepPlan) -> None:
    """Say which trials a sweep lacks, if any."""
    failed = [entry for entry in plan.manifest.entries if entry.state == "failed"]
    if failed:
        raise ScorerError(
            f"{len(failed)} of {plan.total} trials failed, {failed[0].name} for one: "
            f"{failed[0].error} The same command tries them again."
        )
    broken = [row for row in plan.rows.values() if row["state"] == "done" and row["error"]]
    if broken:
        raise RunError(
            f"{len(broken)} of {plan.total} trials are done and cannot be read, "
            f"{broken[0]['trial']} for one: {broken[0]['error']} Without its folder, "
            f"{broken[0]['run_dir']}, the same command searches it again."
        )
