"""`cliptune provider`: a frozen model behind an API, for searches elsewhere."""

import threading
from collections.abc import Sequence
from pathlib import Path

from cliptune.config import ModelConfig
from cliptune.errors import ConfigError
from cluster.session import is_starting
from jobs.config import read
from jobs.signals import leaving
from jobs.words import standing_line

try:
    from cluster.provider import Limits as Limits
    from cluster.serving import Stand as Stand
    from cluster.serving import provided, read_token, refuse_open_door, refuse_taken
except ImportError as error:
    raise ConfigError(
        f"cliptune provider needs the extra `serve`, of which {error.name} is missing: "
        "pip install 'cliptune[serve]'"
    ) from None


def main(
    model: str, words: Sequence[str], stand: Stand, limits: Limits, *, token_file: Path | None
) -> None:
    """Serve the model until Ctrl-C."""
    settings = settings_of(model, words)
    token = read_token(token_file)
    refuse_open_door(stand.host, token)
    if stand.own_ray:
        refuse_taken(stand.host, stand.port)
    print(f"Loading {settings.name} ...", flush=True)
    with leaving(is_starting, lambda: print("Stopped.")):
        refuse_missing(settings)
        with provided(settings, limits, token, stand):
            line = standing_line(settings.name, stand.place, guarded=token is not None)
            print(line, flush=True)
            threading.Event().wait()


def settings_of(model: str, words: Sequence[str]) -> ModelConfig:
    """The model's settings; no others can be given."""
    for word in words:
        if not word.startswith("model."):
            raise ConfigError(
                f"A provider has settings of its model alone, such as model.dtype=float32; found "
                f"{word!r:.60}. The others are those of each search."
            )
    settings = read([*words, f"model.name={model}"]).model
    if Path(settings.name).is_dir():
        return settings.model_copy(update={"name": str(Path(settings.name).resolve())})
    return settings


def refuse_missing(settings: ModelConfig) -> None:
    """Refuse a model, or a read-out, that is not there before anything is started."""
    from cliptune.models.load import family_of

    family_of(settings)
