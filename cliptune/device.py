"""What `auto` means here: device, precision and micro-batch, decided once and written down."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from cliptune.config import Config

C = TypeVar("C", bound="Config")

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "could not create a memory object",
    "bad_alloc",
    "ALLOC_FAILED",
)
MICRO_BATCH_TOKENS = {"cpu": 2_048, "cuda": 4_096}  # cpu: what its cache holds; cuda: enough units
TEXT_TOKENS = 30  # of an example, about
CPU_INFO = Path("/proc/cpuinfo")
BFLOAT16_UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16"}  # by the processor's flag


def resolve(config: C, *, cuda: bool) -> C:
    """The config with no `auto` left in `model`; `cuda` says whether the scorers have GPUs."""
    model = config.model
    chosen: dict[str, Any] = {}
    device = ("cuda" if cuda else "cpu") if model.device == "auto" else model.device
    chosen["device"] = device
    if model.dtype == "auto":
        fast = device == "cuda" or bfloat16_unit() is not None
        chosen["dtype"] = "bfloat16" if fast else "float32"
    if model.micro_batch == "auto":
        tokens = config.prompt.length + TEXT_TOKENS
        chosen["micro_batch"] = MICRO_BATCH_TOKENS[device] // tokens or 1
    return config.model_copy(update={"model": model.model_copy(update=chosen)})


def processor_name() -> str:
    """As Linux tells it, else as Python does; empty where neither does."""
    with contextlib.suppress(OSError):
        for line in CPU_INFO.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def keep_freed_memory() -> None:
    """Have the C library keep what is freed, for the next micro-batch.

    Otherwise each large array is given back to the system, which clears its pages anew every time.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        if mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25):  # the older limit
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch says so: it has an error of its own for GPUs only."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(words in str(error) for words in OUT_OF_MEMORY)


def bfloat16_unit() -> str | None:
    """What multiplies bfloat16 in this processor; none where it is converted to float32."""
    try:
        flags = CPU_INFO.read_text(encoding="ascii", errors="ignore").split()
    except OSError:
        return None
    return next((unit for flag, unit in BFLOAT16_UNITS.items() if flag in flags), None)
