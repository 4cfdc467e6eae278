"""A run in words and plain numbers: what it is, how far it came, what it took."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cliptune.config import Config
from cliptune.errors import RunError
from cliptune.journal import Validation
from cliptune.record import RunRecord
from cliptune.strategy import STRATEGY_ENDED
from cliptune.wording import flat

Record = RunRecord[Any]  # of Config, or of what a storey above makes of it


@dataclass(frozen=True)
class Outcome:
    """How far a run came; a result is only there once a search has ended."""

    finished: bool
    stopped: str | None
    prompts: int
    seconds: float
    accuracy: Mapping[str, Mapping[str, float]] | None  # by row and split
    cost: Mapping[str, Any] | None


def outcome(record: Record) -> Outcome:
    """What result.json says, where it still holds: an extended run's is about its beginning."""
    prompts = len(record.generations) * record.config.search.population
    seconds = sum(one.seconds for one in record.telemetry)
    if record.result is None:
        return Outcome(False, None, prompts, seconds, None, None)
    try:
        cost = record.result["cost"]
        cost_line(cost)
        accuracy = {row: _by_split(values) for row, values in record.result["accuracy"].items()}
        finished = cost["prompts_scored"] == prompts
        splits = {tuple(values) for values in accuracy.values()}
        if len(splits) != 1 or "test" not in next(iter(splits)):
            raise ValueError("its table lacks a split")
        stopped = str(record.result["stopped"])
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise RunError(
            f"{record.path}/result.json is not one of cliptune's: {type(error).__name__} {error}."
        ) from None
    if not finished:
        return Outcome(False, None, prompts, seconds, accuracy, None)
    return Outcome(True, stopped, prompts, cost["seconds"], accuracy, cost)


def _by_split(values: Mapping[str, Any]) -> dict[str, float]:
    return {split: 0.0 + value for split, value in values.items()}  # refuses what is no number


def facts(record: Record, found: Outcome) -> dict[str, str]:
    """What a person asks of a run, by name."""
    config, model = record.config, record.facts
    task, prompt, search = config.task, config.prompt, config.search
    seeds = {name: getattr(config, name).seed for name in ("search", "prompt", "ensemble", "task")}
    layers = f" at each of {prompt.layers} layers" if prompt.layers > 1 else ""
    calibrated = "; class biases from the training examples" if search.calibrate else ""
    fewer = f" with {config.model.quantize} weights" if config.model.quantize else ""
    rows = {
        "run": record.path,
        "state": _state(record, found),
        "task": f"{task.name}: {len(task.label_words)} classes, {task.k} examples a class",
        "model": f"{model.name}, {config.model.dtype}{fewer} on {config.model.device}, "
        f"{model.parameters:,} parameters, SHA-256 {model.sha256[:12]}",
        "prompt": f"{prompt.length} vectors of {model.width}, searched in {prompt.dimension} "
        f"dimensions{layers}; init {prompt.init}",
        "networks": _networks(config),
        "search": f"{search.method}, {search.population} prompts a generation, loss {search.loss}; "
        f"chosen by {search.selection}{calibrated}",
        "seeds": ", ".join(f"{name} {seed}" for name, seed in seeds.items()),
    }
    if (best := record.best) is not None:
        rows["best"] = f"{best.name}; on validation {measures(best.validation)}"
    rows["cost"] = (
        f"{found.prompts:,} prompts scored in {clock(found.seconds)}"
        if found.cost is None
        else cost_line(found.cost)
    )
    if found.cost is not None and (bill := (record.result or {}).get("bill")):
        rows["provider"] = bill_line(bill)
    return rows


def _state(record: Record, found: Outcome) -> str:
    generations = len(record.generations)
    if found.finished:
        return f"finished after {generations} generations: {found.stopped}"
    budget = record.config.search.budget
    of = "" if budget is None else f" of {budget:,}"
    state = f"unfinished: {found.prompts:,}{of} prompts in {generations} generations"
    return state if found.accuracy is None else f"{state}; the table is of an earlier end"


def _networks(config: Config) -> str:
    ensemble = config.ensemble
    if ensemble.mode == "none":
        return "the full network alone"
    return (
        f"{ensemble.subnetworks} thinned ones, each without {100 * ensemble.clip_ratio:g}% of "
        f"{', '.join(ensemble.sites)}; {ensemble.mode}, mixed by {ensemble.mixer}"
    )


def next_step(record: Record, found: Outcome) -> tuple[str, str | None]:
    """How to go on with a run, in words, and the command that does it where there is one."""
    command, budget = resume_command(record.path), record.config.search.budget
    if not found.finished:
        return "go on with it", command
    if (found.stopped or "").startswith(STRATEGY_ENDED):
        return "more budget changes nothing; another search.seed, as a new run, may", None
    if budget is None or found.prompts + record.config.search.population <= budget:
        return "to extend it, raise the limit that it reached", command
    return "to extend it", f"{command} search.budget={2 * budget}"


def resume_command(run_dir: str) -> str:
    """What to type to go on with a search."""
    return f"cliptune search --resume {shlex.quote(run_dir)}"


def cost_line(cost: Mapping[str, Any]) -> str:
    """What a search took; `cost` as in result.json."""
    return (
        f"{cost['prompts_scored']:,} prompts scored in {clock(cost['seconds'])}; forward passes: "
        f"{cost['search_passes']:,} search, {cost['validation_passes']:,} validation, "
        f"{cost['evaluation_passes']:,} evaluation; {cost['device_seconds']:.0f} device seconds"
    )


def bill_line(bill: Mapping[str, Any]) -> str:
    """What a model behind an API was asked for; `bill` as in result.json."""
    return (
        f"{bill['requests']:,} requests, {bill['retries']:,} of them again; {bill['tokens']:,} "
        f"tokens computed; {bill['bytes_sent']:,} bytes sent, {bill['bytes_received']:,} received"
    )


def measures(validation: Validation) -> str:
    """How good a prompt is on validation."""
    return ", ".join(measure_words(validation))


def measure_words(validation: Validation) -> tuple[str, str, str]:
    """Three measures: macro-F1 makes way for the score of a metric of the user's own."""
    accuracy, loss = f"accuracy {validation.accuracy:.1%}", f"loss {validation.loss:.3f}"
    if validation.score in (validation.accuracy, validation.macro_f1, -validation.loss):
        return accuracy, f"macro-F1 {validation.macro_f1:.1%}", loss
    return accuracy, f"score {validation.score:.3f}", loss


def clock(seconds: float) -> str:
    """`m:ss`, from an hour on `h:mm:ss`."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def differences(configs: Sequence[Config]) -> list[dict[str, Any]]:
    """Of each config the settings in which they are not all equal, by their full names.

    A seed that is search.seed's in all of them says nothing more. What one does not have is left
    out, such as `cluster.actors.min` where there is a number of actors.
    """
    trees = [flat(config.model_dump(mode="json", exclude={"run_dir"})) for config in configs]
    every = dict.fromkeys(name for tree in trees for name in tree)
    names = [name for name in every if len({repr(tree.get(name)) for tree in trees}) > 1]
    for seed in ("prompt.seed", "ensemble.seed"):
        if seed in names and all(tree[seed] == tree["search.seed"] for tree in trees):
            names.remove(seed)
    return [{name: tree[name] for name in names if name in tree} for tree in trees]


def typed(value: Any) -> str:
    """A setting's value as a person types it."""
    return value if isinstance(value, str) else json.dumps(value)
