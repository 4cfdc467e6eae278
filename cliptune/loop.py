"""The search: ask, score through N thinned subnetworks, mix, tell, write down."""

import time
from dataclasses import dataclass, replace

from cliptune.config import Config
from cliptune.errors import StrategyError
from cliptune.evaluation import evaluate, validate
from cliptune.journal import Generation, Validation
from cliptune.rewards import MIXERS
from cliptune.run import Cost, Result, RunDirectory, Telemetry, choose_run_dir
from cliptune.scorer import Scorer
from cliptune.strategy import Strategy, make_strategy
from cliptune.task import load_task


@dataclass(frozen=True)
class Progress:
    """Where a search stands after a generation."""

    generation: Generation
    generations: int
    best: Generation  # the one whose prompt is chosen as of now
    manual: Validation
    telemetry: Telemetry
    prompts_scored: int
    seconds: float


class Observer:
    """Is told how a search goes; this one does nothing with it."""

    def phase(self, message: str) -> None:
        """Something begins that takes a while."""

    def generation(self, progress: Progress) -> None:
        """A generation was scored, told and written down."""


def search(
    config: Config, scorer: Scorer | None = None, observer: Observer | None = None
) -> Result:
    """Search a prompt, in this process unless given a scorer that works elsewhere.

    What counts is the scorer's config, in which nothing is left on auto.
    """
    observer = observer or Observer()
    scorer = scorer or _local_scorer(config, observer)
    config = scorer.config
    started = time.perf_counter()
    run = RunDirectory(config, scorer.task, scorer.facts())
    manual = validate(scorer, None)
    strategy = make_strategy(config)
    best: Generation | None = None
    for number in range(config.search.generations):
        watch = _Stopwatch(scorer)
        generation = _advance(number, strategy, scorer)
        run.journal.append(generation)
        telemetry = watch.telemetry(number)
        run.record(telemetry)
        rivals = [generation] if best is None else [best, generation]
        best = max(rivals, key=lambda rival: rival.validation.order(config.search.selection))
        seconds = time.perf_counter() - started
        observer.generation(
            Progress(
                generation=generation,
                generations=config.search.generations,
                best=best,
                manual=manual,
                telemetry=telemetry,
                prompts_scored=(number + 1) * config.search.population,
                seconds=seconds,
            )
        )
    if best is None:
        raise StrategyError("The budget holds no generation; raise search.budget.")
    observer.phase("Evaluating the prompt on all splits")
    return _finish(run, scorer, best, time.perf_counter() - started)


def _advance(number: int, strategy: Strategy, scorer: Scorer) -> Generation:
    """One generation, told whole."""
    ensemble = scorer.config.ensemble
    step_size = strategy.step_size
    latents = strategy.ask()
    rewards = scorer.score(latents, number)  # (population, subnetworks)
    fitness = MIXERS[ensemble.mixer](rewards, ensemble.weights)  # (population,)
    strategy.tell(latents, fitness)
    best = int(fitness.argmax())
    validation = validate(scorer, latents[best])
    return Generation(number, latents, rewards, fitness, step_size, best, validation)


def _finish(run: RunDirectory, scorer: Scorer, best: Generation, seconds: float) -> Result:
    """Evaluate the chosen prompt and write it down."""
    latent = best.latents[best.best]
    searched = replace(scorer.usage)
    table = evaluate(scorer, latent, best.number)
    config, task = scorer.config, scorer.task
    prompts = config.search.generations * config.search.population
    result = Result(
        run_dir=run.path,
        generation=best.number,
        candidate=best.best,
        latent=latent,
        validation=best.validation,
        table=table,
        cost=Cost(
            prompts_scored=prompts,
            search_passes=prompts * config.ensemble.size * len(task["train"]),
            validation_passes=(config.search.generations + 1) * len(task["validation"]),
            evaluation_passes=scorer.usage.forward_passes - searched.forward_passes,
            seconds=seconds,
            device_seconds=searched.device_seconds,
        ),
    )
    run.finish(result, scorer.prompt(latent))
    return result


def _local_scorer(config: Config, observer: Observer) -> Scorer:
    from cliptune.local import LocalScorer

    task = load_task(config.task)
    config = config.model_copy(update={"run_dir": choose_run_dir(config)})
    observer.phase(f"Loading {config.model.name}")
    return LocalScorer(config, task)


class _Stopwatch:
    """What one generation takes, read off the scorer's meters."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._before = replace(scorer.usage)
        self._started = time.perf_counter()

    def telemetry(self, number: int) -> Telemetry:
        now = self._scorer.usage
        return Telemetry(
            generation=number,
            seconds=time.perf_counter() - self._started,
            device_seconds=now.device_seconds - self._before.device_seconds,
            forward_passes=now.forward_passes - self._before.forward_passes,
            workers=self._scorer.workers,
            retries=now.retries - self._before.retries,
        )
