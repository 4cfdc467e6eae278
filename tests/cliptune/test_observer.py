"""Who is told what of a search, and in which order."""

from pathlib import Path
from typing import Any

import handmade
import pytest
import runs

from cliptune.observer import Observer, Observers


class Diary(Observer):
    """The names of what it was told, one list for several of them."""

    def __init__(self, name: str, entries: list[str]) -> None:
        self._name, self._entries = name, entries

    def __getattribute__(self, what: str) -> Any:
        if what.startswith("_"):
            return super().__getattribute__(what)
        return lambda *arguments: self._entries.append(f"{self._name} {what}")


def test_a_search_tells_what_happens_in_its_order(tmp_path: Path) -> None:
    entries: list[str] = []
    runs.run(runs.plain(tmp_path / "run", search={"budget": 16}), Diary("one", entries))
    told = ["writing", "begun", "generation", "generation", "phase", "result"]
    assert entries == [f"one {what}" for what in told]


def test_a_search_that_goes_on_says_how_far_it_was(tmp_path: Path) -> None:
    class Begun(Observer):
        def begun(self, config: Any, run_dir: str, generations: int) -> None:
            found.append((config.search.budget, run_dir, generations))

    place, found = str(tmp_path / "run"), []
    runs.run(runs.plain(place, search={"budget": 16}), Begun())
    runs.run(runs.plain(place, search={"budget": 24}), Begun(), resume=True)
    assert found == [(16, place, 0), (24, place, 2)]


def test_several_observers_are_told_in_turn() -> None:
    entries: list[str] = []
    both = Observers([Diary("one", entries), Diary("two", entries)])
    methods = [name for name in vars(Observer) if not name.startswith("_")]
    for name in methods:
        count = getattr(Observer, name).__code__.co_argcount - 1
        getattr(both, name)(*[None] * count)
    assert entries == [f"{one} {name}" for name in methods for one in ("one", "two")]


def test_spread_is_how_far_critics_disagree_about_a_candidate() -> None:
    assert handmade.generation(0, 0.5).spread == pytest.approx((1.0 + 0.0 + 1.0) / 3)
