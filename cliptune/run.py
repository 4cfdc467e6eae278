"""The run directory: what a search is, its journal, telemetry, and at the end result and prompt.

config.yaml         as resolved; running it again repeats the search
origin.json         what decides the results, with hashes of data and model, and where it ran: the
                    platforms of its drivers, the canaries of its scorers
journal/            the search, deterministic (see journal.py)
telemetry/          what differs from run to run: seconds, actors, retries
bill.json           of a model behind an API: what it was asked for until now
result.json         the chosen prompt, the table, the cost
prompt.safetensors  `prompt`, (length, width) float32; where class scores are calibrated `biases`,
                    (1 + N, classes) float64, of the full network and the thinned ones
prompt.json         what the prompt belongs to
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from safetensors.numpy import save

from cliptune import limits
from cliptune.config import Config
from cliptune.errors import CliptuneError, RunError
from cliptune.hashing import digest
from cliptune.identity import fingerprint, identity, known_early, refuse_another
from cliptune.journal import Generation, Journal, sealed
from cliptune.lease import LEASE
from cliptune.record import (
    BIASES,
    BILL,
    CARD,
    CONFIG,
    CONFUSION,
    NEAREST,
    ORIGIN,
    PROMPT,
    RESULT,
    TELEMETRY,
    Result,
    Telemetry,
    check_resumable,
    read_json,
    read_telemetry,
)
from cliptune.scorer import Bill, ModelFacts
from cliptune.settings import safe_dump
from cliptune.storage import UNFINISHED, Folder, open_folder
from cliptune.task import Task
from cliptune.types import Biases, Neighbours, PromptArray

T = TypeVar("T")


class RunDirectory:
    """The record of one search, held by the process that writes it; see `opened`."""

    journal: Journal

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self.begun = folder.exists(ORIGIN)
        self.moved = False  # whether another machine or other libraries wrote some of it
        self.rounds_anew = False  # whether a scorer goes on with it that rounds as none before

    @property
    def path(self) -> str:
        return self._folder.place

    def foresee(self, config: Config, task: Task) -> None:
        """Refuse what `begin` would, as far as it can be told before the model is loaded."""
        limits.generations(config, len(task["train"]))  # refuses limits below one generation
        now = known_early(config, task)
        if self.begun:
            before = self._origin(now)
            self.journal = Journal(self._folder, origin=digest(before["identity"]))
            self._past(config, task)

    def begin(self, config: Config, task: Task, facts: ModelFacts, canary: str) -> list[Generation]:
        """Write down what is searched, or check that it is the same; returns what was journalled.

        `config` is resolved: nothing in it is left on auto.
        """
        self._config = config = config.model_copy(update={"run_dir": self.path})
        self._facts = facts
        self.identity = identity(config, task, facts)
        here, places, canaries = fingerprint(), [], []
        if self.begun:
            before = self._origin(self.identity)
            self.identity = before["identity"]  # without settings that were not known by then
            places = before.get("platforms", [])
            canaries = before.get("canaries", [])  # the first runs lack them
        self.moved = any(place != here for place in places)
        self.rounds_anew = bool(canaries) and canary not in canaries
        self.journal = Journal(self._folder, origin=digest(self.identity))
        past = self._past(config, task)
        self._folder.write(CONFIG, _yaml(config))
        if here not in places or canary not in canaries:
            origin = {
                "schema_version": config.schema_version,
                "identity": self.identity,
                "facts": asdict(facts),
                "labels": list(task["train"].values),
                "platforms": _with(places, here),
                "canaries": _with(canaries, canary),
            }
            self._folder.write(ORIGIN, _json(origin))
        self.begun = True
        return past

    def _origin(self, now: dict[str, Any]) -> dict[str, Any]:
        """What the run began as, if it is the search of now."""
        before = read_json(self._folder, ORIGIN)
        refuse_another(self.path, before.get("identity"), now)
        return before

    def _past(self, config: Config, task: Task) -> list[Generation]:
        past = self.journal.read()
        _refuse_smaller(config, task, past)
        return past

    def telemetry(self) -> list[Telemetry]:
        """What the generations until now took; those that are not known are left out."""
        return read_telemetry(self._folder)

    def record(self, telemetry: Telemetry) -> None:
        """Write what a generation took."""
        table = pa.Table.from_pylist([asdict(telemetry)])
        self._folder.write(f"{TELEMETRY}/{telemetry.generation:06d}.arrow", sealed(table, {}))

    def bill(self) -> Bill:
        """What earlier sessions asked of a model behind an API."""
        if not self._folder.exists(BILL):
            return Bill()
        try:
            return Bill(**read_json(self._folder, BILL))
        except TypeError as error:
            raise RunError(f"{self.path}/{BILL} is damaged: {error}.") from None

    def charge(self, before: Bill, now: Bill | None) -> Bill | None:
        """Write what was asked for until now, by this session too; nothing where there is no API.

        `before` is that of the earlier sessions.
        """
        if now is None and before == Bill():
            return None
        total = before if now is None else before.plus(now)
        self._folder.write(BILL, _json(asdict(total)))
        return total

    def finish(
        self,
        result: Result,
        prompt: PromptArray,
        nearest: Neighbours,
        biases: Biases | None = None,
    ) -> None:
        """Write the prompt with its class biases `(1 + N, classes)`, what it belongs to and is near
        to, and the result, which comes last."""
        calibrated = {} if biases is None else {BIASES: biases}
        self._folder.write(PROMPT, save({"prompt": prompt, **calibrated}))
        config = self._config
        card = {
            "schema_version": config.schema_version,
            "shape": list(prompt.shape),
            "position": config.prompt.position,
            "model": asdict(self._facts),
            "task": config.task.name,
            "template": config.task.template,
            "label_words": list(config.task.label_words),
            **({} if config.task.verbalizer is None else {"verbalizer": config.task.verbalizer}),
            "seeds": {
                "search": config.search.seed,
                "prompt": config.prompt.seed,
                "ensemble": config.ensemble.seed,
                "task": config.task.seed,
            },
            "scores": {"validation": asdict(result.validation), "accuracy": _table(result)},
            NEAREST: [
                [{"token": token, "cosine": cosine} for token, cosine in row] for row in nearest
            ],
        }
        self._folder.write(CARD, _json(card))
        self._folder.write(RESULT, _json(result_json(result)))


@contextmanager
def opened(config: Config, *, resume: bool = False) -> Iterator[RunDirectory]:
    """The directory of a new run, or of one to go on with, held against other searches.

    A new one is made at `run_dir`, by default under runs/; it goes again if the search fails before
    it began, with a model that cannot be loaded for instance.
    """
    if resume and config.run_dir is None:
        raise RunError("run_dir is needed to resume a search: the folder that it was written to.")
    made = config.run_dir is None
    folder = open_folder(config.run_dir or _new_folder(config))
    if resume:
        check_resumable(folder)
    else:
        made = folder.make() or made
    with _kept_or_removed(folder, made), folder.locked():
        names = [name for name in folder.names() if not name.endswith((LEASE, UNFINISHED))]
        if names and not resume:
            raise RunError(
                f"run_dir {folder.place} is not empty. Choose a new one, or go on with the search "
                f"in it: cliptune search --resume {folder.place}"
            )
        run = RunDirectory(folder)
        if not resume:
            folder.write(CONFIG, _yaml(config.model_copy(update={"run_dir": folder.place})))
        try:
            yield run
        except CliptuneError:
            if not run.begun and not resume:
                folder.delete(CONFIG)
            raise


def result_json(result: Result) -> dict[str, Any]:
    """A result as JSON values."""
    return {
        "run_dir": result.run_dir,
        "stopped": result.stopped,
        "selected": {
            "generation": result.generation,
            "candidate": result.candidate,
            "validation_accuracy": result.validation.accuracy,
            "validation_macro_f1": result.validation.macro_f1,
            "validation_loss": result.validation.loss,
            "validation_score": result.validation.score,
            "latent": result.latent.tolist(),
        },
        "accuracy": _table(result),
        CONFUSION: {row.name: row.confusion for row in result.table if row.confusion},
        "cost": asdict(result.cost),
        **({} if result.bill is None else {"bill": asdict(result.bill)}),
    }


@contextmanager
def _kept_or_removed(folder: Folder, made: bool) -> Iterator[None]:
    try:
        yield
    except CliptuneError:
        if made:
            folder.remove()
        raise


def _new_folder(config: Config) -> str:
    """A folder under runs/ that was not there before."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    first = path = Path("runs") / f"{config.task.name}-{stamp}"
    number = 1
    try:
        first.parent.mkdir(exist_ok=True)
        while True:
            try:
                path.mkdir()
            except FileExistsError:
                number += 1
                path = first.with_name(f"{first.name}-{number}")
            else:
                return str(path)
    except OSError as error:
        raise RunError(f"run_dir {path} cannot be made: {error.strerror}.") from error


def _refuse_smaller(config: Config, task: Task, past: list[Generation]) -> None:
    if smaller := limits.would_have_stopped(config, len(task["train"]), past):
        done, reason = smaller
        raise RunError(
            f"With these limits, search.budget and the like, the search would have ended after "
            f"{done} generations ({reason}), but the run has {len(past)} already. Give at least as "
            "much as it had."
        )


def _with(known: list[T], one: T) -> list[T]:
    return known if one in known else [*known, one]


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _yaml(config: Config) -> bytes:
    tree = config.model_dump(mode="json")
    return safe_dump(tree).encode()


def _table(result: Result) -> dict[str, dict[str, float]]:
    return {row.name: row.accuracy for row in result.table}
