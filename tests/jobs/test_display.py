"""What a search shows beside the live view, from a progress and a result made by hand."""

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from handmade import generation, progress, result
from terminal import in_terminal

import cliptune
from cliptune.evaluation import ENSEMBLE, MANUAL, TUNED
from cliptune.task import SPLITS
from jobs.display import Display, JsonDisplay, LogDisplay, PlainDisplay, choose
from jobs.live import LiveDisplay

pytestmark = pytest.mark.usefixtures("eighty_columns")
Printed = Callable[[], str]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    return lambda: capsys.readouterr().out


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


def test_a_log_has_one_line_of_keys_and_values_a_generation(printed: Printed) -> None:
    with choose(quiet=False, json=False, log=True) as shown:
        assert isinstance(shown, LogDisplay)
        shown.phase("Starting Ray")
        shown.generation(progress())
        shown.generation(progress())
    version, starting, manual, *lines = printed().splitlines()
    assert version == f"cliptune {cliptune.__version__}"
    assert starting == "Starting Ray ..."
    assert manual.startswith("Manual prompt: accuracy")
    assert len(lines) == 2
    assert all("=" in field for line in lines for field in line.split(" "))
