"""What a search shows, from a progress and a result made by hand."""

import io
import json
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any, NoReturn

import numpy as np
import pytest
from rich.cells import cell_len

from cliptune.evaluation import ENSEMBLE, MANUAL, TUNED, Row
from cliptune.journal import Generation, Validation
from cliptune.loop import Progress
from cliptune.record import Cost, Result, Telemetry
from jobs.display import Display, JsonDisplay, PlainDisplay, choose
from jobs.live import LiveDisplay
from jobs.words import clock, spread

SPLITS = ("train", "validation", "test")
Printed = Callable[[], str]


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    return lambda: capsys.readouterr().out


def generation(number: int, accuracy: float, score: float = -0.25) -> Generation:
    rewards = np.array([[-1.0, -3.0], [-0.5, -0.5], [-2.0, -4.0]])
    return Generation(
        number=number,
        latents=np.zeros((3, 5)),
        rewards=rewards,
        fitness=rewards.mean(axis=1),
        step_size=0.75,
        best=1,
        validation=Validation(accuracy, loss=0.25, macro_f1=0.5625, score=score),
    )


def progress(number: int = 1, *, score: float = -0.25, **changed: Any) -> Progress:
    values: dict[str, Any] = {
        "generation": generation(number, 0.625, score),
        "generations": 4,
        "best": generation(0, 0.875, score),
        "manual": Validation(0.5, loss=0.7, macro_f1=0.4, score=-0.7),
        "telemetry": Telemetry(number, 0.5, 0.9, 78, workers=2, retries=1),
        "prompts_scored": 3 * (number + 1),
        "seconds": 20.0,
        "seconds_left": 65.9,
    }
    return Progress(**values | changed)


def result(run_dir: str = "runs/tiny-20250101-000000", rows: int = 3, **cost: Any) -> Result:
    accuracies = {
        MANUAL: (0.5, 0.5, 0.25),
        TUNED: (1.0, 0.875, 0.75),
        ENSEMBLE: (0.9, 0.8, 0.125),
    }
    table = [
        Row(name, dict(zip(SPLITS, values, strict=True))) for name, values in accuracies.items()
    ]
    costs: dict[str, Any] = {
        "prompts_scored": 8000,
        "search_passes": 1280000,
        "validation_passes": 12832,
        "evaluation_passes": 90,
        "seconds": 61.4,
        "device_seconds": 120.6,
    }
    return Result(
        run_dir=run_dir,
        generation=2,
        candidate=1,
        latent=np.array([0.5, -0.25]),
        validation=Validation(0.875, loss=0.3, macro_f1=0.8, score=-0.3),
        table=table[:rows],
        cost=Cost(**{**costs, **cost}),
        stopped="the budget of 8,000 prompts is spent",
    )


def cells(text: str, name: str) -> list[str]:
    """The cells after a row's name."""
    (line,) = [line for line in text.splitlines() if name in line]
    return [cell.strip() for cell in line.strip("│ ").split("│")][1:]


def test_the_table_names_every_row_with_its_accuracies_and_its_gain(printed: Printed) -> None:
    Display().result(result())
    text = printed()
    assert cells(text, MANUAL) == ["50.0%", "50.0%", "25.0%"]
    assert cells(text, TUNED) == ["100.0%", "87.5%", "75.0%", "+50.0"]
    assert cells(text, ENSEMBLE) == ["90.0%", "80.0%", "12.5%", "-12.5"]
    assert all(split in text for split in SPLITS)


def test_the_table_has_no_ensemble_where_nothing_was_clipped(printed: Printed) -> None:
    Display().result(result(rows=2))
    text = printed()
    assert TUNED in text
    assert ENSEMBLE not in text


def test_the_result_says_what_it_took_and_where_it_lies(printed: Printed) -> None:
    Display().result(result())
    text = " ".join(printed().split())
    assert (
        "prompt of generation 3, candidate 2, chosen on validation: accuracy 87.5%, "
        "macro-F1 80.0%, loss 0.300" in text
    )
    assert "ended: the budget of 8,000 prompts is spent" in text
    assert "8,000 prompts scored in 1:01" in text
    assert "1,280,000 search, 12,832 validation, 90 evaluation; 121 device seconds" in text
    assert "written to runs/tiny-20250101-000000" in text


def test_the_result_fits_into_80_columns(printed: Printed) -> None:
    Display().result(result())
    assert max(map(len, printed().splitlines())) <= 80


def test_a_long_run_directory_stays_in_one_piece(printed: Printed) -> None:
    path = "/somewhere/" + "far/" * 40 + "away"
    Display().result(result(path))
    assert f"written to {path}\n" in printed()


@pytest.mark.parametrize("path", ["runs/[seed=1]", "runs/[bold]x", "runs/[/x]", "runs/:fire:"])
def test_a_run_directory_is_shown_letter_by_letter(path: str, printed: Printed) -> None:
    Display().result(result(path))
    assert f"written to {path}\n" in printed()


@pytest.mark.parametrize("name", ["models/[seed=1]", "models/[/x]", "models/:fire:"])
def test_a_phase_is_shown_letter_by_letter(name: str, printed: Printed) -> None:
    PlainDisplay().phase(f"Loading {name}")
    assert printed() == f"Loading {name} ...\n"


def test_the_quiet_display_shows_the_result_alone(printed: Printed) -> None:
    display = Display()
    with display:
        display.phase("Starting Ray")
        display.writing("runs/tiny")
        display.resumed(1, generation(0, 0.5))
        display.generation(progress())
        assert printed() == ""
        display.result(result())
    assert "accuracy" in printed()


def test_plain_lines_say_which_generation_of_how_many(printed: Printed) -> None:
    PlainDisplay().generation(progress(1))
    line = printed().splitlines()[-1]
    assert line.startswith("generation 2 of 4  ")
    assert "fitness -0.500 best -1.833 mean" in line
    assert "spread 0.667" in line
    assert (
        "validation accuracy 62.5%, macro-F1 56.2%, loss 0.250 "
        "(best accuracy 87.5%, macro-F1 56.2%, loss 0.250)" in line
    )
    assert "6.0 prompts/s on 2 actors" in line
    assert line.endswith("  1:05 left")


def test_plain_lines_leave_out_what_is_not_known(printed: Printed) -> None:
    """Where only time limits a search, or nothing that can be foretold."""
    PlainDisplay().generation(progress(1, generations=None, seconds_left=None))
    line = printed().splitlines()[-1]
    assert line.startswith("generation 2  ")
    assert line.endswith("on 2 actors")


def test_the_score_of_the_users_own_metric_is_shown(printed: Printed) -> None:
    PlainDisplay().generation(progress(1, score=12.5))
    assert "validation accuracy 62.5%, score 12.500, loss 0.250" in printed()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0:00"),
        (5.9, "0:05"),
        (65.9, "1:05"),
        (3599, "59:59"),
        (3600, "1:00:00"),
        (9e4, "25:00:00"),
    ],
)
def test_times_are_minutes_and_seconds_and_hours_where_there_are_any(
    seconds: float, shown: str
) -> None:
    assert clock(seconds) == shown


def test_the_manual_prompt_stands_before_the_first_generation_and_there_only(
    printed: Printed,
) -> None:
    display = PlainDisplay()
    display.generation(progress(0))
    first = printed().splitlines()
    assert first[0] == (
        "Manual prompt: accuracy 50.0%, macro-F1 40.0%, loss 0.700 on validation. Searching ..."
    )
    assert len(first) == 2
    display.generation(progress(1))
    assert len(printed().splitlines()) == 1


def test_a_resumed_search_says_where_it_goes_on(printed: Printed) -> None:
    display = PlainDisplay()
    display.resumed(12, generation(8, 0.875))
    assert printed() == (
        "Resumed at generation 13. Best on validation until here: "
        "accuracy 87.5%, macro-F1 56.2%, loss 0.250 (generation 9)\n"
    )


@pytest.mark.parametrize("kind", [Display, PlainDisplay, JsonDisplay])
def test_a_warning_is_told_beside_the_output(
    kind: type[Display], capsys: pytest.CaptureFixture[str]
) -> None:
    kind().warning("The file runs/[seed=1] was damaged.")
    assert capsys.readouterr() == ("", "cliptune: The file runs/[seed=1] was damaged.\n")


def test_plain_lines_have_no_control_characters(printed: Printed) -> None:
    display = PlainDisplay()
    with display:
        display.phase("Starting Ray")
        display.generation(progress(0))
        display.result(result())
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", printed())


def valid_json(line: str) -> dict[str, Any]:
    """Parsed as the standard has it, in which NaN and Infinity are no numbers."""

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is not JSON")

    value = json.loads(line, parse_constant=refuse)
    assert isinstance(value, dict)
    return value


def test_json_has_an_object_a_generation_and_one_for_the_result(printed: Printed) -> None:
    display = JsonDisplay()
    with display:
        display.phase("Starting Ray")
        display.generation(progress(0))
        display.generation(progress(1))
        display.result(result("runs/[übung]"))
    first, second, last = (valid_json(line) for line in printed().splitlines())
    assert (first["generation"], second["generation"]) == (0, 1)
    assert second == {
        "generation": 1,
        "generations": 4,
        "best_generation": 0,
        "fitness_best": -0.5,
        "fitness_mean": pytest.approx(-11 / 6),
        "spread": pytest.approx(2 / 3),
        "step_size": 0.75,
        "validation_accuracy": 0.625,
        "validation_loss": 0.25,
        "validation_macro_f1": 0.5625,
        "validation_score": -0.25,
        "best_validation_accuracy": 0.875,
        "best_validation_loss": 0.25,
        "best_validation_macro_f1": 0.5625,
        "best_validation_score": -0.25,
        "prompts_scored": 6,
        "elapsed_seconds": 20.0,
        "seconds_left": 65.9,
        "seconds": 0.5,
        "device_seconds": 0.9,
        "forward_passes": 78,
        "workers": 2,
        "retries": 1,
    }
    assert last["run_dir"] == "runs/[übung]"
    assert last["stopped"] == "the budget of 8,000 prompts is spent"
    assert last["selected"]["latent"] == [0.5, -0.25]
    assert last["accuracy"][TUNED] == {"train": 1.0, "validation": 0.875, "test": 0.75}
    assert last["cost"]["search_passes"] == 1280000


def test_spread_is_how_far_critics_disagree_about_a_candidate() -> None:
    assert spread(generation(0, 0.5)) == pytest.approx((1.0 + 0.0 + 1.0) / 3)


class Terminal(io.StringIO):
    """A standard output that is a terminal."""

    def isatty(self) -> bool:
        return True


def in_terminal() -> redirect_stdout[Terminal]:
    """Entered by the tests: what a fixture puts in its place, pytest's capture replaces again."""
    return redirect_stdout(Terminal())


def plain(text: str) -> str:
    """Without escape sequences; a line that was redrawn is several."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")


HIDE_CURSOR, SHOW_CURSOR, ERASE_LINE = "\x1b[?25l", "\x1b[?25h", "\x1b[2K"


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


def test_json_is_chosen_before_quiet_and_both_before_the_terminal() -> None:
    with in_terminal():
        assert type(choose(quiet=False, json=True)) is JsonDisplay
        assert type(choose(quiet=True, json=True)) is JsonDisplay
        assert type(choose(quiet=True, json=False)) is Display
        assert type(choose(quiet=False, json=False)) is LiveDisplay


def test_pipes_and_files_get_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert type(choose(quiet=False, json=False)) is PlainDisplay


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with in_terminal():
        assert type(choose(quiet=False, json=False)) is PlainDisplay


def test_a_stop_is_told_beside_the_output_with_how_to_go_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    display = JsonDisplay()
    display.writing("runs/my run")
    display.stopped()
    assert capsys.readouterr() == (
        "",
        "Stopped. Go on with it: cliptune search --resume 'runs/my run'\n",
    )


def test_a_stop_before_anything_was_written_says_no_more(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Display().stopped()
    assert capsys.readouterr().err == "Stopped.\n"
