"""What of this machine a search needs, and nothing else."""

import json
import shutil
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import tiny
import yaml

from cliptune.config import merge, validate
from cliptune.errors import ConfigError
from cliptune.task import load_task
from cluster.config import ClusterSearch
from jobs.packing import Package, pack, size_words

DATA = {f"data/{split}.jsonl" for split in ("train", "validation", "test")}


@pytest.fixture
def folder(
    model_dir: Path, task_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A user's folder, with more in it than is needed; paths are given from there."""
    shutil.copytree(model_dir, tmp_path / "models" / "bert")
    shutil.copytree(task_dir, tmp_path / "files")
    for name in ("models/bert/pytorch_model.bin", "files/notes.jsonl", "secret.txt"):
        (tmp_path / name).write_text("not needed")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(**sections: Any) -> ClusterSearch:
    tree = tiny.tree(Path("models/bert"), Path("files"), Path("/runs/first"))
    return validate(ClusterSearch, merge(tree, sections))


def contents(package: Package, archive: Path) -> dict[str, bytes]:
    package.write(archive)
    with ZipFile(archive) as bundle:
        return {name: bundle.read(name) for name in bundle.namelist()}


def test_the_files_that_are_read_are_packed_and_no_others(folder: Path) -> None:
    found = contents(pack(config()), folder / "package.zip")
    model = {name for name in found if name.startswith("model/")}
    assert set(found) - model == {"config.yaml", *DATA}
    assert {"model/model.safetensors", "model/config.json", "model/tokenizer.json"} <= model
    assert not any(name.endswith(".bin") for name in model)


def test_the_packed_config_is_the_same_search_wherever_it_is_unpacked(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = config(cluster={"address": "127.0.0.1:6379", "actors": 3})
    before = load_task(own.task)
    pack(own).write(folder / "package.zip")
    there = tmp_path_factory.mktemp("there")
    with ZipFile(folder / "package.zip") as bundle:
        bundle.extractall(there)
    monkeypatch.chdir(there)
    packed = validate(ClusterSearch, yaml.safe_load(Path("config.yaml").read_text()))
    assert packed.identity() == own.identity()
    assert (packed.run_dir, packed.cluster.address, packed.cluster.actors) == (None, None, 3)
    assert Path(packed.model.name).is_dir()
    after = load_task(packed.task)
    for split in ("train", "validation", "test"):
        assert after[split].texts == before[split].texts


def test_a_test_set_that_lies_one_folder_up_is_packed(folder: Path) -> None:
    (folder / "16-42").mkdir()
    for split in ("train", "validation"):
        shutil.move(folder / "files" / f"{split}.jsonl", folder / "16-42")
    shutil.move(folder / "files" / "test.jsonl", folder)
    package = pack(config(task={"data": "16-42"}))
    assert {name for name in package.files if name.startswith("data/")} == DATA
    assert package.tree["task"]["splits"]["test"] == "test.jsonl"


def test_a_single_file_of_examples_is_packed_as_one(folder: Path) -> None:
    package = pack(config(task={"data": "files/train.jsonl"}))
    assert package.tree["task"]["data"] == "data/train.jsonl"
    assert {name for name in package.files if name.startswith("data/")} == {"data/train.jsonl"}


def test_a_prompt_file_and_a_selection_of_ones_own_are_packed(folder: Path) -> None:
    (folder / "mine.py").write_text("def best(p, y):\n    return 1.0\n")
    (folder / "p.safetensors").write_bytes(b"x")
    sections = {
        "prompt": {"init": "file", "file": "p.safetensors"},
        "search": {"selection": "mine.py:best"},
        "model": {"readout": "mine.py:Own"},
    }
    package = pack(config(**sections))
    assert package.tree["model"]["readout"] == "readout/mine.py:Own"
    assert package.tree["prompt"]["file"] == "prompt/p.safetensors"
    assert package.tree["search"]["selection"] == "selection/mine.py:best"
    assert {"prompt/p.safetensors", "selection/mine.py"} <= set(package.files)


def test_equal_packages_have_equal_bytes(folder: Path) -> None:
    pack(config()).write(folder / "one.zip")
    (folder / "files" / "train.jsonl").touch()
    pack(config()).write(folder / "two.zip")
    assert (folder / "one.zip").read_bytes() == (folder / "two.zip").read_bytes()


def test_the_digest_is_of_the_search_and_of_what_its_files_hold(folder: Path) -> None:
    before = pack(config()).digest()
    assert pack(config(search={"budget": 400}, cluster={"actors": 5})).digest() == before
    assert pack(config(search={"seed": 1})).digest() != before
    lines = (folder / "files" / "train.jsonl").read_text()
    changed = json.dumps({"text": "other", "label": 0})
    (folder / "files" / "train.jsonl").write_text(f"{lines}{changed}\n")
    assert pack(config()).digest() != before


def test_what_is_not_here_is_left_to_the_cluster(folder: Path) -> None:
    package = pack(config(model={"name": "org/model"}, task={"data": "/cluster/data"}))
    assert package.elsewhere == {"model.name": "org/model", "task.data": "/cluster/data"}
    assert package.files == {}
    assert package.tree["task"]["data"] == "/cluster/data"


def test_what_is_here_is_left_to_the_cluster_where_that_is_wanted(folder: Path) -> None:
    place = str(folder / "models" / "bert")
    package = pack(config(model={"name": place}), as_is=["model.name"])
    assert package.tree["model"]["name"] == place
    assert set(package.files) == DATA
    with pytest.raises(ConfigError, match="models/bert is relative"):
        pack(config(), as_is=["model.name"])


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"task": {"data": "files/trian.jsonl"}}, "task.data: no files/trian.jsonl"),
        ({"model": {"name": "models/brt"}}, "model.name: no models/brt"),
        ({"prompt": {"init": "file", "file": "p.safetensors"}}, "prompt.file: no p.safe"),
        ({"search": {"selection": "nowhere.py:f"}}, "search.selection: no nowhere.py"),
        ({"search": {"selection": "nowhere:f"}}, "nowhere is not installed"),
        ({"model": {"name": "secret.txt"}}, "model.name: secret.txt is a file"),
    ],
)
def test_a_path_that_is_wrong_is_named(sections: dict[str, Any], words: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        pack(config(**sections))


def test_only_settings_that_name_files_can_be_left_as_they_are() -> None:
    with pytest.raises(ConfigError, match="found model"):
        pack(config(model={"name": "org/model"}), as_is=["model"])


def test_a_package_that_is_too_large_is_refused_with_its_largest_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.packing.LIMIT", 5_000)
    with pytest.raises(
        ConfigError, match=r"over the 4.9 KiB .* largest .*model.safetensors \("
    ) as e:
        pack(config()).write(folder / "package.zip")
    assert "--as-is" in str(e.value)


@pytest.mark.parametrize(
    ("size", "words"), [(999, "999 bytes"), (2048, "2.0 KiB"), (3 * 2**20, "3.0 MiB")]
)
def test_sizes_are_in_words(size: int, words: str) -> None:
    assert size_words(size) == words


def test_large_sizes_too() -> None:
    assert size_words(3 * 2**30) == "3.0 GiB"
