"""Curves made of characters."""

from collections.abc import Sequence

import numpy as np

BLOCKS = " ▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve one line high, a character a value; neighbours share one where it is narrow."""
    levels = np.round(_scaled(_fitted(values, width)) * 7).astype(int) + 1
    return "".join(BLOCKS[level] for level in levels)


def plot(values: Sequence[float], width: int, height: int) -> list[str]:
    """A curve of `height` lines, the area under it filled; the lowest value is an eighth of one."""
    spread_out = np.repeat(np.asarray(values), max(1, width // len(values)))
    levels = np.round(_scaled(_fitted(spread_out, width)) * (8 * height - 1)).astype(int) + 1
    rows = [np.clip(levels - 8 * row, 0, 8) for row in reversed(range(height))]
    return ["".join(BLOCKS[eighths] for eighths in row).rstrip() for row in rows]


def _fitted(values: Sequence[float] | np.ndarray, width: int) -> np.ndarray:
    """At most `width` values: the means of neighbours."""
    if len(values) <= width:
        return np.asarray(values, dtype=np.float64)
    return np.array([part.mean() for part in np.array_split(np.asarray(values), max(1, width))])


def _scaled(values: np.ndarray) -> np.ndarray:
    """The lowest value at 0, the highest at 1."""
    span = np.ptp(values) if len(values) else 0.0
    return (values - values.min()) / span if span > 0 else np.zeros(len(values))
