"""Where a drawn figure writes: texts that lie over each other, or outside of it."""

from collections.abc import Iterator
from itertools import combinations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

SLACK = 1.0  # pixels by which boxes may touch


def faults(figure: Figure) -> list[str]:
    """What cannot be read, in words; the font is wider than those of browsers."""
    figure.draw_without_rendering()
    texts = [text for text in _texts(figure) if text.get_visible() and text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    assert boxes, "a figure without a word"
    edge = figure.bbox
    found = [
        f"{name!r} is cut off"
        for name, box in boxes
        if box.x0 < edge.x0 - SLACK
        or box.y0 < edge.y0 - SLACK
        or box.x1 > edge.x1 + SLACK
        or box.y1 > edge.y1 + SLACK
    ]
    for (one, a), (other, b) in combinations(boxes, 2):
        wide = min(a.x1, b.x1) - max(a.x0, b.x0)
        high = min(a.y1, b.y1) - max(a.y0, b.y0)
        if wide > SLACK and high > SLACK:
            found.append(f"{one!r} lies over {other!r}")
    return found


def _texts(figure: Figure) -> Iterator[Text]:
    if title := figure.get_suptitle():
        yield from (text for text in figure.texts if text.get_text() == title)
    for legend in figure.legends:
        yield from (legend.get_title(), *legend.get_texts())
    for axes in figure.axes:
        yield from axes.texts
        yield from (axes.xaxis.label, axes.yaxis.label, axes.title)
        yield from _ticks(axes)


def _ticks(axes: Axes) -> Iterator[Text]:
    """Labels of the ticks that are drawn: some lie beyond an axis' end."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        for minor in (False, True):
            places, labels = axis.get_ticklocs(minor=minor), axis.get_ticklabels(minor=minor)
            for place, label in zip(places, labels, strict=False):
                if low <= place <= high:
                    yield label
