"""`cliptune scaling`: its tables and its report, bad input, and what is left after Ctrl-C."""

import json
import os
import signal
import uuid
from pathlib import Path

import pytest
from command import SCRIPT, cliptune_here, started
from processes import eventually, with_environment

QUICK = ["--unit-seconds", "0.0001", "--generations", "2"]


def test_it_prints_a_table_and_writes_a_report(one_ray: None, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    ran = cliptune_here("scaling", "--actors", "1", *QUICK, "--json", str(file))
    assert (ran.returncode, ran.stderr) == (0, "")
    report = json.loads(file.read_text(encoding="utf-8"))
    (measured,) = report["measured"]
    assert (measured["actors"], measured["units"]) == (1, 256)
    assert report["modelled"] == []
    assert f"{1e3 * measured['overhead']:,.1f}" in ran.stdout
    assert "modelled" not in ran.stdout


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--actors", "2,many"], "--actors must be numbers"),
        (["--actors", "0,2"], "--actors must be numbers"),
        (["--actors", "2000"], "--actors must be numbers"),
        (["--actors", ""], "--actors must be numbers"),
        (["--unit-seconds", "-1"], "--unit-seconds must be"),
        (["--unit-seconds", "nan"], "--unit-seconds must be"),
        (["--json", "no/such/folder/report.json"], "--json: "),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(words: list[str], part: str) -> None:
    ran = cliptune_here("scaling", *words)
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"cliptune: {part}")
    assert len(ran.stderr.strip().splitlines()) == 1


@pytest.mark.timeout(200)
def test_control_c_leaves_neither_process_nor_file(tmp_path: Path) -> None:
    mark = str(uuid.uuid4())
    with started(
        SCRIPT, "scaling", "--actors", "2", folder=tmp_path, CLIPTUNE_TEST=mark
    ) as process:
        try:
            assert eventually(lambda: actors(mark) >= 2)
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (130, "", "Stopped.\n")
    assert eventually(lambda: with_environment(f"CLIPTUNE_TEST={mark}") == [])
    assert list(tmp_path.iterdir()) == []


def actors(mark: str) -> int:
    """Processes of synthetic actors with that mark."""
    found = 0
    for pid in with_environment(f"CLIPTUNE_TEST={mark}"):
        try:
            found += b"SyntheticActor" in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
    return found
