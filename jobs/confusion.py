"""A confusion matrix in as few columns as a terminal has."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

SHORTEST_NAME = 14
MOST_FREQUENT = 10


def confusion_view(
    counts: NDArray[np.int64], classes: Sequence[str], title: str, width: int
) -> RenderableType:
    """Counts `(right class, predicted class)`; shares of a row where counts are too wide.

    Where even these do not fit, the most frequent confusions.
    """
    for cells, what in ((counts, "examples"), (_percent(counts), "% of a row")):
        digits = len(str(max(cells.max(), len(classes))))
        names = width - len(classes) * (digits + 1) - len(str(len(classes))) - 2
        if names >= min(SHORTEST_NAME, max(map(len, classes))):
            heading = Text(f"{title}: right classes down, predicted ones across; {what}", "bold")
            return Group(heading, _matrix(cells, classes, names))
    heading = Text(f"{title}: what was most often taken for what; examples", "bold")
    return Group(heading, _list(counts, classes))


def _percent(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Shares of each row, in whole percent."""
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return np.asarray(np.round(100 * counts / totals), dtype=np.int64)


def _matrix(cells: NDArray[np.int64], classes: Sequence[str], names: int) -> Table:
    table = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(max_width=names, no_wrap=True, overflow="ellipsis")
    for _ in classes:
        table.add_column(justify="right", no_wrap=True)
    table.add_row("", "", *(Text(str(number + 1), "dim") for number in range(len(classes))))
    for row, name in enumerate(classes):
        numbers = [
            Text(str(value) if value else "·", "bold" if column == row else "" if value else "dim")
            for column, value in enumerate(cells[row])
        ]
        table.add_row(Text(str(row + 1), "dim"), Text(name), *numbers)
    return table


def _list(counts: NDArray[np.int64], classes: Sequence[str]) -> RenderableType:
    wrong = counts - np.diag(counts.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_FREQUENT]
    pairs = [divmod(int(place), len(classes)) for place in order if wrong.flat[place]]
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right")
    for right, predicted in pairs:
        words = f"{classes[right]} → {classes[predicted]}"
        table.add_row(str(wrong[right, predicted]), Text(words))
    return table if pairs else Text("none: every example came out right")
