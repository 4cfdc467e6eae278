"""What `auto` means here: device, precision and micro-batch, decided once and written down."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from cliptune.config import Config

C = TypeVar("C", bound="Config")

MICRO_BATCH = {"cpu": 64, "cuda": 256}


def resolve(config: C, *, cuda: bool) -> C:
    """The config with no `auto` left in `model`; `cuda` says whether the scorers have GPUs."""
    model = config.model
    chosen: dict[str, Any] = {}
    device = ("cuda" if cuda else "cpu") if model.device == "auto" else model.device
    chosen["device"] = device
    if model.dtype == "auto":
        fast = device == "cuda" or cpu_multiplies_bfloat16()
        chosen["dtype"] = "bfloat16" if fast else "float32"
    if model.micro_batch == "auto":
        chosen["micro_batch"] = MICRO_BATCH[device]
    return config.model_copy(update={"model": model.model_copy(update=chosen)})


def cpu_multiplies_bfloat16() -> bool:
    """Whether this processor has matrix units for bfloat16 (Intel AMX)."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return False
