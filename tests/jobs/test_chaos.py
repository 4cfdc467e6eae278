"""The chaos run: what is drawn, what is compared, and one that is small."""

import json
import random
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import tiny
import yaml
from command import SCRIPT, cliptune_here, environment
from processes import with_environment

from cliptune.errors import RunError
from jobs.chaos import differences
from jobs.disturbance import Kind, cut, schedule
from jobs.sessions import Sessions


def test_the_same_seed_draws_the_same_faults_and_another_one_others() -> None:
    assert schedule(3, 100, 200) == schedule(3, 100, 200)
    assert schedule(3, 100, 200) != schedule(4, 100, 200)


@pytest.mark.parametrize("faults", [len(Kind), 12, 100])
@pytest.mark.parametrize("seed", range(5))
def test_every_kind_of_fault_occurs(seed: int, faults: int) -> None:
    drawn = Counter(fault.kind for fault in schedule(seed, faults, 200))
    assert drawn.total() == faults
    assert set(drawn) == set(Kind)


def test_few_faults_are_of_different_kinds() -> None:
    assert len({fault.kind for fault in schedule(0, 4, 20)}) == 4


@pytest.mark.parametrize(("faults", "generations"), [(1, 3), (6, 12), (100, 200), (500, 50)])
def test_faults_are_spread_over_the_search_after_its_first_generation_and_before_its_last(
    faults: int, generations: int
) -> None:
    points = [fault.point for fault in schedule(0, faults, generations)]
    assert points == sorted(points)
    assert points[0] >= 1
    assert points[-1] <= generations - 1
    middle = sum(point < generations / 2 for point in points)
    assert abs(middle - faults / 2) <= 1 + faults / generations


def journal(run: Path, **files: bytes) -> Path:
    (run / "journal").mkdir(parents=True)
    for name, content in files.items():
        (run / "journal" / f"{name}.arrow").write_bytes(content)
    return run


def test_equal_journals_have_no_differences_whatever_was_set_aside(tmp_path: Path) -> None:
    calm = journal(tmp_path / "calm", a=b"1", b=b"2")
    other = journal(tmp_path / "other", a=b"1", b=b"2")
    (other / "journal" / "b.arrow.damaged").write_bytes(b"")
    (other / "journal" / "c.arrow.tmp").write_bytes(b"")
    assert differences(calm, other) == []


def test_a_byte_that_differs_and_a_file_too_few_or_too_many_are_named(tmp_path: Path) -> None:
    calm = journal(tmp_path / "calm", a=b"same", b=b"one byte", c=b"")
    other = journal(tmp_path / "other", a=b"same", b=b"one bite", d=b"")
    assert differences(calm, other) == [
        "b.arrow differs",
        "c.arrow is missing",
        "d.arrow is one too many",
    ]


def test_a_run_without_a_journal_equals_nothing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has no journal"):
        differences(tmp_path, tmp_path)


def test_the_end_of_the_last_file_is_cut_off_and_of_no_other(tmp_path: Path) -> None:
    run = journal(tmp_path, a=b"0123456789", b=b"0123456789")
    what = cut(run, random.Random(0))  # noqa: S311 - no secret
    left = (run / "journal" / "b.arrow").read_bytes()
    assert what == f", b.arrow cut from 10 to {len(left)} bytes"
    assert len(left) < 10
    assert b"0123456789".startswith(left)
    assert (run / "journal" / "a.arrow").read_bytes() == b"0123456789"


def test_before_its_first_generation_a_journal_is_not_cut(tmp_path: Path) -> None:
    assert cut(tmp_path, random.Random(0)) == ""  # noqa: S311 - no secret


def test_the_generations_of_a_search_are_counted_from_outside(tmp_path: Path) -> None:
    sessions = Sessions([], tmp_path / "run", {})
    assert sessions.generations == 0
    journal(tmp_path / "run", a=b"", b=b"")
    (tmp_path / "run" / "journal" / "c.arrow.tmp").touch()
    assert sessions.generations == 2
    assert not sessions.running
    assert sessions.ended() is None


def test_the_last_words_of_a_search_are_its_last_line(tmp_path: Path) -> None:
    sessions = Sessions([], tmp_path / "run", {})
    assert sessions.last_words() == "nothing"
    (tmp_path / "run.log").write_text("one\ncliptune: two.\n\n")
    assert sessions.last_words() == "cliptune: two."


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--faults", "0"], "--faults must be at least 1; found 0."),
        (["--generations", "2"], "--generations must be at least 3; found 2."),
        (["--nodes", "0"], "--nodes must be at least 1; found 0."),
        (["search.populaton=4"], "search.populaton"),
        (["nothing.yaml"], "nothing.yaml cannot be read"),
        (["--json", "no/such/folder.json"], "--json: no/such/folder.json cannot be written"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_is_started(words: list[str], says: str) -> None:
    done = cliptune_here("chaos", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1200, method="thread")
def test_a_search_to_which_everything_happens_has_the_journal_of_a_calm_one(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    settings = tiny.tree(model_dir, task_dir)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings))
    options = ["--generations", "12", "--faults", "6", "--json", "report.json"]
    done = subprocess.run(
        [SCRIPT, "chaos", "tiny.yaml", *options],
        cwd=tmp_path,
        env=environment(CLIPTUNE_TEST=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=1100,
    )
    assert done.stderr == ""
    assert done.stdout.endswith("\nThe journals are equal, byte for byte.\n")
    assert done.returncode == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["equal"], report["generations"]) == (True, 12)
    assert sum(report["faults"].values()) == 6
    assert with_environment(f"CLIPTUNE_TEST={tmp_path}") == []
