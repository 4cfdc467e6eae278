"""Using what a search found: texts in, labels and probabilities out."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cliptune.account import outcome
from cliptune.belonging import biases_of, check_known, check_model, check_prompt, check_same_model
from cliptune.calibration import calibrated
from cliptune.config import Config, validate
from cliptune.errors import ConfigError, ModelError, RunError, TaskError
from cliptune.evaluation import critics_of
from cliptune.formats import Rows
from cliptune.local import LocalScorer
from cliptune.models.base import FrozenModel
from cliptune.models.load import Loaded, load_plain
from cliptune.record import RunRecord, read_run
from cliptune.rewards import log_probabilities
from cliptune.subnetwork import FULL_NETWORK, SubnetworkSpec
from cliptune.task import text_columns, unlabelled, without_examples
from cliptune.types import Biases, PromptArray
from cliptune.wording import shown

Example = str | Sequence[str] | Mapping[str, Any]  # a text, a pair, or columns by their names
Device = Literal["cpu", "cuda"]

GIVEN = "given"  # the split that is classified
AT_ONCE = 512  # examples held in memory; those of like length among them are computed together
ELSEWHERE = "model=PATH, or --model PATH of the command"


@dataclass(frozen=True)
class Prediction:
    """What an example is taken for."""

    label: str  # the label word
    value: int | str  # the same as the run's label column has it: a number or a text
    probabilities: dict[str, float]  # by label word; they add up to 1
    agreement: float | None = None  # of an ensemble: share of its networks that say the same

    @property
    def probability(self) -> float:
        """Of the label that was chosen."""
        return self.probabilities[self.label]


def load(
    run: str | Path,
    *,
    model: str | Path | None = None,
    device: Device | None = None,
    micro_batch: int | None = None,
) -> Predictor:
    """The prompt of a run, ready to be used in this process.

    `run` is what a search has written, a folder or URI, on any machine. `model` says where the
    run's model lies if that is no longer where it was; `device` and `micro_batch` are the run's
    unless given. Of a run that has not ended, it is the best prompt so far, and a warning says so.
    Raises RunError for what is no run, ModelError for a model that is not the run's.
    """
    predictor = Predictor(read_run(Config, str(run)), model, device, micro_batch)
    if predictor.note:
        warnings.warn(predictor.note, stacklevel=2)
    return predictor


def load_together(
    records: Sequence[RunRecord[Config]],
    model: str | Path | None = None,
    device: Device | None = None,
) -> list[Predictor]:
    """The prompts of several runs in front of one copy of their model's weights.

    The weights are those of the first run's model unless `model` says where they lie. Raises
    ModelError for a run whose model is another one, or is set up in another way.
    """
    first = _here(records[0].config, model, device, None).model
    for record in records[1:]:
        check_same_model(records[0], record, first.name)
    loaded = load_plain(first)
    where: Device = "cuda" if first.device == "cuda" else "cpu"  # for all, whatever their runs had
    return [Predictor(record, first.name, where, loaded=loaded.another()) for record in records]


class Predictor:
    """The prompt of a run in front of its model, with the scores that `cliptune evaluate` gives."""

    def __init__(
        self,
        record: RunRecord[Config],
        model: str | Path | None = None,
        device: Device | None = None,
        micro_batch: int | None = None,
        loaded: Loaded | None = None,
    ) -> None:
        """A model that is `loaded` already is not loaded again; its layers are changed."""
        best = record.best
        if best is None:
            raise RunError(
                f"{record.path} has no prompt yet: not one generation is in its journal."
            )
        self.run_dir = record.path
        self.generation = best.number  # that the prompt comes from
        self.note: str | None = None  # what a user has to know of the run
        if not outcome(record).finished:
            self.note = (
                f"{record.path} has not ended: this is its best prompt so far, of generation "
                f"{best.number + 1}."
            )
        check_known(record, model, ELSEWHERE)
        self._config = _here(record.config, model, device, micro_batch)
        task = self._config.task
        self.label_words = task.label_words
        self.values = record.label_values
        self.columns = text_columns(task)  # of an example: text, and text_pair where there are two
        self._scorer = LocalScorer(self._config, without_examples(task), loaded=loaded)
        check_model(record, self._scorer, ELSEWHERE)
        check_prompt(record, best, self._scorer)
        self._latents = best.validated[None]
        self._biases = biases_of(record, best)

    @property
    def model(self) -> FrozenModel:
        """The frozen model."""
        return self._scorer.model

    @property
    def biases(self) -> Biases | None:
        """What is added to class scores in the full network, `(classes,)`; None for nothing."""
        return None if self._biases is None else self._biases[0]

    @property
    def prompt(self) -> PromptArray:
        """The soft prompt, `(length, width)`, or `(layers, length, width)` of several layers."""
        return self._scorer.prompt(self._latents[0])

    def predict(self, examples: Iterable[Example], *, ensemble: bool = False) -> list[Prediction]:
        """What each example is taken for, in their order; see `stream`."""
        return list(self.stream(examples, ensemble=ensemble))

    def stream(
        self, examples: Iterable[Example], *, ensemble: bool = False, at_once: int = AT_ONCE
    ) -> Iterator[Prediction]:
        """Predictions one by one, `at_once` examples being read ahead and held in memory.

        An example is a text; of a task of pairs, two texts; or a mapping with the columns of the
        task. With `ensemble`, the probabilities are the mean over the run's thinned networks.
        Raises TaskError for an example that is none.
        """
        if isinstance(examples, str | Mapping):
            raise TaskError(
                f"Expected a list of examples; found a single one, {shown(examples)}. Put it in "
                "brackets."
            )
        networks = self.networks(ensemble=ensemble)
        return self._stream(examples, networks, at_once)

    @property
    def has_ensemble(self) -> bool:
        """Whether there are thinned networks that can be asked."""
        return self._config.ensemble.mode != "none" and not self._biases_missing

    @property
    def _biases_missing(self) -> bool:
        return self._biases is not None and len(self._biases) == 1

    def networks(self, *, ensemble: bool) -> tuple[SubnetworkSpec, ...]:
        """Those that are asked: the full network, or the run's thinned ones."""
        if not ensemble:
            return (FULL_NETWORK,)
        if self._config.ensemble.mode == "none":
            raise ConfigError(
                f"{self.run_dir} has no thinned networks to ask: its ensemble.mode is none. Leave "
                "the ensemble out."
            )
        if self._biases_missing:
            raise ConfigError(
                f"{self.run_dir} has not ended, so the class biases of its thinned networks are "
                "not known yet. Leave the ensemble out, or go on with the search first."
            )
        return critics_of(self._config.ensemble, self.generation)

    def answer(self, rows: Rows, networks: Sequence[SubnetworkSpec]) -> list[Prediction]:
        """Predictions for rows of texts, by the networks' mean probabilities."""
        if not rows:
            return []
        each = self.probabilities(rows, networks)
        mean = each.mean(axis=0)
        chosen = mean.argmax(axis=-1)
        agreeing = (each.argmax(axis=-1) == chosen).mean(axis=0)
        alone = len(networks) == 1 and networks[0] == FULL_NETWORK
        return [
            Prediction(
                label=self.label_words[label],
                value=self.values[label],
                probabilities=dict(zip(self.label_words, row.tolist(), strict=True)),
                agreement=None if alone else float(agreement),
            )
            for label, row, agreement in zip(chosen, mean, agreeing, strict=True)
        ]

    def probabilities(self, rows: Rows, networks: Sequence[SubnetworkSpec]) -> NDArray[np.float64]:
        """Of each network, `(networks, examples, classes)`."""
        self._scorer.give(GIVEN, unlabelled(rows, self.columns))
        scores = self._scorer.class_scores(self._latents, GIVEN, networks)[0]
        if not np.isfinite(scores).all():
            raise ModelError(
                "The model's scores are not finite numbers. A wider model.dtype, or another device "
                "than the run's, may help."
            )
        return np.exp(log_probabilities(calibrated(scores, self._biases_of(networks))))

    def _biases_of(self, networks: Sequence[SubnetworkSpec]) -> Biases | None:
        """`(networks, classes)`."""
        if self._biases is None:
            return None
        known = (FULL_NETWORK, *critics_of(self._config.ensemble, self.generation))
        return self._biases[[known.index(network) for network in networks]]

    def _stream(
        self, examples: Iterable[Example], networks: Sequence[SubnetworkSpec], at_once: int
    ) -> Iterator[Prediction]:
        left, number = iter(examples), 1
        while some := list(islice(left, at_once)):
            yield from self.answer(self._rows(some, number), networks)
            number += len(some)

    def _rows(self, examples: Sequence[Example], number: int) -> Rows:
        """Examples as columns; `number` is that of the first."""
        columns: dict[str, list[Any]] = {field: [] for field in self.columns}
        for place, example in enumerate(examples, number):
            for column, text in zip(columns.values(), self._texts(example, place), strict=True):
                column.append(text)
        return Rows("what was given", columns, range(number, number + len(examples)), "example")

    def _texts(self, example: Example, number: int) -> Sequence[Any]:
        if isinstance(example, Mapping):
            texts = [example.get(column) for column in self.columns.values()]
        else:
            texts = list(example) if isinstance(example, list | tuple) else [example]
        if len(texts) != len(self.columns):
            raise TaskError(
                f"Example {number}: expected {' and '.join(self.columns)}, "
                f"{len(self.columns)} of them; found {shown(example)}."
            )
        return texts


def _here(
    config: Config, model: str | Path | None, device: Device | None, micro_batch: int | None
) -> Config:
    """The run's settings with what is given, on a device that this machine has."""
    if device is None and config.model.device == "cuda" and not torch.cuda.is_available():
        device = "cpu"
    given = {"name": model, "device": device, "micro_batch": micro_batch}
    tree = config.model_dump()
    tree["model"] |= {
        name: str(value) if name == "name" else value
        for name, value in given.items()
        if value is not None
    }
    found = validate(Config, tree, as_written=True)
    if found.model.device == "cuda" and not torch.cuda.is_available():
        raise ModelError("device is cuda, but there is no GPU here that torch can use.")
    return found
