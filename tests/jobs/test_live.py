"""The live view of a search: what a terminal is sent, from a progress made by hand."""

import io
import re
from contextlib import redirect_stderr

import pytest
from handmade import generation, progress, result
from rich.cells import cell_len
from terminal import in_terminal

from cliptune.evaluation import TUNED
from cliptune.observer import Progress
from jobs.live import LiveDisplay

pytestmark = pytest.mark.usefixtures("eighty_columns")

HIDE_CURSOR, SHOW_CURSOR, ERASE_LINE = "\x1b[?25l", "\x1b[?25h", "\x1b[2K"


def plain(text: str) -> str:
    """Without escape sequences; a line that was redrawn is several."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")


def shown_live(*seen: Progress) -> list[str]:
    """Every line that a terminal was ever sent."""
    with in_terminal() as terminal, LiveDisplay() as display:
        display.phase("Starting Ray")
        for one in seen:
            display.generation(one)
    return plain(terminal.getvalue()).splitlines()


def test_the_live_view_says_how_the_search_goes() -> None:
    lines = shown_live(progress(0), progress(1))
    text = "\n".join(lines)
    assert any("Starting Ray" in line for line in lines)
    assert re.search(r"generation 1 of 4 ━.* 0:20 elapsed, 1:05 left", text)
    assert re.search(r"generation 2 of 4 ━.* 0:20 elapsed, 1:05 left", text)
    assert re.search(r"fitness +best -0\.500 +mean -1\.833 +spread 0\.667 +▁", text)
    assert re.search(r"validation +accuracy 62\.5% +macro-F1 56\.2% +loss 0\.250 +▁", text)
    assert re.search(r"  best +accuracy 87\.5% +macro-F1 56\.2% +loss 0\.250 +generation 1\b", text)
    assert re.search(r"  manual +accuracy 50\.0% +macro-F1 40\.0% +loss 0\.700", text)
    assert re.search(r"speed +6\.0 prompts/s on 2 actors", text)


LONG = "models/" + "very/long/" * 30


@pytest.mark.parametrize("width", [80, 160])
def test_the_live_view_fits_into_its_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    with in_terminal() as terminal, LiveDisplay() as display:
        display.phase(f"Loading {LONG}")
        display.resumed(1, generation(0, 0.5))
        display.warning("The journal's last file was damaged." * 10)
        for number in range(200):
            display.generation(progress(number, generations=100_000, score=-123.456))
        display.phase(f"Evaluating {LONG}")
    lines = plain(terminal.getvalue()).splitlines()
    assert max(map(cell_len, lines)) == width
    assert all("…" not in line for line in lines if "Loading" not in line and "Eval" not in line)


def bar(lines: list[str]) -> float:
    """The filled part of the last bar."""
    *_, filled = re.findall(r"━+[╸╺]?━*", "\n".join(lines))
    return re.split("[╸╺]", filled)[0].count("━") / len(filled)


def test_the_bar_follows_the_generations() -> None:
    assert bar(shown_live(progress(24, generations=100))) == pytest.approx(1 / 4, abs=0.05)


def test_the_bar_follows_the_time_where_generations_are_not_counted() -> None:
    quarter = progress(1, generations=None, seconds=20.0, seconds_left=60.5)
    assert bar(shown_live(quarter)) == pytest.approx(1 / 4, abs=0.05)


def test_the_clock_goes_on_while_a_generation_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("jobs.live.monotonic", lambda: now)
    with in_terminal() as terminal, LiveDisplay() as display:
        display.generation(progress(1, seconds=20.0, seconds_left=10.0))
        now += 8.0
        display._live.refresh()
        now += 8.0
        display._live.refresh()
        text = plain(terminal.getvalue())
    for times in ("0:20 elapsed, 0:10 left", "0:28 elapsed, 0:02 left", "0:36 elapsed, 0:00 left"):
        assert times in text


def test_the_live_view_does_not_promise_an_end_that_nobody_knows() -> None:
    text = "\n".join(shown_live(progress(1, generations=None, seconds_left=None)))
    assert "0:20 elapsed" in text
    assert "left" not in text


def test_the_live_view_makes_way_for_the_result() -> None:
    with in_terminal() as terminal, LiveDisplay() as display:
        display.generation(progress())
        display.result(result())
        text = terminal.getvalue()
    assert text.rindex(SHOW_CURSOR) < text.index(TUNED)
    erased = text[: text.index(TUNED)].rpartition("speed")[2]
    assert erased.count(ERASE_LINE) >= 6
    assert "generation 2 of 4" not in plain(text).partition("test, against manual")[2]


def test_the_cursor_comes_back_even_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), in_terminal() as terminal, LiveDisplay():
        _ = 1 // 0
    text = terminal.getvalue()
    assert HIDE_CURSOR in text
    assert text.rindex(SHOW_CURSOR) > text.rindex(HIDE_CURSOR)


def test_where_a_search_breaks_off_its_last_view_stays() -> None:
    with pytest.raises(KeyboardInterrupt), in_terminal() as terminal, LiveDisplay() as display:
        display.generation(progress())
        raise KeyboardInterrupt
    left = plain(terminal.getvalue().rpartition(ERASE_LINE)[2])
    assert "generation 2 of 4" in left
    assert "6.0 prompts/s" in left


def test_a_live_view_of_a_resumed_search_says_so_once() -> None:
    with in_terminal() as terminal, LiveDisplay() as display:
        display.resumed(12, generation(8, 0.875))
        display.generation(progress(12))
    assert plain(terminal.getvalue()).count("Resumed at generation 13.") == 1


@pytest.mark.parametrize("name", ["models/tiny", "models/[seed=1]", "models/:fire:[/x]"])
def test_a_live_phase_is_shown_letter_by_letter(name: str) -> None:
    with in_terminal() as terminal, LiveDisplay() as display:
        display.phase(f"Loading {name}")
    assert f"Loading {name}" in plain(terminal.getvalue())


def test_a_warning_stands_above_what_moves() -> None:
    with in_terminal() as terminal, redirect_stderr(terminal), LiveDisplay() as display:
        display.generation(progress())
        display.warning("An actor [red]died[/red]: it is replaced.")
        display.generation(progress(1))
        text = plain(terminal.getvalue())
    before, said, after = text.partition("cliptune: An actor [red]died[/red]: it is replaced.\n")
    assert said
    assert "generation 2 of 4" not in before.rpartition("speed")[2]
    assert "generation 2 of 4" in after


def test_warnings_go_where_standard_error_was_sent() -> None:
    log = io.StringIO()
    with in_terminal() as terminal, redirect_stderr(log), LiveDisplay() as display:
        display.generation(progress())
        display.warning("An actor died: it is replaced.")
    assert log.getvalue() == "cliptune: An actor died: it is replaced.\n"
    assert "died" not in terminal.getvalue()
