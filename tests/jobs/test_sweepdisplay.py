"""What a sweep shows while it runs: lines for logs, running trials for terminals."""

import re
from typing import Any

import pytest
from terminal import in_terminal

from jobs.manifest import Entry
from jobs.sweepdisplay import LiveSweepDisplay, PlainSweepDisplay, SweepDisplay, choose

pytestmark = pytest.mark.usefixtures("eighty_columns")

ROW: dict[str, Any] = {
    "validation.accuracy": 0.74,
    "accuracy.tuned.test": 0.662,
    "cost.seconds": 41.3,
}
REPORT = {"generation": 3, "generations": 10, "accuracy": 0.5}


def trial(state: str = "waiting", error: str | None = None) -> Entry:
    return Entry("007", {"ensemble.clip_ratio": 0.3}, 1, state, error=error)


def test_a_line_a_trial(capsys: pytest.CaptureFixture[str]) -> None:
    display = PlainSweepDisplay()
    display.began("sweeps/a", 15, 2)
    display.ended(trial("done"), ROW, 3, 15)
    display.ended(trial("stopped"), {"validation.accuracy": 0.5}, 4, 15)
    display.ended(trial("failed", "no actors."), {}, 5, 15)
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "15 trials in sweeps/a, 2 of them ended before. Searching ...",
        "trial 3 of 15 done: clip_ratio=0.3 seed=1  validation 74.0%  test 66.2%  (0:41)",
        "trial 4 of 15 stopped by ASHA: clip_ratio=0.3 seed=1  validation 50.0%",
        "trial 5 of 15 failed: clip_ratio=0.3 seed=1",
    ]
    assert said.err == "cliptune: 007: no actors.\n"


def test_a_terminal_shows_the_trials_that_run() -> None:
    with in_terminal() as terminal:
        display = choose(quiet=False)
        assert isinstance(display, LiveSweepDisplay)
        with display:
            display.reported(trial(), REPORT)
            display.ended(trial("done"), ROW, 1, 2)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert re.search(r"clip_ratio=0\.3 seed=1 +generation 3 of 10 +validation 50\.0%", text)
    assert "trial 1 of 2 done:" in text


def test_json_is_not_mixed_with_anything(capsys: pytest.CaptureFixture[str]) -> None:
    display = choose(quiet=True)
    assert type(display) is SweepDisplay
    display.began("sweeps/a", 1, 0)
    display.ended(trial("done"), ROW, 1, 1)
    assert capsys.readouterr().out == ""
