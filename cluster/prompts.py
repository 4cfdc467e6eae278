"""Prompts by their names in front of one model in this process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import Field

from cliptune.account import outcome
from cliptune.config import Config
from cliptune.errors import ConfigError, TaskError
from cliptune.evaluation import ENSEMBLE, TUNED
from cliptune.formats import Rows
from cliptune.predictor import Device, Prediction, Predictor, load_together
from cliptune.protocol import Message
from cliptune.record import RunRecord, read_run

Texts = tuple[str, ...]  # of an example: one, or two of a task of pairs


class Wish(NamedTuple):
    """What requests must agree in to be computed together."""

    prompt: str
    ensemble: bool


@dataclass(frozen=True)
class Served:
    """What a run is called, and where it is."""

    name: str
    run: str


class PromptInfo(Message):
    """What may be known of a prompt; no path is among it."""

    name: str
    task: str
    label_words: tuple[str, ...]
    columns: tuple[str, ...] = Field(description="of an example: its texts")
    subnetworks: int  # of its ensemble; 0 where there is none
    model: str
    generation: int  # of the search that it comes from
    note: str | None  # of a search that has not ended
    accuracy: dict[str, dict[str, float]] | None  # by row of the run's table and split


class PromptHost:
    """Predictors that share their model's weights; not for several threads at once."""

    def __init__(self, served: Sequence[Served], model: str | None, device: Device | None) -> None:
        records = [read_run(Config, each.run) for each in served]
        predictors = load_together(records, model, device)
        names = [each.name for each in served]
        self._predictors = dict(zip(names, predictors, strict=True))
        self.infos = tuple(map(_info, names, predictors, records))

    def wish(self, prompt: str | None, *, ensemble: bool) -> Wish:
        """A wish that can be granted; the only prompt need not be named."""
        names = list(self._predictors)
        if prompt is None and len(names) > 1:
            raise ConfigError(f"prompt must be one of {_listed(names)}; none was named.")
        wish = Wish(names[0] if prompt is None else prompt, ensemble)
        if wish.prompt not in self._predictors:
            raise ConfigError(f"prompt must be one of {_listed(names)}; found {prompt!r:.60}.")
        if ensemble and not self._info(wish.prompt).subnetworks:
            raise ConfigError(
                f"{wish.prompt} has no thinned networks that can be asked, as it was searched "
                "without, or its search has not ended: ensemble must be false."
            )
        return wish

    def examples(self, wish: Wish, texts: Sequence[str | Texts]) -> list[Texts]:
        """Texts as the prompt's task has them; the first that is not right is named."""
        columns = self._predictors[wish.prompt].columns
        rows = [(text,) if isinstance(text, str) else text for text in texts]
        for number, row in enumerate(rows):
            if len(row) != len(columns):
                expected = "a text" if len(columns) == 1 else f"{' and '.join(columns)}, two texts"
                raise TaskError(f"texts.{number}: expected {expected}; found {len(row)} of them.")
            if not all(text.strip() for text in row):
                raise TaskError(f"texts.{number}: expected a text; found an empty one.")
        return rows

    def answer(self, wish: Wish, examples: Sequence[Texts]) -> list[Prediction]:
        """What each example is taken for."""
        predictor = self._predictors[wish.prompt]
        columns: Mapping[str, list[str]] = {
            field: [texts[place] for texts in examples]
            for place, field in enumerate(predictor.columns)
        }
        rows = Rows("what was sent", columns, range(len(examples)), "text")
        return predictor.answer(rows, predictor.networks(ensemble=wish.ensemble))

    def _info(self, name: str) -> PromptInfo:
        return next(info for info in self.infos if info.name == name)


def _info(name: str, predictor: Predictor, record: RunRecord[Config]) -> PromptInfo:
    config, table = record.config, outcome(record).accuracy or {}
    return PromptInfo(
        name=name,
        task=config.task.name,
        label_words=predictor.label_words,
        columns=tuple(predictor.columns),
        subnetworks=config.ensemble.size if predictor.has_ensemble else 0,
        model=record.facts.name.rstrip("/").rpartition("/")[2],
        generation=predictor.generation,
        note="its search has not ended: the best prompt so far" if predictor.note else None,
        accuracy={row: table[row] for row in (TUNED, ENSEMBLE) if row in table} or None,
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
