"""What this machine's processor is called."""

import contextlib
import platform
from pathlib import Path


def processor_name() -> str:
    """As Linux tells it, else as Python does; empty where neither does."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
