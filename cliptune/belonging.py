"""Whether a model and a prompt are those of a run."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from cliptune.account import Record, outcome
from cliptune.errors import ModelError, RunError
from cliptune.functions import readout
from cliptune.journal import Generation
from cliptune.record import BIASES, PROMPT
from cliptune.scorer import Scorer
from cliptune.storage import open_folder
from cliptune.types import Biases

READOUT_CODE = "readout_code"  # of a run's identity
TOLERANCE = 1e-4  # of the prompt's largest value, between machines that round otherwise


def check_model(record: Record, scorer: Scorer, remedy: str | None = None) -> None:
    """Refuse another model than the one that the prompt was searched for."""
    if remedy is None:
        own = scorer.config.scorer.url is None
        remedy = "model.name=PATH" if own else "scorer.url=URL of its provider"
    found, expected = scorer.facts(), record.facts
    if expected.config_sha256 and found.config_sha256 != expected.config_sha256:
        raise ModelError(
            f"model.name: {found.name} has another config.json than the model of {record.path}, so "
            f"it is another network. Say where the run's model is: {remedy}."
        )
    before = record.identity.get(READOUT_CODE)
    if before is not None and before != readout.source_digest(scorer.config.model.readout):
        raise ModelError(
            f"model.readout: {scorer.config.model.readout} is written otherwise than it was for "
            f"{record.path}, so its scores would be others. Use the read-out of the search."
        )
    check_weights(record, found.name, remedy, found.sha256)


def check_known(record: Record, model: str | Path | None, remedy: str) -> None:
    """Refuse to guess where the model of a run lies that was searched through an API: its
    model.name was not used. `model` is what its user says."""
    config = record.config
    if model is None and config.scorer.url is not None and not Path(config.model.name).is_dir():
        raise ModelError(
            f"{record.path} was searched with a model behind an API, {record.facts.name} with "
            f"SHA-256 {record.facts.sha256[:12]}..., and what is done now needs it here. Say where "
            f"it lies: {remedy}."
        )


def check_weights(record: Record, name: str, remedy: str, found: str) -> None:
    """Refuse a model `name` whose weights have another SHA-256 than those of the run."""
    expected = record.facts.sha256
    if found != expected:
        raise ModelError(
            f"model.name: {name} has other weights than the model of {record.path}: expected "
            f"SHA-256 {expected[:12]}..., found {found[:12]}.... Say where those of the run are: "
            f"{remedy}."
        )


def check_same_model(first: Record, other: Record, model: str) -> None:
    """Refuse runs that one copy of a model cannot serve; `model` is where it lies now."""
    same = other.facts.sha256 == first.facts.sha256
    if not same or other.facts.config_sha256 != first.facts.config_sha256:
        raise ModelError(
            f"{other.path} is a run of another model ({other.facts.name}, SHA-256 "
            f"{other.facts.sha256[:12]}...) than {first.path} ({first.facts.name}, SHA-256 "
            f"{first.facts.sha256[:12]}...): they cannot share one. Load each by itself."
        )
    for name in ("readout", "dtype", "quantize"):
        one, two = (getattr(record.config.model, name) for record in (first, other))
        if one != two and not (name == "readout" and _same_readout(first, other, model)):
            raise ModelError(
                f"model.{name} is {two} in {other.path} and {one} in {first.path}: they cannot "
                "share one model. Load each by itself."
            )


def _same_readout(first: Record, other: Record, model: str) -> bool:
    """Whether two ways to write it come to the same, as auto does to what it stands for."""
    from cliptune.models.load import family_of  # imports torch

    one, two = (
        family_of(record.config.model.model_copy(update={"name": model}))
        for record in (first, other)
    )
    return one is two


def check_prompt(record: Record, best: Generation, scorer: Scorer) -> None:
    """Refuse a finished run whose prompt file is not what its journal leads to."""
    folder = open_folder(record.path)
    if not outcome(record).finished or not folder.exists(PROMPT):
        return
    written = _written(record, "prompt")
    rebuilt = scorer.prompt(best.validated)
    limit = TOLERANCE * float(np.abs(rebuilt).max())
    if written.shape != rebuilt.shape or not np.allclose(written, rebuilt, rtol=0, atol=limit):
        raise RunError(
            f"{record.path}/{PROMPT} is not the prompt that the run's journal leads to ("
            f"{best.name}); it was changed, or is another run's."
        )


def biases_of(record: Record, best: Generation) -> Biases | None:
    """The class biases of a run's prompt, `(1 + N, classes)`, first those of the full network; of a
    run that has not ended these alone, `(1, classes)`. None where nothing is calibrated."""
    if best.biases is None:
        return None
    if not outcome(record).finished:
        return best.biases[None]
    written = _written(record, BIASES)
    networks = 1 + (0 if record.config.ensemble.mode == "none" else record.config.ensemble.size)
    full = best.biases
    if written.shape != (networks, len(full)) or not np.allclose(written[0], full, atol=TOLERANCE):
        raise RunError(
            f"{record.path}/{PROMPT} has other class biases than the run's journal ({best.name}); "
            "it was changed, or is another run's."
        )
    return written


def _written(record: Record, tensor: str) -> NDArray[Any]:
    """A tensor of a run's prompt file."""
    try:
        return np.asarray(load(open_folder(record.path).read(PROMPT))[tensor])
    except (SafetensorError, KeyError) as error:
        raise RunError(f"{record.path}/{PROMPT} is damaged: {error}.") from None
