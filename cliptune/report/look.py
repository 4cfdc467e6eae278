"""How pictures look, and how they become SVG on a page or files of their own.

On a page a picture takes the page's colours, dark or light: it is drawn in stand-ins, which are
then replaced by the names of CSS variables. Text stays text, in the page's font.
"""

import html
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import FuncFormatter, MaxNLocator

WIDTH = 4.0  # inches, of every picture: its text is readable on a phone, too
HEIGHT = 2.7
DASHES = ("-", "--", ":")  # of lines beyond the number of colours
HEAT = (0x2F / 255, 0x7E / 255, 0xD8 / 255)  # of cells, fainter or stronger: on dark and on light
COLD = (0xE0 / 255, 0x70 / 255, 0x20 / 255)  # of negative ones
DPI = 160

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.labelsize": 9.0,
    "axes.titlesize": 10.0,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "figure.constrained_layout.w_pad": 0.08,  # inches: a browser's lines are higher
    "text.parse_math": False,  # a name may hold dollar signs
    "svg.fonttype": "none",
    "axes.formatter.useoffset": False,
}


@dataclass(frozen=True)
class Look:
    """Colours that a picture is drawn in."""

    ink: str
    muted: str
    grid: str
    series: tuple[str, ...]
    title: bool  # whether a picture carries its own

    def line(self, number: int) -> dict[str, Any]:
        """Colour and dash of a line; the same for the same number in all pictures."""
        turn, colour = divmod(number, len(self.series))
        return {"color": self.series[colour], "linestyle": DASHES[turn % len(DASHES)]}

    @contextmanager
    def style(self) -> Iterator[None]:
        settings: Any = STYLE | {
            "text.color": self.ink,
            "axes.labelcolor": self.ink,
            "xtick.color": self.muted,
            "ytick.color": self.muted,
            "xtick.labelcolor": self.ink,
            "ytick.labelcolor": self.ink,
            "axes.edgecolor": self.muted,
            "grid.color": self.grid,
            "figure.facecolor": "white" if self.title else "none",
            "axes.facecolor": "none",
        }
        with matplotlib.rc_context(settings):
            yield


# Okabe and Ito's colours, which most colour-blind people can tell apart, darkened for white paper.
LIGHT = Look(
    ink="#1c1e21",
    muted="#8a9099",
    grid="#e3e6ea",
    series=("#0072b2", "#c9510c", "#00835f", "#b0488b", "#9a7200", "#3f8fc4", "#5d5fc7", "#5a6068"),
    title=True,
)
STAND_INS = Look(
    ink="#fe0001",
    muted="#fe0002",
    grid="#fe0003",
    series=tuple(f"#fe01{number:02x}" for number in range(len(LIGHT.series))),
    title=False,
)
VARIABLES = {
    STAND_INS.ink: "var(--ink)",
    STAND_INS.muted: "var(--muted)",
    STAND_INS.grid: "var(--grid)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(STAND_INS.series)},
}


Draw = Callable[[Look], Figure]


def figure(height: float = HEIGHT) -> Figure:
    """An empty one whose parts keep out of each other's way."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def prompts_axis(axes: Axes, label: bool = True) -> None:
    """Prompts scored, from left to right."""
    if label:
        axes.set_xlabel("prompts scored")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.margins(x=0.02)


def percent_axis(axes: Axes, label: str) -> None:
    """Shares, from the bottom to the top."""
    axes.set_ylabel(label)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(percent))


def percent(share: float, _: object = None) -> str:
    """A share as whole percent, or finer where it is between two."""
    text = f"{100 * share:.1f}"
    return f"{text.removesuffix('.0')}%"


def legend(drawn: Figure, axes: Axes) -> None:
    """The names of the lines, above and outside of what they could hide."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) < 2:
        return
    each = 42 + 5.5 * max(map(len, labels))  # points
    columns = max(1, min(len(labels), int(72 * WIDTH / each)))
    drawn.legend(
        handles, labels, loc="outside upper left", ncols=columns, handlelength=1.6, borderpad=0.1
    )


def titled(drawn: Figure, title: str) -> Figure:
    """A figure with its title above all else, the legend included."""
    font = FontProperties(weight="bold", size=10)
    drawn.set_figheight(drawn.get_figheight() + 0.25)
    if drawn.legends:
        drawn.legends[0].set_title(title, prop=font)
        drawn.legends[0].set_alignment("left")
    else:
        drawn.suptitle(title, x=0.02, ha="left", fontproperties=font)
    return drawn


def file_bytes(draw: Draw, title: str, kind: str) -> bytes:
    """A picture as a file of its own, `png` or `svg`, with its title, on white."""
    out = io.BytesIO()
    with LIGHT.style(), matplotlib.rc_context({"svg.hashsalt": title}):
        drawn, metadata = titled(draw(LIGHT), title), _nameless(kind)
        drawn.savefig(
            out, format=kind, dpi=DPI, bbox_inches="tight", pad_inches=0.1, metadata=metadata
        )
    return out.getvalue()


def inline_svg(draw: Draw, name: str, alt: str) -> str:
    """A picture as an element of a page, in the page's colours and with ids of its own."""
    out = io.StringIO()
    with STAND_INS.style(), matplotlib.rc_context({"svg.hashsalt": name}):
        draw(STAND_INS).savefig(out, format="svg", metadata=_nameless("svg"))
    return _for_page(out.getvalue(), name, alt)


def _nameless(kind: str) -> dict[str, None]:
    """Neither a date nor a version of the library: equal runs give equal files."""
    return {"Software": None} if kind == "png" else {"Date": None, "Creator": None}


def _for_page(svg: str, name: str, alt: str) -> str:
    (box,) = re.findall(r'viewBox="[^"]*"', svg)
    inner = svg.partition("<defs>")[2].rpartition("</svg>")[0]
    inner = re.sub(r"<style.*?</style>", "", f"<defs>{inner}", flags=re.DOTALL)
    inner = re.sub(r"<!--.*?-->", "", inner, flags=re.DOTALL)
    inner = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", inner)
    inner = re.sub(r'(\bid="|"#|url\(#)', rf"\g<1>{name}-", inner)
    for colour, variable in VARIABLES.items():
        inner = inner.replace(colour, variable)
    return f'<svg {box} role="img" aria-label="{html.escape(alt)}">{inner}</svg>'
