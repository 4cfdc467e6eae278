"""Faults of the driver and of the run directory, with the real command and actors on a real Ray.

Whatever happens: the journal at the end is that of a search that nothing happened to, or one
sentence says why there is none, and everything until then is kept.
"""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import failing_actors
import faulty_driver
import pytest
import ray
import tiny
import yaml
from clusters import one_machine
from command import cliptune_here, started
from processes import alive, eventually, with_environment
from runs import journal_bytes, tree_bytes

from cliptune.config import Config, merge, validate
from cliptune.journal import MICRO_BATCH
from cliptune.local import LocalScorer
from cliptune.loop import search
from cliptune.synthetic import SyntheticScorer
from cliptune.task import load_task
from cluster.pool import ActorPool

pytestmark = pytest.mark.timeout(250, method="thread")

FILES = [f"{number:06d}.arrow" for number in range(3)]
ONE_ACTOR = "cluster.actors=1"


@pytest.fixture(scope="module", autouse=True)
def address(home: Path) -> Iterator[str]:
    """A Ray that outlives its drivers: what one of them leaves behind would be seen."""
    with one_machine(cpus=2):
        yield ray.get_runtime_context().gcs_address


@pytest.fixture(scope="module")
def tree(model_dir: Path, task_dir: Path) -> dict[str, Any]:
    """Of three generations, with several units for each of two actors."""
    return tiny.tree(model_dir, task_dir, model={"micro_batch": 4}, cluster={"start_timeout": 100})


@pytest.fixture(scope="module")
def undisturbed(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a search that nothing happened to, in one process."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    config = settings(tree, run)
    search(config, SyntheticScorer(config, load_task(config.task)))
    return run


@pytest.fixture
def folder(tree: dict[str, Any], tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path


def settings(tree: dict[str, Any], run: Path, **sections: Any) -> Config:
    plain = {key: section for key, section in tree.items() if key != "cluster"}
    return validate(Config, merge({**plain, "run_dir": str(run)}, sections))


@contextmanager
def driver(*words: str, folder: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """`cliptune search` in a process of its own, whose actors need no model."""
    with started(
        sys.executable,
        faulty_driver.__file__,
        "search",
        *words,
        folder=folder,
        **{faulty_driver.ACTOR: "TellsItsPid", **more},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(*words: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    with driver(*words, folder=folder, **more) as process:
        out, err = process.communicate(timeout=200)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def here(
    *words: str, folder: Path, actor: type = failing_actors.TellsItsPid
) -> subprocess.CompletedProcess[str]:
    """`cliptune search` in this process, with actors of its own."""
    pool = partial(ActorPool, actor=actor)
    with (
        chdir(folder),
        patch("cluster.session.ActorPool", pool),
        patch("cluster.fleet.SILENT", 300.0),  # a busy machine may be slow to place actors
    ):
        return cliptune_here("search", *words, "--quiet")


def gone_on(folder: Path, actor: type = failing_actors.TellsItsPid) -> dict[str, bytes]:
    """The journal after the search was resumed to its end, with two actors."""
    done = here("--resume", f"{folder}/run", "cluster.actors=2", folder=folder, actor=actor)
    assert (done.returncode, done.stderr) == (0, "")
    assert no_actor_is_left(folder)
    return journal_bytes(folder / "run")


def actors(folder: Path) -> list[int]:
    """Process ids of all actors that there ever were."""
    return [int(file.name.partition("-")[2]) for file in folder.glob("actor-*")]


def computes(pid: int) -> bool:
    try:
        return b"Agent" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # ended meanwhile
        return False


def no_actor_is_left(folder: Path) -> bool:
    """Of those that there were."""
    return bool(actors(folder)) and eventually(lambda: not any(map(alive, actors(folder))))


def refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """One line on stderr, in which these parts stand one after the other; none on stdout."""
    assert done.returncode not in (0, None), done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("cliptune: ")
    for part in parts:
        assert part in line, f"{part!r} is not, or not in its place, in {line!r}"
        line = line.partition(part)[2]


# The driver is killed


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("when", "kept"), [("before", 0), ("after", 1)])
def test_a_driver_killed_beside_a_rename_leaves_no_actor_and_is_resumed_to_the_same_journal(
    when: str, kept: int, name: str, folder: Path, address: str, undisturbed: Path
) -> None:
    fault = {faulty_driver.FAULT: f"{when} {name}", "RAY_ADDRESS": address}
    done = ended("tiny.yaml", f"run_dir={folder}/run", "cluster.actors=2", folder=folder, **fault)
    assert done.returncode == -signal.SIGKILL
    assert len(actors(folder)) == 2
    assert no_actor_is_left(folder)
    begun = sorted(file.name for file in (folder / "run" / "journal").glob("*.arrow"))
    assert begun == FILES[: FILES.index(name) + kept]
    assert gone_on(folder) == journal_bytes(undisturbed)


@pytest.mark.slow
def test_a_driver_killed_with_its_own_ray_leaves_no_process_that_computes(
    folder: Path, undisturbed: Path
) -> None:
    """Two small agents of Ray's try for a minute to report to what is gone, and then go, too."""
    mark = {"CLIPTUNE_TEST": str(folder)}
    fault = {faulty_driver.FAULT: f"before {FILES[1]}"}
    done = ended("tiny.yaml", f"run_dir={folder}/run", ONE_ACTOR, folder=folder, **fault, **mark)
    assert done.returncode == -signal.SIGKILL
    assert eventually(lambda: not any(map(computes, with_environment(f"CLIPTUNE_TEST={folder}"))))
    assert no_actor_is_left(folder)
    assert gone_on(folder) == journal_bytes(undisturbed)


# The driver is stopped


def test_a_search_that_waits_for_room_is_stopped(
    folder: Path, address: str, undisturbed: Path
) -> None:
    taken = ray.remote(num_cpus=1)(failing_actors.Synthetic).remote()  # type: ignore[attr-defined]
    ray.get(taken.hello.remote())
    words = "tiny.yaml", f"run_dir={folder}/run", "cluster.actors=2"
    more = {faulty_driver.SILENT: "0.5", "RAY_ADDRESS": address}
    with driver(*words, folder=folder, **more) as process:
        assert process.stderr is not None
        assert " of at least 2 actors have a place" in process.stderr.readline()
        assert eventually(lambda: len(actors(folder)) == 1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err.splitlines()) == (
        130,
        [f"Stopped. Go on with it: cliptune search --resume {folder}/run"],
    )
    assert no_actor_is_left(folder)
    ray.kill(taken)
    assert gone_on(folder) == journal_bytes(undisturbed)


@pytest.mark.slow
def test_a_search_that_waits_for_an_actor_in_the_place_of_a_dead_one_is_stopped(
    folder: Path, address: str, undisturbed: Path
) -> None:
    kind = {faulty_driver.ACTOR: "NeverComesBack", "RAY_ADDRESS": address}
    with driver("tiny.yaml", f"run_dir={folder}/run", ONE_ACTOR, folder=folder, **kind) as process:
        assert eventually((folder / "loading").exists)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    died, stopped = err.splitlines()
    assert "died: it is replaced." in died
    assert stopped == f"Stopped. Go on with it: cliptune search --resume {folder}/run"
    assert len(actors(folder)) == 2
    assert no_actor_is_left(folder)
    assert gone_on(folder) == journal_bytes(undisturbed)


# The journal is damaged


def flipped(content: bytes) -> bytes:
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(flipped, id="a bit turned"),
        pytest.param(lambda content: content[:-1], id="cut off", marks=pytest.mark.slow),
        pytest.param(lambda content: b"", id="empty", marks=pytest.mark.slow),
    ],
)
def test_a_damaged_last_file_of_the_journal_is_set_aside_and_searched_again(
    damage: Callable[[bytes], bytes], folder: Path, undisturbed: Path
) -> None:
    shutil.copytree(undisturbed, folder / "run")
    last = folder / "run" / "journal" / FILES[-1]
    last.write_bytes(damage(last.read_bytes()))
    done = here("--resume", f"{folder}/run", "cluster.actors=2", folder=folder)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    aside = f"{folder}/run/journal/{FILES[-1]}.damaged"
    assert line == (
        f"cliptune: The journal's last file was damaged, is now {aside}, and is searched again."
    )
    assert Path(aside).exists()
    assert journal_bytes(folder / "run") == journal_bytes(undisturbed)


# The disk is full


@pytest.mark.slow
def test_a_full_disk_ends_the_search_and_where_there_is_room_again_it_goes_on(
    folder: Path, undisturbed: Path
) -> None:
    """What the kernel says is real: the second file is to be written on /dev/full."""
    run = folder / "run"
    assert (
        here(
            "tiny.yaml", f"run_dir={folder}/run", "search.budget=4", ONE_ACTOR, folder=folder
        ).stderr
        == ""
    )
    (run / "journal" / f"{FILES[1]}.tmp").symlink_to("/dev/full")
    done = here("--resume", f"{folder}/run", "search.budget=12", "cluster.actors=2", folder=folder)
    refused(
        done, f"{FILES[1]} cannot be written: No space left on device.", "make room", "--resume"
    )
    assert journal_bytes(run) == {FILES[0]: journal_bytes(undisturbed)[FILES[0]]}
    assert no_actor_is_left(folder)
    assert gone_on(folder) == journal_bytes(undisturbed)


# Two at a time


@pytest.mark.slow
def test_a_second_driver_is_refused_and_the_first_goes_on_unharmed(
    folder: Path, address: str, undisturbed: Path
) -> None:
    stands = {faulty_driver.FAULT: f"stands {FILES[1]}", "RAY_ADDRESS": address}
    with driver(
        "tiny.yaml", f"run_dir={folder}/run", ONE_ACTOR, "-q", folder=folder, **stands
    ) as process:
        assert eventually((folder / "stands").exists)
        before = tree_bytes(folder / "run")
        for words in (("--resume", f"{folder}/run"), ("tiny.yaml", f"run_dir={folder}/run")):
            done = ended(*words, ONE_ACTOR, folder=folder, RAY_ADDRESS=address)
            refused(done, "run is being written by another search", "choose another run_dir")
        assert tree_bytes(folder / "run") == before
        (folder / "go on").touch()
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert journal_bytes(folder / "run") == journal_bytes(undisturbed)


# Another search


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("ensemble.clip_ratio=0.2", "ensemble.clip_ratio is 0.2, the run's is 0.3"),
        ("model.micro_batch=8", "model.micro_batch is 8, the run's is 4"),
        ("task.seed=1", "task.seed is 1, the run's is 0"),
        ("search.budget=8", "would have ended after 2 generations"),
    ],
)
def test_a_resume_with_another_config_is_refused_and_nothing_is_touched(
    word: str, part: str, folder: Path, undisturbed: Path
) -> None:
    shutil.copytree(undisturbed, folder / "run")
    before = tree_bytes(folder / "run")
    done = here("--resume", f"{folder}/run", word, "cluster.actors={min: 1, max: 2}", folder=folder)
    refused(done, part)
    assert tree_bytes(folder / "run") == before
    assert actors(folder) == []


def test_a_resume_with_other_examples_is_refused_and_nothing_is_touched(
    folder: Path, task_dir: Path, undisturbed: Path
) -> None:
    shutil.copytree(undisturbed, folder / "run")
    before = tree_bytes(folder / "run")
    shutil.copytree(task_dir, folder / "other")
    file = folder / "other" / "validation.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace("good", "great"), encoding="utf-8")
    done = here("--resume", f"{folder}/run", "task.data=other", ONE_ACTOR, folder=folder)
    refused(done, "task.data has other validation examples than the run", "start a new run")
    assert tree_bytes(folder / "run") == before
    assert actors(folder) == []


@pytest.mark.slow
def test_a_resume_with_another_model_is_refused_and_nothing_is_touched(
    folder: Path, model_dir: Path
) -> None:
    real = failing_actors.ScoringActor
    done = here("tiny.yaml", f"run_dir={folder}/run", ONE_ACTOR, folder=folder, actor=real)
    assert (done.returncode, done.stderr) == (0, "")
    before = tree_bytes(folder / "run")
    tiny.save_model(folder / "weights", seed=1)
    shutil.copytree(model_dir, folder / "settings")
    file = folder / "settings" / "config.json"
    file.write_text(file.read_text().replace('"layer_norm_eps": 1e-12', '"layer_norm_eps": 1e-5'))
    for name, part in (
        ("weights", "model.name has other weights than the run's model"),
        ("settings", "model.name has the run's weights, but another config.json"),
    ):
        words = "--resume", f"{folder}/run", f"model.name={name}", "search.budget=16", ONE_ACTOR
        refused(here(*words, folder=folder, actor=real), part, "start a new run")
        assert tree_bytes(folder / "run") == before
    moved = shutil.copytree(model_dir, folder / "moved")
    done = here(
        "--resume", f"{folder}/run", f"model.name={moved}", ONE_ACTOR, folder=folder, actor=real
    )
    assert (done.returncode, done.stderr) == (0, "")


# Memory runs out


class Narrow(LocalScorer):
    """Has micro-batches of two rows from the second generation on; no memory runs out."""

    def score(self, latents: Any, generation: int = 0) -> Any:
        self.micro_batch = 2 if generation else self.micro_batch
        return super().score(latents, generation)


@pytest.mark.slow
def test_memory_that_runs_out_later_gives_the_journal_of_a_search_with_less_from_there_on(
    folder: Path, tree: dict[str, Any]
) -> None:
    dynamic = merge(tree, {"ensemble": {"mode": "dynamic"}, "model": {"micro_batch": 8}})
    (folder / "tiny.yaml").write_text(yaml.safe_dump(dynamic))
    config = settings(dynamic, folder / "narrow")
    search(config, Narrow(config, load_task(config.task)))
    narrow = journal_bytes(folder / "narrow")
    assert [MICRO_BATCH in content for content in narrow.values()] == [False, True, True]

    short = failing_actors.RunsShortLater
    words = "tiny.yaml", f"run_dir={folder}/run", "cluster.actors=2"
    done = here(*words, folder=folder, actor=short)
    (warning,) = done.stderr.splitlines()
    assert warning == "cliptune: Memory ran out: micro-batches have 2 rows from generation 2 on."
    assert done.returncode == 0
    assert journal_bytes(folder / "run") == narrow

    (folder / "run" / "journal" / FILES[-1]).unlink()
    assert gone_on(folder, short) == narrow  # and it did not have to run out again
