"""The figures of a search as Ray's metrics: Prometheus and Grafana read them from every node.

Ray puts `ray_` before each name; the tag `run` tells searches apart. docs/grafana.json is a
dashboard for them.
"""

from ray.util.metrics import Counter, Gauge

from cliptune.config import Config
from cliptune.observer import Observer, Progress

RUN = "run"
GAUGES = {
    "cliptune_generation": "Generations searched",
    "cliptune_fitness_best": "Fitness of the generation's best candidate",
    "cliptune_fitness_mean": "Mean fitness of the generation's candidates",
    "cliptune_spread": "Standard deviation of a candidate's rewards over the subnetworks, mean",
    "cliptune_step_size": "Step size of the strategy",
    "cliptune_validation_accuracy": "Accuracy on validation of the prompt chosen so far",
    "cliptune_prompts_per_second": "Prompts scored a second, in the generation",
    "cliptune_actors": "Actors that can be given work",
}
RETRIES = "cliptune_units_retried"


class Metrics(Observer):
    """Keeps a search's figures in Ray; made before Ray is connected, used after."""

    def __init__(self, run_dir: str) -> None:
        self._tags = {RUN: run_dir}
        self._gauges: dict[str, Gauge] = {}
        self._retries: Counter | None = None

    def begun(self, config: Config, run_dir: str, generations: int) -> None:
        self._set(cliptune_generation=generations)

    def workers(self, count: int) -> None:
        self._set(cliptune_actors=count)

    def generation(self, progress: Progress) -> None:
        generation = progress.generation
        self._set(
            cliptune_generation=generation.number + 1,
            cliptune_fitness_best=float(generation.fitness.max()),
            cliptune_fitness_mean=float(generation.fitness.mean()),
            cliptune_spread=generation.spread,
            cliptune_step_size=generation.step_size,
            cliptune_validation_accuracy=progress.best.validation.accuracy,
            cliptune_prompts_per_second=progress.speed,
        )
        if self._retries is None:
            self._retries = Counter(RETRIES, "Units given to an actor again", tag_keys=(RUN,))
        if progress.telemetry.retries:
            self._retries.inc(progress.telemetry.retries, self._tags)

    def _set(self, **values: float) -> None:
        for name, value in values.items():
            gauge = self._gauges.get(name)
            if gauge is None:
                gauge = self._gauges[name] = Gauge(name, GAUGES[name], tag_keys=(RUN,))
            gauge.set(value, self._tags)
