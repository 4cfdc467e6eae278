"""What decides a search's results, so that it is only gone on with as the same search.

Equal identities give equal journals: the settings but for limits, machines and places, and the
content of examples, model and prompt file by their hashes.
"""

import hashlib
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from cliptune.config import Config
from cliptune.device import processor_name
from cliptune.errors import ConfigError, RunError
from cliptune.functions import FUNCTIONS, codes
from cliptune.hashing import digest
from cliptune.older import CAME, WENT
from cliptune.scorer import ModelFacts
from cliptune.task import Split, Task
from cliptune.wording import flat

CODES = {f"{setting}_code": f"{section}.{setting}" for section, setting in FUNCTIONS}
RECORDED_LATER = ("model_config", "inputs", *CODES)  # the first runs lack them


def identity(config: Config, task: Task, facts: ModelFacts) -> dict[str, Any]:
    """What decides the results: equal identities, equal journals."""
    return {
        **known_early(config, task),
        "config": config.identity(),
        "model": facts.sha256,
        "model_config": facts.config_sha256,
        "inputs": facts.inputs_sha256,
    }


def known_early(config: Config, task: Task) -> dict[str, Any]:
    """As much of it as is known before the model is loaded, which settles what is on auto."""
    return {
        "config": _settled(config),
        "data": {name: examples_digest(split) for name, split in task.splits.items()},
        "prompt_file": _file_digest(config.prompt.file),
        **{"selection_code": None, **codes(config)},
    }


def _settled(config: Config) -> dict[str, Any]:
    """What decides the results of the settings, but for those that are still on auto."""
    settings = config.identity()
    settings["model"] = {key: v for key, v in settings["model"].items() if v != "auto"}
    return settings


def examples_digest(split: Split) -> str:
    """SHA-256 of a split's examples in their order."""
    return digest([split.texts, split.pairs, split.labels.tolist()])


def _file_digest(file: Path | None) -> str | None:
    try:
        return None if file is None else hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"prompt.file: {file} cannot be read: {error.strerror}.") from error


def refuse_another(path: str, before: Any, now: dict[str, Any]) -> None:
    """Name what differs between the search of the run and the one that would go on with it."""
    old, new = flat(before if isinstance(before, dict) else {}), flat(now)
    if not old:
        raise RunError(f"{path}/origin.json is damaged: it does not say what is searched.")
    other = [
        _difference(key, old.get(key), value)
        for key, value in new.items()
        if value != old.get(key) and (key in old or not _was_so_before(key, value))
    ]
    gone = [(f"config.{setting}", nothing) for setting, nothing in WENT.items()]
    other += [
        f"{key.removeprefix('config.')} is not known any more, the run's is {old[key]!r}"
        for key, nothing in gone
        if old.get(key, nothing) != nothing
    ]
    if other:
        raise RunError(
            f"{path} cannot be resumed with another search: {'; '.join(other)}. What decides the "
            "results must stay as it is; start a new run instead."
        )


def refuse_other_settings(path: str, *, before: Config, now: Config) -> None:
    """As `refuse_another`, by the settings alone: those of the run and those given now."""
    refuse_another(path, {"config": before.identity()}, {"config": _settled(now)})


def _was_so_before(key: str, value: Any) -> bool:
    """Whether a run that lacks it can be gone on with: a new setting's default changes nothing,
    unless it was otherwise before."""
    if key in RECORDED_LATER:
        return True
    if (setting := key.removeprefix("config.")) in CAME:
        return bool(CAME[setting] == value)
    fields: Any = {"config": FieldInfo(annotation=Config)}
    field = None
    for part in key.split("."):
        field = fields.get(part)
        fields = getattr(field and field.annotation, "model_fields", {})
    return field is not None and to_jsonable_python(field.default) == value


def _difference(key: str, old: Any, new: Any) -> str:
    if key.startswith("data."):
        return f"task.data has other {key.removeprefix('data.')} examples than the run"
    if key == "model":
        return "model.name has other weights than the run's model (by SHA-256)"
    if key == "model_config":
        return "model.name has the run's weights, but another config.json"
    if key == "inputs":
        return "model.name has another tokenizer than the run's model: the inputs have other tokens"
    if key in CODES:
        return f"{CODES[key]} is written otherwise than it was for the run"
    if key == "prompt_file":
        return "prompt.file has another content than the run's"
    return f"{key.removeprefix('config.')} is {new!r}, the run's is {old!r}"


def fingerprint() -> dict[str, str]:
    """What decides how the driver's linear algebra rounds."""
    from threadpoolctl import threadpool_info

    blas = sorted(
        f"{pool['prefix']} {pool.get('version')} {pool.get('architecture')}"
        for pool in threadpool_info()
        if pool.get("user_api") == "blas" and "numpy" in pool.get("filepath", "")
    )
    return {
        "machine": platform.machine(),
        "processor": processor_name(),
        "blas": ", ".join(blas),
        **{name: version(name) for name in ("numpy", "cma")},
    }
