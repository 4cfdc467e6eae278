"""Searches that are stopped, killed and gone on with, as a person or a cluster does it."""

import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
import tiny
import yaml
from clusters import one_machine
from command import SCRIPT, cliptune_here, environment, started
from no_ray import without_ray
from processes import eventually, with_environment
from scorer_contract import journal_bytes

BUDGET = "search.budget=48"
ENDLESS = "search.budget=4000000"


@pytest.fixture(scope="module")
def folder(model_dir: Path, task_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny.tree(model_dir, task_dir)))
    return folder


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    """A Ray that is there already, for searches that need not start one."""
    with one_machine(cpus=2):
        yield ray.get_runtime_context().gcs_address


@pytest.fixture(scope="module")
def uninterrupted(folder: Path) -> dict[str, bytes]:
    """The journal of a search that nothing happened to."""
    return finished("tiny.yaml", BUDGET, "run_dir=whole", folder=folder, run="whole")


@contextmanager
def running(*words: str, folder: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A search in a process group of its own, as a terminal starts it."""
    with started(
        SCRIPT, "search", *words, "--json", "cluster.actors=1", folder=folder, **more
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def await_generations(process: subprocess.Popen[str], count: int) -> None:
    assert process.stdout is not None
    for _ in range(count):
        line = process.stdout.readline()
        assert line.startswith('{"generation": '), line or process.communicate(timeout=60)


def finished(*words: str, folder: Path, run: str) -> dict[str, bytes]:
    """The journal of a search at its end, scored in this process: to the same bytes."""
    with chdir(folder), without_ray():
        done = cliptune_here("search", *words, "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    return journal_bytes(folder / run)


def python(code: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A program to its end."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=100,
    )


def resumed(run: str, folder: Path, budget: str = BUDGET) -> dict[str, bytes]:
    """The journal after the search was gone on with to its end."""
    return finished("--resume", run, budget, folder=folder, run=run)


def test_control_c_then_sigterm_then_sigkill_and_the_journal_is_as_if_nothing_had_happened(
    folder: Path, address: str
) -> None:
    mark = str(uuid.uuid4())
    with running("tiny.yaml", ENDLESS, "run_dir=hit", folder=folder, CLIPTUNE_TEST=mark) as process:
        await_generations(process, 2)
        with chdir(folder):
            second = cliptune_here("search", "--resume", "hit", "--quiet")
        assert second.returncode == 2
        assert second.stderr.startswith("cliptune: hit is being written by another search")
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "cliptune search --resume hit" in err
    assert "Traceback" not in err
    assert eventually(lambda: with_environment(f"CLIPTUNE_TEST={mark}") == [])

    after = len(journal_bytes(folder / "hit"))
    with running("--resume", "hit", folder=folder, RAY_ADDRESS=address) as process:
        await_generations(process, 2)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "cliptune search --resume hit" in err
    assert len(journal_bytes(folder / "hit")) >= after + 2

    with running("--resume", "hit", folder=folder, RAY_ADDRESS=address) as process:
        await_generations(process, 1)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    budget = f"search.budget={4 * len(journal_bytes(folder / 'hit')) + 8}"
    whole = finished("tiny.yaml", budget, "run_dir=calm", folder=folder, run="calm")
    assert resumed("hit", folder, budget) == whole


def test_a_search_that_waits_for_its_actors_is_stopped_as_well(folder: Path, address: str) -> None:
    """In a generation that takes far longer than the wait for its end."""
    long = ["search.population=9999", ENDLESS, "run_dir=waiting"]
    with running("tiny.yaml", *long, folder=folder, RAY_ADDRESS=address) as process:
        assert eventually((folder / "waiting" / "origin.json").exists)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=100)
    assert (process.returncode, out) == (143, "")
    assert err.startswith("Stopped")
    assert "cliptune search --resume waiting" in err


def test_a_search_that_is_stopped_while_ray_starts_can_be_resumed(
    folder: Path, uninterrupted: dict[str, bytes]
) -> None:
    """The handler ends the process there and then: Ray's start does not survive an exception."""
    code = """
import os, signal, sys
import ray
def stopped(**settings):
    os.kill(os.getpid(), signal.SIGINT)
    sys.exit("Ctrl-C had no effect")
ray.init = stopped
from jobs.cli import run
sys.argv = ["cliptune", "search", "tiny.yaml", "run_dir=early"]
run()
"""
    done = python(code, folder)
    assert (done.returncode, done.stderr) == (130, "")
    assert resumed("early", folder) == uninterrupted


def test_a_stop_that_a_library_swallows_is_asked_for_again(folder: Path, address: str) -> None:
    """An `except:` around an import, for instance, while the search was being prepared."""
    code = f"""
import os, signal, sys
from cliptune import loop
from jobs.cli import run
made = loop.make_strategy
def swallowing(config, task):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except:
        return made(config, task)
loop.make_strategy = swallowing
sys.argv = ["cliptune", "search", "tiny.yaml", "{ENDLESS}", "run_dir=swallowed", "--json"]
run()
"""
    done = python(code, folder, RAY_ADDRESS=address)
    assert (done.returncode, done.stdout) == (130, "")
    assert "cliptune search --resume swallowed" in done.stderr


def test_a_second_signal_does_not_wait(folder: Path) -> None:
    code = """
import os, signal, time
from jobs.signals import stopping
with stopping(lambda: False):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    except KeyboardInterrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=50, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (143, "")


def test_signals_are_as_before_afterwards() -> None:
    from jobs.signals import stopping

    before: list[Any] = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with stopping(lambda: False):
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_search_killed_at_random_moments_ends_with_the_same_journal(
    seed: int, folder: Path, uninterrupted: dict[str, bytes]
) -> None:
    """However often, and wherever that is: loading, scoring, writing, replaying, evaluating."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    run = f"random-{seed}"
    first = ["tiny.yaml", BUDGET, f"run_dir={run}"]
    for _ in range(4):
        words = ["--resume", run] if (folder / run / "config.yaml").is_file() else first
        with running(*words, folder=folder) as process:
            try:
                process.communicate(timeout=draw.uniform(2, 12))
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
    assert resumed(run, folder) == uninterrupted


def test_a_command_whose_reader_is_gone_ends_as_it_would_have() -> None:
    code = """
import os, sys
from jobs.signals import leave
reading, writing = os.pipe()
os.dup2(writing, 1)
os.close(writing)
os.close(reading)
print("nobody hears this")
leave(130)
"""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, timeout=50, stderr=subprocess.PIPE, env=buffered)
    assert (done.returncode, done.stderr) == (130, b"")
