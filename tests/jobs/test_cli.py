"""The installed command, from outside: what it prints, leaves behind and exits with."""

import json
import re
import socket
import subprocess
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from command import SCRIPT, cliptune, cliptune_here, started
from no_ray import without_ray
from scorer_contract import journal_bytes

from cliptune.evaluation import CALIBRATED, ENSEMBLE, MANUAL, TUNED


@pytest.fixture(scope="module")
def folder(model_dir: Path, task_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the user stands: a search that takes no time, and modules of the user's own."""
    folder = tmp_path_factory.mktemp("user")
    tree = tiny.tree(model_dir, task_dir, search={"calibrate": True})
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    (folder / "model").symlink_to(model_dir)
    for name in ("cluster", "jobs", "cliptune"):
        (folder / f"{name}.py").write_text("raise ImportError('the user has one, too')\n")
    return folder


@pytest.fixture(scope="module")
def finished(folder: Path) -> subprocess.CompletedProcess[str]:
    """A search from its start to the table."""
    return cliptune("search", "tiny.yaml", folder=folder)


@pytest.fixture(scope="module")
def run_dir(folder: Path, finished: subprocess.CompletedProcess[str]) -> Path:
    (run,) = (folder / "runs").iterdir()
    return run


def test_a_search_succeeds_whatever_else_lies_in_the_folder(
    finished: subprocess.CompletedProcess[str],
) -> None:
    assert (finished.returncode, finished.stderr) == (0, "")


def test_a_search_says_where_it_stands_and_ends_with_the_table(
    finished: subprocess.CompletedProcess[str], run_dir: Path, folder: Path
) -> None:
    text = finished.stdout
    for number in (1, 2, 3):
        assert f"generation {number} of 3  " in text
    names = re.findall(r"^│ (\S.*?) +│", text, flags=re.MULTILINE)
    assert names == [MANUAL, CALIBRATED, TUNED, ENSEMBLE]
    assert text.splitlines()[-1] == f"written to {run_dir.relative_to(folder)}"


def test_the_run_directory_is_complete(run_dir: Path) -> None:
    assert re.fullmatch(r"tiny-\d{8}-\d{6}", run_dir.name)
    found = {str(path.relative_to(run_dir)) for path in run_dir.rglob("*") if path.is_file()}
    assert found == {
        "config.yaml",
        "origin.json",
        "result.json",
        "prompt.safetensors",
        "prompt.json",
        *(f"{part}/00000{i}.arrow" for part in ("journal", "telemetry") for i in range(3)),
    }


def valid_json(line: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    value = json.loads(line, parse_constant=refuse)
    assert isinstance(value, dict)
    return value


def is_json_of(run: Path, output: str) -> None:
    """A line a generation, each of one worker, and the result: nothing else."""
    *generations, result = map(valid_json, output.splitlines())
    assert [one["generation"] for one in generations] == [0, 1, 2]
    assert all(one["workers"] == 1 for one in generations)
    assert result == json.loads((run / "result.json").read_text(encoding="utf-8"))


def search_here(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A search without the engine, to its end."""
    with chdir(folder), without_ray():
        done = cliptune_here("search", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done


@pytest.fixture(scope="module")
def again(folder: Path, run_dir: Path) -> subprocess.CompletedProcess[str]:
    """The same search again."""
    words = (str(run_dir / "config.yaml"), "cluster.actors=1", "run_dir=again", "--json")
    return search_here(*words, folder=folder)


def test_json_is_all_of_the_output(again: subprocess.CompletedProcess[str], folder: Path) -> None:
    is_json_of(folder / "again", again.stdout)


@pytest.mark.usefixtures("again")
def test_the_written_config_repeats_the_search_bit_for_bit_without_actors_too(
    folder: Path, run_dir: Path
) -> None:
    assert journal_bytes(folder / "again") == journal_bytes(run_dir)


@pytest.fixture(scope="module")
def quiet(folder: Path) -> subprocess.CompletedProcess[str]:
    """The search with little to read, and its model named by where it lies from here."""
    return search_here("tiny.yaml", "--quiet", "model.name=model", "run_dir=quiet", folder=folder)


def test_quiet_prints_the_result_alone(quiet: subprocess.CompletedProcess[str]) -> None:
    assert quiet.stdout.splitlines()[0].strip() == "accuracy"
    assert "generation 1 of 3" not in quiet.stdout
    assert quiet.stdout.splitlines()[-1] == "written to quiet"


@pytest.mark.usefixtures("quiet")
def test_a_model_can_be_named_by_where_it_lies_from_here(
    folder: Path, run_dir: Path, model_dir: Path
) -> None:
    written = yaml.safe_load((folder / "quiet" / "config.yaml").read_text(encoding="utf-8"))
    assert written["model"]["name"] == str(model_dir.resolve())
    assert journal_bytes(folder / "quiet") == journal_bytes(run_dir)


@pytest.mark.slow
def test_two_searches_at_once_have_a_ray_each_and_say_nothing_but_their_own(
    folder: Path, run_dir: Path
) -> None:
    """One of them fails: an actor finds out that there is no such model."""
    words = {
        "beside": [str(run_dir / "config.yaml")],
        "mistaken": ["tiny.yaml", "model.name=./nothing"],
    }
    running = {
        name: started(
            SCRIPT, "search", *more, "--json", "cluster.actors=1", f"run_dir={name}", folder=folder
        )
        for name, more in words.items()
    }
    said = {name: process.communicate(timeout=200) for name, process in running.items()}
    output, errors = said["beside"]
    assert (running["beside"].returncode, errors) == (0, "")
    is_json_of(folder / "beside", output)
    assert journal_bytes(folder / "beside") == journal_bytes(run_dir)
    output, errors = said["mistaken"]
    assert (running["mistaken"].returncode, output) == (2, "")
    assert errors.startswith("cliptune: model.name: ./nothing cannot be loaded")
    assert len(errors.splitlines()) == 1
    assert not (folder / "mistaken").exists()


BROKEN = {"broken.yaml": "search: [1, 2", "list.yaml": "- 1"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["search.sede=1"], "Unknown setting search.sede (did you mean search.seed?)."),
        (["nothing.yaml"], "nothing.yaml cannot be read: No such file or directory."),
        (["broken.yaml"], "broken.yaml is not YAML: "),
        (["list.yaml"], "list.yaml must hold sections such as task: and search:; found [1]."),
        (["a.yaml", "b.yaml"], "One CONFIG.yaml at most"),
        (["tiny.yaml", "search.budget=1"], "search: budget must hold at least one generation"),
        (["tiny.yaml", "task.data=nowhere"], "task.data: nowhere is no folder or file here ("),
        (["tiny.yaml", "task.k=1000"], "task.k asks for 1000 examples a class, but train has 3"),
        (["tiny.yaml", "run_dir=full"], "run_dir full is not empty."),
    ],
)
def test_a_mistake_is_one_message_on_standard_error(
    words: list[str], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for name, text in BROKEN.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "full").mkdir(exist_ok=True)
    (folder / "full" / "config.yaml").touch()
    done = cliptune_here("search", *words, "--quiet")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"cliptune: {message}")
    assert len(done.stderr.splitlines()) == 1


def test_a_run_directory_with_too_long_a_name_is_a_mistake_like_others(folder: Path) -> None:
    config, run_dir = str(folder / "tiny.yaml"), str(folder / ("long" * 100))
    done = cliptune_here("search", config, f"run_dir={run_dir}", "--quiet")
    assert done.returncode == 2
    assert done.stderr.startswith("cliptune: ")
    assert "Traceback" not in done.stderr


def test_an_option_that_does_not_exist_is_a_mistake_in_use() -> None:
    done = cliptune_here("search", "--jsn")
    assert done.returncode == 2
    assert "--jsn" in done.stderr
    assert "Traceback" not in done.stderr


def closed_port() -> int:
    """A port of this machine where nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_an_address_where_nobody_listens_is_one_message_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray by itself would try for a quarter of an hour."""
    address = f"127.0.0.1:{closed_port()}"
    monkeypatch.chdir(folder)
    words = ("tiny.yaml", f"cluster.address={address}", "run_dir=nobody", "--quiet")
    done = cliptune_here("search", *words)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"cliptune: No connection to Ray at {address}: ")
    assert "cluster.address" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (folder / "nobody").exists()
