"""The section of a run: whatever state it is in, and why a picture is missing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import records
from overlaps import faults
from records import GENERATIONS, record, result

from cliptune.config import Config
from cliptune.record import read_run
from cliptune.report.look import LIGHT
from cliptune.report.parts import Section
from cliptune.report.runs import run_section

SEARCH = ["fitness", "validation", "rewards", "correlation", "step-size", "speed", "time"]
END = ["confusion-tuned", "confusion-manual", "tokens"]


def names(section: Section) -> list[str]:
    return [picture.name for picture in section.pictures]


def missing(section: Section) -> dict[str, str]:
    return {absent.title: absent.why for absent in section.absent}


def captions(section: Section) -> dict[str, str]:
    return {picture.name: picture.caption for picture in section.pictures}


def test_a_finished_run_has_all_pictures_and_nothing_overlaps_in_them(tmp_path: Path) -> None:
    found = run_section(records.searched(tmp_path / "a run"))
    assert names(found) == SEARCH + END
    assert found.absent == []
    for picture in found.pictures:
        with LIGHT.style():
            assert faults(picture.draw(LIGHT)) == [], picture.name
    assert [table.title for table in found.tables] == ["Accuracy"]
    assert [step.command for step in found.steps] == [
        f"cliptune search --resume '{tmp_path}/a run' search.budget=24",
        f"cliptune evaluate '{tmp_path}/a run' --data PATH",
        f"{tmp_path}/a run/prompt.safetensors",
    ]


def test_the_table_is_that_of_the_result_with_the_gain() -> None:
    (table,) = run_section(record(result=result())).tables
    assert table.columns == ["", "train", "validation", "test", "gain on test"]
    assert table.rows == [
        ["manual prompt", "50.0%", "50.0%", "50.0%", ""],
        ["tuned prompt", "75.0%", "75.0%", "75.0%", "+25.0"],
    ]


def test_an_unfinished_run_is_shown_as_far_as_it_is() -> None:
    found = run_section(record())
    assert names(found) == SEARCH
    assert found.facts["state"] == "unfinished: 9 of 30 prompts in 3 generations"
    assert found.tables == []
    assert set(missing(found).values()) == {
        "it is written down when a search ends, and this one has not"
    }
    assert [step.command for step in found.steps] == ["cliptune search --resume runs/handmade"]


def test_a_run_that_goes_on_after_its_end_shows_that_end_as_what_it_is(tmp_path: Path) -> None:
    ended = records.searched(tmp_path)
    extended = replace(ended, generations=[*ended.generations, ended.generations[-1]])
    found = run_section(extended)
    assert found.facts["state"].endswith("the table is of an earlier end")
    assert captions(found)["confusion-tuned"].endswith(" Of the search's earlier end.")


def test_a_run_of_an_older_cliptune_says_why_pictures_are_missing(tmp_path: Path) -> None:
    records.searched(tmp_path)
    records.without(tmp_path, "result.json", "test_confusion")
    records.without(tmp_path, "prompt.json", "nearest")
    found = run_section(read_run(Config, str(tmp_path)))
    assert names(found) == SEARCH
    assert {why.partition(";")[0] for why in missing(found).values()} == {
        "the run was written before this was kept"
    }


def test_a_run_without_telemetry_says_so() -> None:
    found = run_section(record(telemetry=[], result=result()))
    assert names(found) == SEARCH[:5]
    assert missing(found)["Prompts a second, and where the time went"] == "there is no telemetry"


def test_a_run_without_a_generation_says_so() -> None:
    found = run_section(record(generations=[], telemetry=[]))
    assert found.pictures == []
    assert missing(found)["All pictures of the search"].startswith("not one generation")


def test_one_network_alone_has_nothing_to_compare() -> None:
    alone = [replace(one, rewards=one.rewards[:, :1]) for one in GENERATIONS]
    found = run_section(record(generations=alone, sections={"ensemble": {"mode": "none"}}))
    assert names(found) == ["fitness", "validation", "step-size", "speed", "time"]
    why = missing(found)["Spread of rewards over subnetworks, and their correlation"]
    assert why == "there is one network only: nothing to compare"


def test_subnetworks_that_change_have_no_correlation_pair_by_pair() -> None:
    sections: dict[str, Any] = {"ensemble": {"mode": "dynamic", "subnetworks": 2}}
    found = run_section(record(sections=sections))
    assert "correlation" not in names(found)
    assert "within a generation" in missing(found)["Correlation between subnetworks, pair by pair"]


def test_a_model_without_a_vocabulary_has_no_nearest_tokens(tmp_path: Path) -> None:
    records.searched(tmp_path)
    (tmp_path / "prompt.json").write_text('{"nearest": []}', encoding="utf-8")
    found = run_section(read_run(Config, str(tmp_path)))
    assert missing(found) == {
        "Nearest vocabulary token to each prompt vector": "the model has no vocabulary"
    }


def test_captions_hold_the_numbers() -> None:
    found = captions(run_section(record(result=result())))
    assert found["speed"] == "On 1 to 2 actors; 3 units had to be given out again."
    assert "all 9 candidates" in found["correlation"]


@pytest.mark.parametrize("generations", [1, 3])
def test_the_search_is_there_as_a_table_too(generations: int) -> None:
    found = run_section(record(generations=GENERATIONS[:generations]))
    table = found.pictures[0].table
    assert table is not None
    assert len(table.rows) == generations
    assert table.rows[0] == ["3", "-2", "-2.833", "0.5", "50.0%", "50.0%", "1"]
