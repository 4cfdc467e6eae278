"""The installed command, from outside: what it prints, leaves behind and exits with."""

import json
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from command import SCRIPT, cliptune, cliptune_here, started
from scorer_contract import journal_bytes

import cliptune as package
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


def test_help_says_what_there_is(tmp_path: Path) -> None:
    done = cliptune("--help", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Clip-Tuning" in done.stdout
    assert "search" in done.stdout


def test_help_of_search_shows_how_settings_are_given(tmp_path: Path) -> None:
    done = cliptune("search", "--help", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("CONFIG.yaml", "key=value", "--json", "--quiet"):
        assert word in done.stdout


def test_version_is_the_packages(tmp_path: Path) -> None:
    done = cliptune("--version", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"cliptune {package.__version__}\n")


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


Ended = tuple[int, str, str]  # exit code, output, errors


@pytest.fixture(scope="module")
def at_once(folder: Path, run_dir: Path) -> dict[str, Ended]:
    """The same search again and one that fails, both at a time, on one actor each."""
    words = {
        "again": [str(run_dir / "config.yaml"), "--json"],
        "mistaken": ["tiny.yaml", "--json", "model.name=./nothing"],
    }
    running = {name: start(*more, f"run_dir={name}", folder=folder) for name, more in words.items()}
    outputs = {name: process.communicate(timeout=200) for name, process in running.items()}
    return {name: (running[name].returncode, *output) for name, output in outputs.items()}


def start(*words: str, folder: Path) -> subprocess.Popen[str]:
    return started(SCRIPT, "search", *words, "cluster.actors=1", folder=folder)


def test_json_is_all_of_the_output(at_once: dict[str, Ended], folder: Path) -> None:
    code, output, errors = at_once["again"]
    assert (code, errors) == (0, "")
    *generations, result = map(valid_json, output.splitlines())
    assert [one["generation"] for one in generations] == [0, 1, 2]
    assert all(one["workers"] == 1 for one in generations)
    assert result == json.loads((folder / "again" / "result.json").read_text(encoding="utf-8"))


def test_the_written_config_repeats_the_search_bit_for_bit_on_another_number_of_actors(
    at_once: dict[str, Ended], folder: Path, run_dir: Path
) -> None:
    assert journal_bytes(folder / "again") == journal_bytes(run_dir)


def test_a_model_that_is_not_there_is_one_message_too(
    at_once: dict[str, Ended], folder: Path
) -> None:
    """Though it is an actor that finds out."""
    code, output, errors = at_once["mistaken"]
    assert (code, output) == (2, "")
    assert errors.startswith("cliptune: model.name: ./nothing cannot be loaded")
    assert len(errors.splitlines()) == 1
    assert not (folder / "mistaken").exists()


@pytest.fixture
def quiet(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_ray: None
) -> subprocess.CompletedProcess[str]:
    """The search with little to read, and its model named by where it lies from here."""
    monkeypatch.chdir(folder)
    words = ("tiny.yaml", "--quiet", "model.name=model", f"run_dir={tmp_path / 'quiet'}")
    return cliptune_here("search", *words)


def test_quiet_prints_the_result_alone(
    quiet: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert quiet.stdout.splitlines()[0].strip() == "accuracy"
    assert "generation 1 of 3" not in quiet.stdout
    assert quiet.stdout.splitlines()[-1] == f"written to {tmp_path / 'quiet'}"


def test_a_model_can_be_named_by_where_it_lies_from_here(
    quiet: subprocess.CompletedProcess[str], tmp_path: Path, run_dir: Path, model_dir: Path
) -> None:
    written = yaml.safe_load((tmp_path / "quiet" / "config.yaml").read_text(encoding="utf-8"))
    assert written["model"]["name"] == str(model_dir.resolve())
    assert journal_bytes(tmp_path / "quiet") == journal_bytes(run_dir)


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


def test_an_option_that_does_not_exist_is_a_mistake_in_use(folder: Path) -> None:
    done = cliptune("search", "--jsn", folder=folder)
    assert done.returncode == 2
    assert "--jsn" in done.stderr
    assert "Traceback" not in done.stderr


def closed_port() -> int:
    """A port of this machine where nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_an_address_where_nobody_listens_is_one_message_at_once(folder: Path) -> None:
    """Ray by itself would try for a quarter of an hour."""
    address = f"127.0.0.1:{closed_port()}"
    words = ("tiny.yaml", f"cluster.address={address}", "run_dir=nobody", "--quiet")
    done = cliptune("search", *words, folder=folder)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"cliptune: No connection to Ray at {address}: ")
    assert "cluster.address" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (folder / "nobody").exists()
