"""Settings that learn from the trials that are done, by Optuna."""

from typing import Any

from cliptune.errors import ConfigError
from jobs.sweepfile import Settings
from jobs.sweepspace import Interval, Options, Space

EXTRA = "pip install 'cliptune[sweep]'"


class Suggestions:
    """Asked for settings and told their scores, higher being better."""

    def __init__(self, space: Space, seed: int, past: int) -> None:
        """`past` settings were suggested before: the same seed would suggest the same again."""
        try:
            import optuna
        except ImportError as error:
            raise ConfigError(f"searcher: optuna needs {error.name}: {EXTRA}") from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        self._distributions = {name: _distribution(one) for name, one in space.items()}
        sampler = optuna.samplers.TPESampler(seed=seed + past, constant_liar=True)
        self._study = optuna.create_study(sampler=sampler, direction="maximize")
        self._failed = optuna.trial.TrialState.FAIL
        self._open: list[tuple[Settings, Any]] = []

    def ask(self) -> Settings:
        trial = self._study.ask(self._distributions)
        settings: Settings = {}
        for name, one in self._space.items():
            value = trial.params[name]
            settings |= {name: value} if isinstance(one, Interval) else one.values[value]
        self._open.append((settings, trial))
        return settings

    def again(self, settings: Settings) -> None:
        """Settings that were suggested in an earlier session."""
        params = {name: _parameter(one, name, settings) for name, one in self._space.items()}
        self._study.enqueue_trial(params)
        self._open.append((settings, self._study.ask(self._distributions)))

    def tell(self, settings: Settings, score: float | None) -> None:
        """What came of settings; nothing where all of their trials failed."""
        at = next(at for at, (mine, _) in enumerate(self._open) if mine == settings)
        _, trial = self._open.pop(at)
        self._study.tell(trial, score, state=self._failed if score is None else None)


def _distribution(one: Options | Interval) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(one, Options):
        return CategoricalDistribution(range(len(one.values)))
    if one.whole:
        return IntDistribution(int(one.low), int(one.high), log=one.log)
    return FloatDistribution(one.low, one.high, log=one.log)


def _parameter(one: Options | Interval, name: str, settings: Settings) -> Any:
    if isinstance(one, Interval):
        return settings[name]
    fits = [all(settings.get(k) == v for k, v in value.items()) for value in one.values]
    return fits.index(True)
