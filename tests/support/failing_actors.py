"""Actors that go wrong in known places; what is to happen once, a file beside the run remembers.

Ray's workers import this module by name: tests/support must be on their PYTHONPATH. But for the
first two they score without a model, which is quicker to start and as easy to kill.
"""

import itertools
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from cliptune.config import Config
from cliptune.errors import ModelError, OutOfMemoryError
from cliptune.scorer import Unit
from cliptune.synthetic import SyntheticScorer
from cliptune.task import Task
from cliptune.types import Latents
from cluster.actor import Arrival, ScoringActor

Answer = tuple[list[NDArray[Any]], float]


def die() -> NoReturn:
    """As the kernel's out-of-memory killer does it: at once, with no word."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def beside(config: Config, name: str) -> Path:
    """A file beside the run, which all processes see."""
    assert config.run_dir is not None
    return Path(config.run_dir).with_name(name)


def first(config: Config, name: str = "happened") -> bool:
    """True for one caller only, of all processes, by a file that only one can create."""
    try:
        beside(config, name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class DiesAmidAUnit(ScoringActor):
    """One of them dies in its second unit, while the model computes."""

    def make_scorer(self, config: Config, task: Task, threads: int) -> Any:
        scorer: Any = super().make_scorer(config, task, threads)
        class_scores = scorer.model.class_scores
        calls = itertools.count()

        def deadly(*arguments: Any) -> Any:
            if next(calls) == 4 and first(config):  # two were the canary's
                die()
            return class_scores(*arguments)

        vars(scorer.model)["class_scores"] = deadly
        return scorer


class HoldsTwoRows(ScoringActor):
    """Its memory holds micro-batches of two rows."""

    def make_scorer(self, config: Config, task: Task, threads: int) -> Any:
        import torch  # only here: who needs no model starts sooner without it

        scorer: Any = super().make_scorer(config, task, threads)
        class_scores = scorer.model.class_scores

        def limited(prompts: Any, batch: Any) -> Any:
            if len(batch.ids) * (1 if prompts is None else len(prompts)) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return class_scores(prompts, batch)

        vars(scorer.model)["class_scores"] = limited
        return scorer


class Synthetic(ScoringActor):
    """Needs no model; does nothing wrong."""

    def make_scorer(self, config: Config, task: Task, threads: int) -> Any:
        self._config = config
        return SyntheticScorer(config, task)


class DiesBeforeReplying(Synthetic):
    """One of them dies when all of a call is computed."""

    def run(self, units: Sequence[Unit], latents: Latents | None) -> Answer:
        answer = super().run(units, latents)
        if first(self._config):
            die()
        return answer


class DiesOfAnyUnit(Synthetic):
    """Whatever it is to score kills it."""

    def run(self, units: Sequence[Unit], latents: Latents | None) -> Answer:
        die()


class DiesOfOneUnit(Synthetic):
    """The first unit of the second subnetwork kills whoever computes it."""

    def run(self, units: Sequence[Unit], latents: Latents | None) -> Answer:
        for unit in units:
            if unit.subnetwork.index == 1 and unit.candidates[0] == 0 and 0 in unit.examples:
                die()
        return super().run(units, latents)


class FailsOnce(Synthetic):
    """One of them has an error that is none of ours, as torch's after a fault of the GPU."""

    def run(self, units: Sequence[Unit], latents: Latents | None) -> Answer:
        if first(self._config):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return super().run(units, latents)


class HangsOnce(Synthetic):
    """One of them never answers, once a file says so: its process is stopped."""

    def run(self, units: Sequence[Unit], latents: Latents | None) -> Answer:
        if beside(self._config, "hang").exists() and first(self._config):
            beside(self._config, "hanging").write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().run(units, latents)


class Dawdles(Synthetic):
    """One of them takes until a file says so, once the others have shown their pace."""

    def run(self, units: Sequence[Unit], latents: Latents | None) -> Answer:
        if beside(self._config, "dawdle").exists() and first(self._config):
            while not beside(self._config, "go on").exists():
                time.sleep(0.01)
        return super().run(units, latents)


class Wrong(Synthetic):
    """Gives other results than it should; `wrong` says which, and `always` how often."""

    always = False

    def wrong(self, result: NDArray[Any]) -> Any:
        return result

    def run(self, units: Sequence[Unit], latents: Latents | None) -> Answer:
        results, seconds = super().run(units, latents)
        if self.always or first(self._config):
            results[0] = self.wrong(results[0])
        return results, seconds


class GivesNanOnce(Wrong):
    def wrong(self, result: NDArray[Any]) -> Any:
        return np.full_like(result, np.nan)


class GivesInfinityOnce(Wrong):
    def wrong(self, result: NDArray[Any]) -> Any:
        return np.full_like(result, np.inf)


class GivesAnotherShapeOnce(Wrong):
    def wrong(self, result: NDArray[Any]) -> Any:
        return result[:1, :1]


class AnswersNothingOnce(Wrong):
    def wrong(self, result: NDArray[Any]) -> Any:
        return None


class AlwaysGivesNan(GivesNanOnce):
    always = True


class AlwaysGivesAnotherShape(GivesAnotherShapeOnce):
    always = True


class DiesLoadingOnce(Synthetic):
    """One of them dies before the model is loaded."""

    def load(self, config: Config, task: Task, threads: int) -> Arrival:
        if first(config):
            die()
        return super().load(config, task, threads)


class FailsLoadingOnce(Synthetic):
    """One of them cannot read the model, as where a network file system stutters."""

    def load(self, config: Config, task: Task, threads: int) -> Arrival:
        if first(config):
            raise OSError("Input/output error")
        return super().load(config, task, threads)


class DiesLoading(Synthetic):
    """None of them ever gets the model loaded."""

    def load(self, config: Config, task: Task, threads: int) -> Arrival:
        die()


class LoadsForTheFirst(Synthetic):
    """Later ones do not find the model, as on machines without the folder."""

    def load(self, config: Config, task: Task, threads: int) -> Arrival:
        if not first(config):
            raise ModelError("model.name: nothing there.")
        return super().load(config, task, threads)


class NeverLoads(Synthetic):
    """Hangs in loading, as on a network file system that is gone."""

    def load(self, config: Config, task: Task, threads: int) -> Arrival:
        threading.Event().wait()
        raise AssertionError("unreachable")


class RoundsOtherwise(Synthetic):
    """All but the first have another canary, as on another kind of processor."""

    def load(self, config: Config, task: Task, threads: int) -> Arrival:
        arrival = super().load(config, task, threads)
        return arrival if first(config) else Arrival(arrival.lengths, "another")


class TellsItsPid(Synthetic):
    """Leaves its process id beside the run."""

    def make_scorer(self, config: Config, task: Task, threads: int) -> Any:
        beside(config, f"actor-{os.getpid()}").touch()
        return super().make_scorer(config, task, threads)


class NeverComesBack(TellsItsPid):
    """The first one dies of its second call; the one in its place hangs in loading."""

    def make_scorer(self, config: Config, task: Task, threads: int) -> Any:
        scorer = super().make_scorer(config, task, threads)
        if beside(config, "happened").exists():
            beside(config, "loading").touch()
            threading.Event().wait()
        return scorer

    def run(self, units: Sequence[Unit], latents: Latents | None) -> Answer:
        if latents is not None and first(self._config):
            die()
        return super().run(units, latents)


class RunsShortLater(ScoringActor):
    """Its memory holds micro-batches of two rows from the second generation's rewards on; leaves
    its process id beside the run."""

    def make_scorer(self, config: Config, task: Task, threads: int) -> Any:
        beside(config, f"actor-{os.getpid()}").touch()
        scorer: Any = super().make_scorer(config, task, threads)
        run = scorer.run

        def limited(units: Sequence[Unit], latents: Latents | None) -> Any:
            for unit in units:
                if unit.rows > 2 and (unit.subnetwork.generation or 0) > 0:
                    raise OutOfMemoryError(f"A micro-batch of {unit.rows} rows does not fit.")
            return run(units, latents)

        vars(scorer)["run"] = limited
        return scorer
