"""Exported prompts: other programs give the same class scores with them."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import families
import more_families
import numpy as np
import pytest
import tiny
import yaml

import cliptune
from cliptune.config import Config
from cliptune.errors import CliptuneError, ConfigError, RunError
from cliptune.export import export, public_name, public_source
from cliptune.predictor import load
from cliptune.record import read_run
from cliptune.rewards import log_probabilities

TEXTS = ["a good film", "the story was very long and dull ! not one joy"]

SLOW = pytest.mark.slow


def searched(weights: Path, data: Path, run: Path, **sections: Any) -> Path:
    defaults = {"search": {"budget": 4}, "ensemble": {"subnetworks": 1}}
    cliptune.search(tiny.config(weights, data, run, **{**defaults, **sections}))
    return run


def exported(run: Path, to: str, out: Path, model: Path | None = None) -> Path:
    export(read_run(Config, str(run)), to, out, None if model is None else str(model))
    return out


def by_the_card(folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the README's own code comes to, run as it stands but for where the model lies."""
    readme = (folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    code = re.sub(r"^base = .*$", f"base = {str(model)!r}", code, flags=re.MULTILINE)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102 - it is ours
    return names["class_scores"]


def agrees(run: Path, class_scores: Any, texts: list[str] = TEXTS) -> None:
    found = [log_probabilities(class_scores(text).float().numpy()) for text in texts]
    ours = [list(p.probabilities.values()) for p in load(run).predict(texts)]
    np.testing.assert_allclose(np.exp(found), ours, rtol=1e-4, atol=1e-6)
    assert ours[0] != ours[1]


@pytest.mark.parametrize("to", ["peft", "embeddings"])
@pytest.mark.parametrize(
    "name",
    ["BERT", "Llama", "T5", *(pytest.param(n, marks=SLOW) for n in ("RoBERTa", "GPT-2", "BART"))],
)
def test_transformers_gives_the_same_scores_by_the_card(
    name: str, to: str, task_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = families.save(name, tmp_path / "model")
    task = {"template": families.FAMILIES[name].template}
    prompt = {"position": "front" if to == "peft" else "after-first"}
    run = searched(model, task_dir, tmp_path / "run", task=task, prompt=prompt)
    folder = exported(run, to, tmp_path / "out")
    agrees(run, by_the_card(folder, model, monkeypatch))
    for file in folder.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes()


@pytest.mark.parametrize(
    ("name", "template", "texts"),
    [
        ("GPT-2", "{text} . it was\n{mask}", TEXTS),  # not a space: it is no part of the word
        pytest.param("GPT-2", "{text} . it was :  {mask}", ["a film  ", TEXTS[1]], marks=SLOW),
        ("BERT", "{text} . it was {mask} .", ["a [MASK] film", TEXTS[1]]),
        pytest.param("RoBERTa", "it was {mask} : {text}", ["a [MASK] film", TEXTS[1]], marks=SLOW),
        pytest.param("BERT", "{text} {{x}} it was {mask} .", TEXTS, marks=SLOW),
    ],
)
def test_by_the_card_texts_and_templates_of_all_kinds_score_the_same(
    name: str,
    template: str,
    texts: list[str],
    task_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = families.save(name, tmp_path / "model")
    run = searched(model, task_dir, tmp_path / "run", task={"template": template})
    class_scores = by_the_card(exported(run, "embeddings", tmp_path / "out"), model, monkeypatch)
    agrees(run, class_scores, texts)


@pytest.mark.parametrize("to", ["peft", "embeddings"])
def test_class_biases_are_in_the_card(
    to: str, task_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = families.save("BERT", tmp_path / "model")
    search, prompt = {"calibrate": True, "budget": 4}, {"position": "front"}
    run = searched(model, task_dir, tmp_path / "run", search=search, prompt=prompt)
    folder = exported(run, to, tmp_path / "out")
    agrees(run, by_the_card(folder, model, monkeypatch))
    file = "recipe.json" if to == "peft" else "prompt.json"
    recipe = json.loads((folder / file).read_text(encoding="utf-8"))
    assert recipe["biases"] == load(run).biases.tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize("readout", ["masked-lm", "encoder"])
def test_several_words_a_class_are_in_the_card(
    readout: str, model_dir: Path, task_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = {"verbalizer": [["bad", "awful", "dull"], ["great", "good"]]}
    model = {"readout": readout}
    run = searched(model_dir, task_dir, tmp_path / "run", task=task, model=model)
    folder = exported(run, "embeddings", tmp_path / "out")
    agrees(run, by_the_card(folder, model_dir, monkeypatch))
    assert "| bad, awful, dull |" in (folder / "README.md").read_text(encoding="utf-8")


def test_a_scale_behind_the_embedding_layer_is_in_the_card_and_in_no_adapter(
    task_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = more_families.MORE["Marian"].save(tmp_path / "model")
    sections = {"task": {"template": "{text} ."}, "prompt": {"position": "front"}}
    run = searched(model, task_dir, tmp_path / "run", **sections)
    with pytest.raises(ConfigError, match=r"scales behind their layer.*Use --to embeddings"):
        exported(run, "peft", tmp_path / "peft")
    agrees(run, by_the_card(exported(run, "embeddings", tmp_path / "out"), model, monkeypatch))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("to", ["peft", "embeddings"])
def test_an_encoder_gives_the_same_scores_by_the_card(
    pooling: str,
    to: str,
    model_dir: Path,
    task_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sections = {
        "model": {"readout": "encoder", "pooling": pooling},
        "prompt": {"position": "front" if to == "peft" else "after-first"},
        "task": {"template": "{text}"},
    }
    run = searched(model_dir, task_dir, tmp_path / "run", **sections)
    agrees(run, by_the_card(exported(run, to, tmp_path / "out"), model_dir, monkeypatch))


@pytest.fixture(scope="module")
def run(model_dir: Path, task_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return searched(model_dir, task_dir, tmp_path_factory.mktemp("exported") / "run")


def test_by_the_card_a_text_that_is_too_long_is_refused(
    run: Path, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = exported(run, "embeddings", tmp_path / "out")
    assert "at most 61 tokens" in (folder / "README.md").read_text(encoding="utf-8")
    class_scores = by_the_card(folder, model_dir, monkeypatch)
    class_scores("film " * 54)
    with pytest.raises(ValueError, match="a text too long: 62 tokens with its template, of 61"):
        class_scores("film " * 55)


def test_the_card_says_what_it_was_found_with(run: Path, task_dir: Path, tmp_path: Path) -> None:
    folder = exported(run, "embeddings", tmp_path / "out")
    readme = (folder / "README.md").read_text(encoding="utf-8")
    data = read_run(Config, str(run)).identity["data"]
    assert f"`{task_dir.name}`, local files." in readme
    for split, examples in {"train": 6, "validation": 6, "test": 6}.items():
        assert f"| {split} | {examples} | `{data[split]}` |" in readme


def test_where_there_is_no_limit_of_tokens_the_card_names_none(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cliptune.export.UNLIMITED", 1)  # as if the tokenizer said none
    folder = exported(run, "embeddings", tmp_path / "out")
    written = (folder / "README.md").read_text(encoding="utf-8")
    assert "An input has at most" not in written
    assert "too long" not in written
    assert json.loads((folder / "prompt.json").read_text())["max_tokens"] is None


@pytest.mark.parametrize(
    ("task", "public"),
    [
        ({"data": None, "name": "tickets"}, "`tickets`, embedded in cliptune"),
        ({"data": "/home/somebody/data/mine.csv"}, "`mine.csv`, local files"),
        ({"data": "../sst2/16-42"}, "`16-42`, local files"),
        ({"data": "stanfordnlp/sst2"}, "`stanfordnlp/sst2` of the hub"),
        ({"data": "glue", "subset": "sst2"}, "`glue`, `sst2` of the hub"),
    ],
)
def test_where_the_data_lay_is_nobodys_business(
    task: dict[str, Any], public: str, run: Path
) -> None:
    assert public_source(read_run(Config, str(run)).config.task.model_copy(update=task)) == public


def test_the_card_says_what_was_found(run: Path, tmp_path: Path) -> None:
    folder = exported(run, "embeddings", tmp_path / "out")
    readme = (folder / "README.md").read_text(encoding="utf-8")
    _, front, _ = readme.split("---\n", 2)
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    card = yaml.safe_load(front)
    accuracy = round(result["accuracy"]["tuned prompt"]["test"], 4)
    assert card["model-index"][0]["results"][0]["metrics"][0]["value"] == accuracy
    assert card["base_model"].startswith("bert")
    for part in ("4 prompts scored", "| manual prompt |", "| `0` | bad |", "3 examples a class"):
        assert part in readme
    recipe = json.loads((folder / "prompt.json").read_text(encoding="utf-8"))
    assert (recipe["insert_at"], recipe["prompt_length"]) == (1, 3)


def test_a_prompt_behind_the_first_token_is_no_adapter(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prompt\.position=front, or use --to embeddings"):
        exported(run, "peft", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_peft_it_says_what_to_install(
    run: Path, model_dir: Path, task_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = searched(model_dir, task_dir, tmp_path / "run", prompt={"position": "front"})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'cliptune\[peft\]'"):
        exported(front, "peft", tmp_path / "out")


def test_a_deep_prompt_has_no_place_in_either(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    deep = searched(model_dir, task_dir, tmp_path / "run", prompt={"layers": 2})
    with pytest.raises(ConfigError, match="a prompt at each of 2 layers"):
        exported(deep, "embeddings", tmp_path / "out")


@pytest.mark.parametrize(
    ("to", "error", "complaint"),
    [
        ("onnx", ConfigError, "--to must be one of peft, embeddings; found onnx"),
        ("embeddings", RunError, "has not ended.*--resume"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    to: str, error: type[CliptuneError], complaint: str, run: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    (copy / "result.json").unlink()
    with pytest.raises(error, match=complaint):
        exported(copy, to, tmp_path / "out")


def test_a_folder_that_is_there_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="is there already; give a new folder"):
        exported(run, "embeddings", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("minilm", "sentence-transformers/all-MiniLM-L6-v2"),
        ("roberta-large", "roberta-large"),
        ("owner/model", "owner/model"),
        ("/home/somebody/models/bert", "bert"),
        ("../models/bert", "bert"),
    ],
)
def test_a_path_is_nobodys_business(name: str, public: str) -> None:
    assert public_name(name) == public
