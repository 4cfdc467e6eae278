"""`cliptune show`, on runs of a scorer that takes no time."""

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny
from rich.cells import cell_len

from cliptune.errors import RunError
from cliptune.evaluation import ENSEMBLE, MANUAL, TUNED
from cliptune.loop import search
from cliptune.observer import Observer, Progress
from cliptune.record import read_run
from cliptune.report.comparison import comparison_section
from cluster.config import ClusterSearch
from jobs.show import main

Shown = Callable[..., str]


class StopAfter(Observer):
    """Ctrl-C after some generations."""

    def __init__(self, generations: int) -> None:
        self._last = generations - 1

    def generation(self, progress: Progress) -> None:
        if progress.generation.number == self._last:
            raise KeyboardInterrupt


def run(place: Path, *, stop_after: int | None = None, resume: bool = False, **more: Any) -> str:
    """A search of three generations in a folder."""
    config = tiny.config(Path("model"), Path("data"), place, **more)
    observer = Observer() if stop_after is None else StopAfter(stop_after)
    try:
        search(config, tiny.PlainScorer(config), observer, resume=resume)
    except KeyboardInterrupt:
        assert stop_after is not None
    return str(place)


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Shown:
    def shown(*places: str, as_json: bool = False) -> str:
        capsys.readouterr()
        main(places, as_json=as_json)
        return capsys.readouterr().out

    return shown


def fact(text: str, name: str) -> str:
    """What stands behind a name, on one line."""
    (found,) = re.findall(rf"^{name}  +(.*(?:\n  +.*)*)", text, flags=re.MULTILINE)
    return " ".join(found.split())


def test_fewer_bits_a_weight_are_shown(shown: Shown) -> None:
    text = shown(run(Path("run"), model={"quantize": "4bit"}))
    assert fact(text, "model").startswith("plain, float32 with 4bit weights on cpu, ")


def test_a_run_is_shown_in_full(shown: Shown) -> None:
    text = shown(run(Path("run"), search={"seed": 7}))
    assert fact(text, "run") == "run"
    assert fact(text, "state") == (
        "finished after 3 generations: the budget of 12 prompts is spent"
    )
    assert fact(text, "task") == "tiny: 2 classes, 3 examples a class"
    assert fact(text, "model").startswith("plain, float32 on cpu, 0 parameters, SHA-256 000000000")
    assert fact(text, "prompt") == "3 vectors of 4, searched in 5 dimensions; init vocabulary"
    assert fact(text, "networks") == (
        "3 thinned ones, each without 30% of embedding, attention-output, ffn-output; static, "
        "mixed by mean"
    )
    assert fact(text, "search") == (
        "cma-es, 4 prompts a generation, loss cross-entropy; chosen by loss"
    )
    assert fact(text, "seeds") == "search 7, prompt 7, ensemble 7, task 0"
    assert re.fullmatch(
        r"generation \d, candidate \d; on validation accuracy .*, loss \d.*", fact(text, "best")
    )
    cost = fact(text, "cost")
    assert re.match(r"12 prompts scored in \d+:\d\d; forward passes: 216 search, 24 val", cost)
    assert text.endswith("\nto extend it: cliptune search --resume run search.budget=24\n")


def test_the_table_is_that_of_the_result(shown: Shown) -> None:
    place = run(Path("run"))
    accuracy = json.loads(Path(place, "result.json").read_text(encoding="utf-8"))["accuracy"]
    text = shown(place)
    for name in (MANUAL, TUNED, ENSEMBLE):
        (line,) = [line for line in text.splitlines() if name in line]
        cells = [cell.strip() for cell in line.strip("│ ").split("│")]
        assert cells[:4] == [name, *(f"{100 * value:.1f}%" for value in accuracy[name].values())]


def test_the_course_has_the_extremes_of_fitness_and_of_what_chose_the_prompt(shown: Shown) -> None:
    place = run(Path("run"))
    history = json.loads(shown(place, as_json=True))["generations"]
    text = shown(place)
    assert "generations 1 to 3" in text
    fitness = [one["fitness_best"] for one in history]
    losses = [one["validation_loss"] for one in history]
    assert re.findall(r"^ *(\S+) ┤", text, flags=re.MULTILINE) == [
        f"{max(fitness):.3f}",
        f"{min(fitness):.3f}",
        f"{min(losses):.3f}",
        f"{max(losses):.3f}",
    ]


@pytest.mark.parametrize(
    ("selection", "pattern"), [("accuracy", r"\d+\.\d%"), ("macro-f1", r"\d+\.\d%")]
)
def test_a_measure_is_shown_as_it_is_usually_read(
    selection: str, pattern: str, shown: Shown
) -> None:
    text = shown(run(Path("run"), search={"selection": selection}))
    assert f"its {selection} on validation\n" in text
    assert all(re.fullmatch(pattern, end) for end in re.findall(r" *(\S+) ┤", text)[2:])


def test_an_unfinished_run_says_how_far_it_came_and_how_to_go_on(shown: Shown) -> None:
    text = shown(run(Path("run"), stop_after=2))
    assert fact(text, "state") == "unfinished: 8 of 12 prompts in 2 generations"
    assert re.fullmatch(r"8 prompts scored in \d+:\d\d", fact(text, "cost"))
    assert TUNED not in text
    assert text.endswith("\ngo on with it: cliptune search --resume run\n")


def test_a_run_without_a_generation_can_be_shown(shown: Shown) -> None:
    place = run(Path("run"), stop_after=1)
    for name in ("journal", "telemetry"):
        Path(place, name, "000000.arrow").unlink()
    text = shown(place)
    assert fact(text, "state") == "unfinished: 0 of 12 prompts in 0 generations"
    assert "┤" not in text
    assert shown(place, place).count("unfinished") == 2


def test_a_run_that_is_being_extended_says_whose_table_is_shown(shown: Shown) -> None:
    place = run(Path("run"))
    run(Path(place), stop_after=4, resume=True, search={"budget": 24})
    text = shown(place)
    assert fact(text, "state") == (
        "unfinished: 16 of 24 prompts in 4 generations; the table is of an earlier end"
    )
    assert TUNED in text
    assert json.loads(shown(place, as_json=True))["finished"] is False


def test_a_run_that_ended_for_another_reason_is_extended_by_that(shown: Shown) -> None:
    text = shown(run(Path("run"), search={"budget": 400, "patience": 1}))
    assert "(search.patience)" in fact(text, "state")
    assert "raise the limit that it reached: cliptune search --resume run\n" in text


@pytest.mark.parametrize("name", ["[seed=1]", "[bold]x", "[/x]", ":fire:"])
def test_names_are_shown_letter_by_letter(name: str, shown: Shown) -> None:
    place = run(Path(name))
    assert fact(shown(place), "run") == name
    assert name in shown(place, place)


@pytest.mark.parametrize("width", [80, 160])
def test_everything_fits_into_the_terminal(
    width: int, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    places = [
        run(Path(name * 12), search={"budget": 120, "seed": seed}, **more)
        for seed, (name, more) in enumerate(
            {"a-long": {}, "name": {"ensemble": {"sites": ["ffn-hidden", "ffn-output"]}}}.items()
        )
    ]
    for text in (shown(places[0]).rpartition("\n\n")[0], shown(*places)):
        assert max(map(cell_len, text.splitlines())) <= width


def rows(text: str, *places: str) -> list[str]:
    """What stands below the header: a text a run, from its name to the next one's."""
    _, _, below = text.partition("──\n") if "──\n" in text else text.partition("── \n")
    assert below
    starts = [below.index(f" {place}") for place in places]
    return [below[start:end] for start, end in pairwise([*starts, len(below)])]


def test_several_runs_are_told_apart_by_the_settings_that_differ(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    places = [
        run(Path("first")),
        run(Path("second"), search={"seed": 1}, ensemble={"mode": "none"}),
        run(Path("third"), search={"budget": 40, "patience": 9}, stop_after=2),
    ]
    first, second, third = (row.split() for row in rows(shown(*places), *places))
    assert {"first", "search.seed=0", "ensemble.mode=static", "search.budget=12"} <= set(first)
    assert "search.patience=null" in first
    assert {"second", "search.seed=1", "ensemble.mode=none", "search.budget=12"} <= set(second)
    assert {"third", "search.budget=40", "unfinished"} <= set(third)
    assert not any("run_dir" in word or "prompt.seed" in word for word in first)
    assert "unfinished" not in first


def test_a_number_of_actors_and_a_range_are_told_apart(shown: Shown) -> None:
    places = [run(Path("first")), run(Path("second"))]
    for place, actors in zip(places, ("2", "{min: 1, max: 4}"), strict=True):
        with (Path(place) / "config.yaml").open("a") as file:
            file.write(f"cluster: {{actors: {actors}}}\n")
    first, second = (row.split() for row in rows(shown(*places), *places))
    assert "cluster.actors=2" in first
    assert {"cluster.actors.min=1", "cluster.actors.max=4"} <= set(second)
    section = comparison_section([read_run(ClusterSearch, place) for place in places])
    (settings,) = (table for table in section.tables if table.title.startswith("Settings"))
    assert settings.columns == ["run", "cluster.actors", "cluster.actors.min", "cluster.actors.max"]
    assert settings.rows == [["1", "2", "", ""], ["2", "", "1", "4"]]


def test_several_runs_are_compared_by_what_they_reached(shown: Shown) -> None:
    places = [run(Path("first")), run(Path("second"), ensemble={"mode": "none"})]
    text = shown(*places)
    assert text.startswith("loss on validation; manual, tuned and ensemble: accuracy on test")
    assert re.search(r"run +loss +manual +tuned +ensemble +prompts +time", text)
    for row, place in zip(rows(text, *places), places, strict=True):
        values = json.loads(shown(place, as_json=True))
        tests = [f"{100 * one['test']:.1f}%" for one in values["accuracy"].values()]
        assert row.split()[1:][:1] == [f"{values['best']['validation_loss']:.3f}"]
        assert re.findall(r"\S+%", row) == tests
    assert [len(re.findall(r"\S+%", row)) for row in rows(text, *places)] == [3, 2]


def test_runs_that_chose_by_different_measures_are_compared_by_accuracy(shown: Shown) -> None:
    places = [run(Path("first")), run(Path("second"), search={"selection": "macro-f1"})]
    text = shown(*places)
    assert re.search(r"run +accuracy +manual", text)
    assert all(re.search(r"(first|second) +\d+\.\d%", row) for row in rows(text, *places))


def test_a_seed_of_its_own_is_not_hidden(shown: Shown) -> None:
    places = [run(Path("first")), run(Path("second"), ensemble={"seed": 5})]
    assert "ensemble.seed=5" in shown(*places)


def test_json_is_one_object_a_run_with_everything_in_it(shown: Shown) -> None:
    places = [run(Path("first")), run(Path("second"), stop_after=2)]
    first, second = map(json.loads, shown(*places, as_json=True).splitlines())
    assert (first["run_dir"], second["run_dir"]) == ("first", "second")
    assert (first["finished"], second["finished"]) == (True, False)
    assert first["stopped"] == "the budget of 12 prompts is spent"
    assert (first["prompts"], second["prompts"]) == (12, 8)
    assert [one["generation"] for one in second["generations"]] == [0, 1]
    assert first["config"]["search"]["budget"] == 12
    assert first["model"]["sha256"] == "0" * 64
    losses = [one["validation_loss"] for one in first["generations"]]
    assert first["best"]["validation_loss"] == min(losses)
    assert set(first["accuracy"]) == {MANUAL, TUNED, ENSEMBLE}
    assert second["accuracy"] is second["cost"] is None


def test_json_of_a_run_without_a_generation_has_no_best(shown: Shown) -> None:
    place = run(Path("run"), stop_after=1)
    Path(place, "journal", "000000.arrow").unlink()
    assert json.loads(shown(place, as_json=True))["best"] is None


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        '{"cost": 3}',
        '{"cost": {}, "accuracy": {}, "stopped": ""}',
        '{"cost": COST, "accuracy": {}, "stopped": ""}',
        '{"cost": COST, "accuracy": {"manual prompt": {"train": "x"}}, "stopped": ""}',
        "[]",
        "{",
    ],
)
def test_a_result_that_is_none_is_refused_in_a_sentence(content: str, shown: Shown) -> None:
    place = run(Path("run"))
    file = Path(place, "result.json")
    cost = json.dumps(json.loads(file.read_text(encoding="utf-8"))["cost"])
    file.write_text(content.replace("COST", cost), encoding="utf-8")
    with pytest.raises(RunError, match=r"^run/result\.json is ") as caught:
        shown(place)
    assert "\n" not in str(caught.value)


def test_what_is_no_run_is_refused_in_a_sentence(shown: Shown) -> None:
    Path("empty").mkdir()
    with pytest.raises(RunError, match="empty is no run directory"):
        shown("empty")
