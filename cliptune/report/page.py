"""One self-contained HTML file, and pictures as files of their own."""

import re
from collections.abc import Iterator, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cliptune.report.figures import readable
from cliptune.report.look import LIGHT, file_bytes, inline_svg
from cliptune.report.parts import Picture, Section

TEMPLATE = "page.html.j2"


def page(sections: Sequence[Section]) -> str:
    """The page of a report. Whatever comes from a run is text on it, never markup."""
    environment = Environment(
        loader=PackageLoader("cliptune.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["readable"] = readable
    return environment.get_template(TEMPLATE).render(
        sections=[(section, _figures(number, section)) for number, section in enumerate(sections)],
        title=sections[0].title if len(sections) == 1 else f"{len(sections)} reports",
        light=LIGHT,
    )


def _figures(number: int, section: Section) -> list[tuple[Picture, Markup]]:
    return [
        (picture, Markup(inline_svg(picture.draw, f"s{number}p{place}", picture.title)))  # noqa: S704
        for place, picture in enumerate(section.pictures)
        if picture.page
    ]


def picture_files(sections: Sequence[Section], kind: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each picture, as `png` or `svg`."""
    for number, section in enumerate(sections):
        prefix = "" if len(sections) == 1 else f"{number + 1}-"
        for picture in section.pictures:
            name = re.sub(r"[^\w.-]", "_", picture.name)  # a setting's name is in it
            yield f"{prefix}{name}.{kind}", file_bytes(picture.draw, picture.title, kind)
