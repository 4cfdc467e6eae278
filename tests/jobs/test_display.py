"""What a search shows, from a progress and a result made by hand."""

import io
import json
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from cliptune.evaluation import ENSEMBLE, MANUAL, TUNED, Row
from cliptune.journal import Generation, Validation
from cliptune.loop import Progress
from cliptune.run import Cost, Result, Telemetry
from jobs.display import Display, JsonDisplay, LiveDisplay, PlainDisplay, choose, spread

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


def generation(number: int, accuracy: float) -> Generation:
    rewards = np.array([[-1.0, -3.0], [-0.5, -0.5], [-2.0, -4.0]])
    return Generation(
        number=number,
        latents=np.zeros((3, 5)),
        rewards=rewards,
        fitness=rewards.mean(axis=1),
        step_size=0.75,
        best=1,
        validation=Validation(accuracy, 0.25),
    )


def progress(number: int = 1, *, generations: int = 4, seconds: float = 20.0) -> Progress:
    return Progress(
        generation=generation(number, 0.625),
        generations=generations,
        best=generation(0, 0.875),
        manual=Validation(0.5, 0.7),
        telemetry=Telemetry(number, 0.5, 0.9, 78, workers=2, retries=1),
        prompts_scored=3 * (number + 1),
        seconds=seconds,
    )


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
        run_dir=Path(run_dir),
        generation=2,
        candidate=1,
        latent=np.array([0.5, -0.25]),
        validation=Validation(0.875, 0.3),
        table=table[:rows],
        cost=Cost(**{**costs, **cost}),
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
    assert "prompt of generation 3, candidate 2, best on validation" in text
    assert "8,000 prompts scored in 61 s" in text
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
        display.generation(progress())
        assert printed() == ""
        display.result(result())
    assert "accuracy" in printed()


def test_plain_lines_say_which_generation_of_how_many(printed: Printed) -> None:
    PlainDisplay().generation(progress(1))
    (line,) = printed().splitlines()
    assert line.startswith("generation 2/4  ")
    assert "fitness -0.500 best -1.833 mean" in line
    assert "spread 0.667" in line
    assert "validation 62.5% (best 87.5%)" in line
    assert "6.0 prompts/s on 2 actors" in line


@pytest.mark.parametrize(
    ("number", "generations", "seconds", "left"),
    [
        (1, 4, 20.0, "0:20"),
        (0, 4, 20.0, "1:00"),
        (0, 2, 65.9, "1:05"),
        (3, 4, 20.0, "0:00"),
        (0, 101, 60.0, "100:00"),
    ],
)
def test_plain_lines_say_how_long_it_still_takes(
    number: int, generations: int, seconds: float, left: str, printed: Printed
) -> None:
    PlainDisplay().generation(progress(number, generations=generations, seconds=seconds))
    assert printed().splitlines()[-1].endswith(f"  {left} left")


def test_the_manual_prompt_stands_before_the_first_generation_and_there_only(
    printed: Printed,
) -> None:
    display = PlainDisplay()
    display.generation(progress(0))
    first = printed().splitlines()
    assert first[0] == "Manual prompt: 50.0% on validation. Searching ..."
    assert len(first) == 2
    display.generation(progress(1))
    assert len(printed().splitlines()) == 1


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
        "fitness_best": -0.5,
        "fitness_mean": pytest.approx(-11 / 6),
        "spread": pytest.approx(2 / 3),
        "step_size": 0.75,
        "validation_accuracy": 0.625,
        "validation_loss": 0.25,
        "best_validation_accuracy": 0.875,
        "prompts_scored": 6,
        "seconds": 0.5,
        "device_seconds": 0.9,
        "forward_passes": 78,
        "workers": 2,
        "retries": 1,
    }
    assert last["run_dir"] == "runs/[übung]"
    assert last["selected"]["latent"] == [0.5, -0.25]
    assert last["accuracy"][TUNED] == {"train": 1.0, "validation": 0.875, "test": 0.75}
    assert last["cost"]["search_passes"] == 1280000


def test_spread_is_how_far_critics_disagree_about_a_candidate() -> None:
    assert spread(progress()) == pytest.approx((1.0 + 0.0 + 1.0) / 3)


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


HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def test_the_live_line_says_which_generation_of_how_many() -> None:
    with in_terminal() as terminal, LiveDisplay() as display:
        display.phase("Starting Ray")
        display._bar.refresh()
        display.generation(progress(0))
        display._bar.refresh()
        display.generation(progress(1))
    text = plain(terminal.getvalue())
    assert "Starting Ray" in text
    assert text.count("manual prompt: 50.0% on validation") == 1
    assert "generation 1/4" in text
    assert "generation 2/4" in text
    assert "best 87.5% on validation" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_wide_live_line_says_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    with in_terminal() as terminal, LiveDisplay() as display:
        display.generation(progress())
    text = plain(terminal.getvalue())
    assert "fitness -0.500 best" in text
    assert "6.0 prompts/s on 2 actors" in text


def test_the_live_line_makes_way_for_the_result() -> None:
    with in_terminal() as terminal, LiveDisplay() as display:
        display.generation(progress())
        display.result(result())
        assert terminal.getvalue().rindex(SHOW_CURSOR) < terminal.getvalue().index(TUNED)
    assert "generation 2/4" not in plain(terminal.getvalue()).partition("accuracy")[2]


def test_the_cursor_comes_back_even_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), in_terminal() as terminal, LiveDisplay():
        _ = 1 // 0
    text = terminal.getvalue()
    assert HIDE_CURSOR in text
    assert text.rindex(SHOW_CURSOR) > text.rindex(HIDE_CURSOR)


@pytest.mark.parametrize("name", ["models/tiny", "models/[seed=1]"])
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


def test_a_stop_is_told_beside_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    JsonDisplay().stopped()
    out, err = capsys.readouterr()
    assert out == ""
    assert "Stopped." in err
    assert "journal" in err
