"""The search: ask, score through N thinned subnetworks, mix, tell, write down."""

import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from cliptune import functions, limits
from cliptune.config import Config
from cliptune.errors import RunError, StrategyError
from cliptune.evaluation import calibrate, critics_of, evaluate, validate
from cliptune.journal import Generation, best_of
from cliptune.observer import Observer, Progress
from cliptune.record import Cost, Result, Telemetry
from cliptune.run import RunDirectory, opened
from cliptune.scorer import Bill, Scorer
from cliptune.strategy import Strategy, make_strategy, replay
from cliptune.subnetwork import FULL_NETWORK
from cliptune.task import Task, load_task
from cliptune.trackers import chosen, tracked

REPLAY_TOLERANCE = 1e-9  # between machines that round otherwise


def search(
    config: Config,
    scorer: Scorer | None = None,
    observer: Observer | None = None,
    *,
    resume: bool = False,
) -> Result:
    """Search a prompt, in this process unless given a scorer that works elsewhere.

    What counts is the scorer's config, in which nothing is left on auto. With `resume`, go on with
    the search in `run_dir`, with the candidates that it would have had without the interruption.
    """
    observer = observer or Observer()
    if scorer is not None:
        config = scorer.config
    refuse_missing(config)
    task = load_task(config.task) if scorer is None else scorer.task
    with opened(config, resume=resume) as run, tracked(config, run.path, observer) as observer:
        run.foresee(config, task)
        observer.writing(run.path)
        return advance(scorer or own_scorer(config, task, observer), run, observer)


def refuse_missing(config: Config) -> None:
    """Refuse, before anything is written or loaded, what names a thing that is not there."""
    functions.refuse_missing(config)
    chosen(config)


def advance(scorer: Scorer, run: RunDirectory, observer: Observer) -> Result:
    """Take the search of a run directory from where it stands to its end."""
    config, task = scorer.config, scorer.task
    examples = len(task["train"])
    generations = limits.generations(config, examples)
    past = run.begin(config, task, scorer.facts(), scorer.canary())
    if run.rounds_anew:
        observer.warning(
            "Rewards are rounded otherwise here than where the run began: the search goes on from "
            "its journal, but not bit for bit as it would have there."
        )
    observer.begun(config, run.path, len(past))
    strategy = make_strategy(config, task)
    _relive(past, strategy, run, observer)
    if past and past[-1].micro_batch is not None:
        scorer.micro_batch = past[-1].micro_batch
    rows = scorer.micro_batch
    best = best_of(past) if past else None
    clock = _Clock([one for one in run.telemetry() if one.generation < len(past)])
    billed = run.bill()
    manual = validate(scorer, None)
    number = len(past)
    while not (
        reason := limits.reason_to_stop(config, examples, number, best, clock.seconds, strategy)
    ):
        watch = _Stopwatch(scorer)
        generation = _advance(number, strategy, scorer)
        if scorer.micro_batch < rows:
            rows = scorer.micro_batch
            observer.warning(
                f"Memory ran out: micro-batches have {rows} rows from generation {number + 1} on."
            )
        run.journal.append(generation)
        telemetry = watch.telemetry(number)
        run.record(telemetry)
        run.charge(billed, scorer.usage.bill)
        best = generation if best is None else best_of([best, generation])
        number += 1
        clock.tick(telemetry)
        observer.generation(
            Progress(
                generation=generation,
                generations=generations,
                best=best,
                manual=manual,
                telemetry=telemetry,
                prompts_scored=number * config.search.population,
                seconds=clock.seconds(),
                seconds_left=clock.left(number, generations, config.search.max_seconds),
            )
        )
    if best is None:
        raise StrategyError("The search ended before its first generation.")
    observer.phase("Evaluating the prompt on all splits")
    result = _finish(run, scorer, best, number, clock, billed, reason)
    observer.result(result)
    return result


def _relive(
    past: list[Generation], strategy: Strategy, run: RunDirectory, observer: Observer
) -> None:
    """Bring the strategy to where the journal ends, and see that it would have gone there."""
    if aside := run.journal.set_aside():
        observer.warning(
            f"The journal's last file was damaged, is now {aside}, and is searched again."
        )
    if not past:
        return
    observer.phase(f"Replaying {len(past)} generations")
    furthest = 0.0
    for generation in past:
        off = replay(strategy, generation.latents, generation.fitness)
        furthest = max(furthest, off)
        if off and strategy.exact and not run.moved:
            raise RunError(
                f"{run.path}: generation {generation.number} has other candidates than the same "
                f"search has here (by up to {off:.1e}); the journal was changed."
            )
    if furthest > REPLAY_TOLERANCE:
        observer.warning(
            "This machine or its libraries round otherwise than those that the run began on: the "
            "search goes on from its journal, but not with the very candidates that it would have "
            f"had there (they differ by up to {furthest:.1e})."
        )
    observer.resumed(len(past), best_of(past))


def _advance(number: int, strategy: Strategy, scorer: Scorer) -> Generation:
    """One generation, told whole, and computed with micro-batches of one size."""
    ensemble = scorer.config.ensemble
    step_size, planned = strategy.step_size, int(scorer.config.model.micro_batch)
    mean = strategy.mean if scorer.config.search.candidate == "mean" else None
    latents = strategy.ask()
    rows: int | None = None
    while rows != scorer.micro_batch:
        rewards = scorer.score(latents, number)  # (population, subnetworks)
        rows = scorer.micro_batch
        fitness = functions.mixer.find(ensemble.mixer)(rewards, ensemble.weights)  # (population,)
        best = int(fitness.argmax())
        chosen = latents[best] if mean is None else mean
        biases = calibrate(scorer, chosen)
        validation = validate(scorer, chosen, biases)
    strategy.tell(latents, fitness)
    return Generation(
        number=number,
        latents=latents,
        rewards=rewards,
        fitness=fitness,
        step_size=step_size,
        best=best,
        validation=validation,
        micro_batch=rows if rows != planned else None,
        mean=mean,
        biases=None if biases is None else biases[0],
    )


def _finish(
    run: RunDirectory,
    scorer: Scorer,
    best: Generation,
    number: int,
    clock: "_Clock",
    billed: Bill,
    reason: str,
) -> Result:
    """Evaluate the chosen prompt and write it down."""
    latent = best.validated
    config, task = scorer.config, scorer.task
    seconds, before = clock.seconds(), scorer.usage.forward_passes
    networks = (FULL_NETWORK, *critics_of(config.ensemble, best.number))
    biases = calibrate(scorer, latent, networks)
    if biases is not None:
        biases[0] = best.biases  # those that it was validated with, to the bit
    table = evaluate(scorer, latent, best.number, biases)
    evaluation = scorer.usage.forward_passes - before
    prompt, nearest = scorer.prompt(latent), scorer.nearest(latent)
    result = Result(
        run_dir=run.path,
        generation=best.number,
        candidate=best.best if best.mean is None else None,
        latent=latent,
        validation=best.validation,
        table=table,
        cost=Cost(
            prompts_scored=number * config.search.population,
            search_passes=number * limits.passes_a_generation(config, len(task["train"])),
            validation_passes=limits.validation_passes(config, task, number),
            evaluation_passes=evaluation,
            seconds=seconds,
            device_seconds=clock.device_seconds,
        ),
        stopped=reason,
        bill=run.charge(billed, scorer.usage.bill),
    )
    run.finish(result, prompt, nearest, biases)
    return result


def own_scorer(config: Config, task: Task, observer: Observer) -> Scorer:
    """The model in this process, or the one behind `scorer.url`."""
    if config.scorer.url is not None:
        from cliptune.remote import RemoteScorer

        observer.phase(f"Asking for a model at {config.scorer.url}")
        return RemoteScorer(config, task, observer)
    from cliptune.local import LocalScorer

    observer.phase(f"Loading {config.model.name}")
    return LocalScorer(config, task)


class _Clock:
    """Seconds of a search over all of its sessions."""

    def __init__(self, past: Sequence[Telemetry]) -> None:
        self._before = sum(one.seconds for one in past)
        self.device_seconds = sum(one.device_seconds for one in past)
        self._started = time.perf_counter()
        self._recent = deque((one.seconds for one in past), maxlen=10)

    def seconds(self) -> float:
        return self._before + time.perf_counter() - self._started

    def tick(self, telemetry: Telemetry) -> None:
        self.device_seconds += telemetry.device_seconds
        self._recent.append(telemetry.seconds)

    def left(self, done: int, generations: int | None, seconds: float | None) -> float | None:
        """Seconds until the first of the limits that are known is reached."""
        each = statistics.median(self._recent)
        limits = [] if generations is None else [each * (generations - done)]
        limits += [] if seconds is None else [max(0.0, seconds - self.seconds())]
        return min(limits, default=None)


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
