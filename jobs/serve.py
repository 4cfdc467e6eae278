"""`cliptune serve`: the prompts of runs behind one model, for programs and people."""

import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from cliptune.belonging import check_known, check_same_model, check_weights
from cliptune.config import Config
from cliptune.errors import ConfigError, RunError
from cliptune.models.load import family_of
from cliptune.record import is_run, read_run
from cliptune.weights import weights_digest
from cluster.session import is_starting
from jobs.signals import leaving
from jobs.words import standing_line

try:
    from cluster.classify import Limits
    from cluster.prompts import Served
    from cluster.serving import Stand, read_token, refuse_open_door, refuse_taken, served
except ImportError as error:
    raise ConfigError(
        f"cliptune serve needs the extra `serve`, of which {error.name} is missing: "
        "pip install 'cliptune[serve]'"
    ) from None

NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)


def main(
    runs: Sequence[str],
    *,
    model: str | None,
    device: Any,
    token_file: Path | None,
    megabytes: int,
    **options: Any,
) -> None:
    """Serve the prompts until Ctrl-C."""
    if device not in (None, "cpu", "cuda"):
        raise ConfigError(f"--device must be cpu or cuda; found {device}.")
    limits = Limits(
        bytes=megabytes * 2**20,
        **{name: options.pop(name) for name in ("texts", "characters", "queue", "seconds")},
    )
    stand = Stand(**options)
    prompts = named(runs)
    token = read_token(token_file)
    refuse_open_door(stand.host, token)
    if stand.own_ray:
        refuse_taken(stand.host, stand.port)
    if model is not None and Path(model).is_dir():
        model = str(Path(model).resolve())
    refuse_odd(prompts, model)
    print("Loading the model ...", flush=True)
    with (
        leaving(is_starting, lambda: print("Stopped.")),
        served(prompts, limits, token, stand, model, device or own_device(prompts[0])),
    ):
        names = ", ".join(prompt.name for prompt in prompts)
        print(standing_line(names, stand.place, guarded=token is not None), flush=True)
        threading.Event().wait()


def named(runs: Sequence[str]) -> list[Served]:
    """Each run with a name of its own: the one given, or its folder's."""
    found: dict[str, Served] = {}
    for word in runs:
        name, _, place = word.rpartition("=")
        if not name or is_run(word):
            name, place = "", word
        if Path(place).is_dir():
            place = str(Path(place).resolve())
        name = name or place.rstrip("/").rpartition("/")[2]
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"A prompt's name must be letters, digits, '.', '_' or '-', at most 64; found "
                f"{name!r:.80}. Give another one: NAME={place}"
            )
        if name in found:
            raise ConfigError(
                f"Two prompts are called {name}: {found[name].run} and {place}. Give one another "
                f"name: NAME={place}"
            )
        found[name] = Served(name, place)
    return list(found.values())


def own_device(first: Served) -> Literal["cpu"] | None:
    """The CPU where the first prompt was searched on one: no GPU is reserved for it then."""
    config = read_run(Config, first.run).config
    return "cpu" if config.model.device == "cpu" else None


def refuse_odd(prompts: Sequence[Served], model: str | None) -> None:
    """Refuse what cannot be served together before anything is started."""
    records = [read_run(Config, prompt.run) for prompt in prompts]
    check_known(records[0], model, "--model PATH")
    name = model or records[0].config.model.name
    for record in records:  # what is no model, or no read-out, is refused
        family_of(record.config.model.model_copy(update={"name": name}))
        check_same_model(records[0], record, name)
        if record.best is None:
            raise RunError(
                f"{record.path} has no prompt yet: not one generation is in its journal."
            )
    check_weights(records[0], name, "--model PATH", weights_digest(name))
