"""The page: self-contained, harmless, the same for the same runs, and small."""

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import records
from records import generation, record, result

from cliptune.report.look import LIGHT, VARIABLES
from cliptune.report.page import page, picture_files
from cliptune.report.parts import Section
from cliptune.report.runs import run_section

EVIL = "</text><script>alert(1)</script><img src=http://evil.example/x>"


class Seen(HTMLParser):
    """The tags and attributes of a page, and whether every tag that opens closes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> Section:
    """Of a run that has everything, also what could do harm."""
    words = [EVIL, "$\\frac{$ & ]]> --"]
    sections = {"task": {"label_words": words}}
    return run_section(
        records.searched(tmp_path_factory.mktemp("evil") / "<b onload=x>", **sections)
    )


@pytest.fixture(scope="module")
def html(section: Section) -> str:
    return page([section])


def test_nothing_of_a_run_becomes_markup(html: str) -> None:
    seen = Seen(html)
    assert seen.tags["script"] == seen.tags["img"] == 0
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_nothing_is_loaded_from_elsewhere(html: str) -> None:
    seen = Seen(html)
    places = [v for name, v in seen.attributes if name in ("src", "href", "xlink:href", "action")]
    assert places
    assert all(place.startswith(("#", "data:image/png;base64,")) for place in places)
    assert seen.tags["link"] == seen.tags["iframe"] == 0
    assert re.findall(r"https?://[\w.]*", html) == ["http://evil.example"] * html.count(
        "evil.example"
    )
    assert "@import" not in html
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert ("content", policy) in seen.attributes


def test_pictures_take_the_pages_colours(html: str) -> None:
    assert not [stand_in for stand_in in VARIABLES if stand_in in html]
    assert "var(--series-0)" in html
    assert "prefers-color-scheme: dark" in html
    light, dark = (re.findall(r"(--series-\d):", part) for part in html.split("@media", 1))
    assert len(light) == len(LIGHT.series)
    assert set(light) <= set(dark)


def test_every_id_is_there_once_and_every_reference_has_one(html: str) -> None:
    ids = Counter(re.findall(r'\bid="([^"]*)"', html))
    assert [name for name, times in ids.items() if times > 1] == []
    asked = {*re.findall(r'"#([^"]*)"', html), *re.findall(r"url\(#([^)]*)\)", html)}
    assert asked
    assert asked <= set(ids)


def test_pictures_have_names_for_those_who_cannot_see_them(html: str) -> None:
    assert len(re.findall(r'<svg [^>]*role="img" aria-label="[^"]+"', html)) == html.count("<svg")


def test_the_same_run_gives_the_same_page(section: Section, html: str) -> None:
    assert page([section]) == html
    assert not re.search(r"20\d\d-\d\d-\d\d", html.replace(section.subtitle, ""))


def test_tokens_are_shown_with_their_cosines(html: str) -> None:
    assert "<bdi>␣good</bdi>" in html
    assert "<bdi>␣$x$</bdi>" in html
    assert "##ing 0.500" in html


def test_a_long_search_through_many_subnetworks_is_a_small_page() -> None:
    rng = np.random.default_rng(0)
    many = [generation(n, rng.normal(-1, 1, (3, 100)), rng.random(), 0.5) for n in range(400)]
    sections = {"ensemble": {"subnetworks": 100}, "search": {"population": 3, "budget": 1200}}
    html = page([run_section(record(generations=many, sections=sections, result=result(1200)))])
    assert len(html) < 500_000


def test_several_sections_make_one_page() -> None:
    html = page([Section("One", "of them"), Section("The other", "one")])
    assert Seen(html).tags["h1"] == 2
    assert "<title>2 reports</title>" in html


def test_pictures_are_files_too(section: Section) -> None:
    some = [picture for picture in section.pictures if picture.name in ("tokens", "time")]
    files = dict(picture_files([replace(section, pictures=some)], "svg"))
    assert sorted(files) == ["time.svg", "tokens.svg"]
    assert all(content.startswith(b"<?xml") for content in files.values())
    assert b"<script" not in b"".join(files.values())


def test_the_name_of_a_picture_is_no_path() -> None:
    picture = next(iter(run_section(record()).pictures))
    evil = Section("", "", pictures=[picture.__class__("../../x", "x", "", picture.draw)])
    ((name, content),) = picture_files([evil], "png")
    assert name == ".._.._x.png"
    assert content.startswith(b"\x89PNG")
