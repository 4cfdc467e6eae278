"""When a search ends, and why: budgets, patience, and the strategy's own judgement."""

from collections.abc import Callable, Sequence

from cliptune.config import Config
from cliptune.errors import ConfigError
from cliptune.journal import Generation, best_of
from cliptune.strategy import Strategy
from cliptune.task import Task


def passes_a_generation(config: Config, examples: int) -> int:
    """Forward passes that score one population: prompts x subnetworks x training examples."""
    return config.search.population * config.ensemble.size * examples


def validation_passes(config: Config, task: Task, generations: int) -> int:
    """Forward passes that try so many generations' best, and no prompt once, on validation."""
    tried = (generations + 1) * len(task["validation"])
    return tried + (generations * len(task["train"]) if config.search.calibrate else 0)


def generations(config: Config, examples: int) -> int | None:
    """Whole generations that the budgets pay for; None where only time limits them."""
    search = config.search
    passes = passes_a_generation(config, examples)
    if search.max_forward_passes is not None and search.max_forward_passes < passes:
        raise ConfigError(
            f"search.max_forward_passes must hold at least one generation, here {passes} passes "
            f"({search.population} prompts x {config.ensemble.size} subnetworks x {examples} "
            f"examples); found {search.max_forward_passes}."
        )
    counts = [
        limit // each
        for limit, each in (
            (search.budget, search.population),
            (search.max_forward_passes, passes),
        )
        if limit is not None
    ]
    return min(counts, default=None)


def would_have_stopped(
    config: Config, examples: int, past: Sequence[Generation]
) -> tuple[int, str] | None:
    """After how many of the past generations these limits would have ended the search, and why."""
    best: Generation | None = None
    for done, generation in enumerate(past[:-1], start=1):
        best = generation if best is None else best_of([best, generation])
        if reason := _limit_reached(config, examples, done, best, seconds=0):
            return done, reason
    return None


def reason_to_stop(
    config: Config,
    examples: int,
    done: int,
    best: Generation | None,
    seconds: Callable[[], float],
    strategy: Strategy,
) -> str | None:
    """Why no further generation is searched after `done` of them, in words; None to go on."""
    if best is None:
        return None
    return _limit_reached(config, examples, done, best, seconds()) or strategy.termination


def _limit_reached(
    config: Config, examples: int, done: int, best: Generation, seconds: float
) -> str | None:
    search = config.search
    if search.budget is not None and (done + 1) * search.population > search.budget:
        return f"the budget of {search.budget:,} prompts is spent"
    passes = search.max_forward_passes
    if passes is not None and (done + 1) * passes_a_generation(config, examples) > passes:
        return f"the budget of {passes:,} forward passes is spent (search.max_forward_passes)"
    if search.max_seconds is not None and seconds >= search.max_seconds:
        return f"{search.max_seconds:g} seconds are over (search.max_seconds)"
    if search.patience is not None and done - 1 - best.number >= search.patience:
        return f"no better prompt on validation in {search.patience} generations (search.patience)"
    return None
