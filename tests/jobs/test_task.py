"""`cliptune task`: what it says of a task, and that it needs neither weights nor Ray."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import families
import hub
import pytest
import tiny
import yaml
from command import cliptune_here, environment
from datasets import Value
from rich.console import Console

from jobs.task import describe, show


@pytest.fixture(scope="module")
def structure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder without weights."""
    folder = tiny.save_model(tmp_path_factory.mktemp("structure"))
    (folder / "model.safetensors").unlink()
    return folder


def write(folder: Path, **splits: list[tuple[str, int]]) -> Path:
    for name, examples in splits.items():
        lines = (json.dumps({"text": text, "label": label}) for text, label in examples)
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two examples a class for training and validation, three for the test; one is long."""
    few = [("the film was dull", 0), ("joy and love", 1), ("sad", 0), ("good fun", 1)]
    return write(
        tmp_path,
        train=[*few, ("a new old story", 0)],
        validation=few,
        test=[*few, ("slow " * 60, 0), ("quick " * 55, 1)],
    )


def config(structure: Path, data: Path, **sections: Any) -> Any:
    return tiny.config(structure, data, **{"task": {"k": 2}, **sections})


def printed(view: Any) -> str:
    out = io.StringIO()
    console = Console(file=out, width=80, highlight=False, markup=False, emoji=False)
    show(view, console)
    assert max(map(len, out.getvalue().splitlines())) <= 80
    return out.getvalue()


def test_inputs_are_shown_as_the_model_sees_them(structure: Path, data: Path) -> None:
    view = describe(config(structure, data, task={"k": 2, "seed": 1}))
    first = "".join(view.inputs[0].parts)
    assert len(view.inputs) == 3
    assert first.startswith("[CLS] <3 prompt vectors> ")
    assert first.endswith(" . it was [MASK] . [SEP]")
    assert first in printed(view).replace("\n", " ")


@pytest.mark.parametrize(
    ("template", "position", "expected"),
    [
        ("{text} {mask}", "after-first", "[CLS] <3 prompt vectors> sad [MASK] [SEP]"),
        ("{mask} : {text}", "after-first", "[CLS] <3 prompt vectors> [MASK] : sad [SEP]"),
        ("{text} , {mask}", "front", "<3 prompt vectors> [CLS] sad , [MASK] [SEP]"),
        ("{text} zebra {mask}", "front", "<3 prompt vectors> [CLS] sad [UNK] [MASK] [SEP]"),
    ],
)
def test_the_prompt_stands_where_it_will_be(
    template: str, position: str, expected: str, structure: Path, tmp_path: Path
) -> None:
    examples = [("sad", 0), ("fun", 1)]
    write(tmp_path, train=examples, validation=examples, test=examples)
    sections = {"task": {"k": 1, "template": template}, "prompt": {"position": position}}
    view = describe(config(structure, tmp_path, **sections))
    assert "".join(view.inputs[0].parts) == expected


def test_one_prompt_vector_is_no_plural(structure: Path, data: Path) -> None:
    view = describe(config(structure, data, prompt={"length": 1}))
    assert view.inputs[0].parts[1] == " <1 prompt vector>"


def test_lengths_count_the_prompt_and_truncation_is_measured(structure: Path, data: Path) -> None:
    """64 positions: 3 of the prompt, 7 of template and special tokens, so 54 for the text."""
    splits = describe(config(structure, data)).splits
    assert splits["validation"].tokens == {"min": 11, "median": 12.5, "max": 14}
    assert (splits["validation"].truncated, splits["validation"].dropped) == (0, {})
    assert splits["test"].tokens["max"] == 64
    assert splits["test"].truncated == 2
    assert splits["test"].dropped == {"min": 1, "median": 3.5, "max": 6}


def test_splits_say_where_they_come_from_and_how_many_there_were(
    structure: Path, data: Path
) -> None:
    view = describe(config(structure, data))
    train = view.splits["train"]
    assert (train.source, train.examples, train.available) == (str(data / "train.jsonl"), 4, 5)
    assert [split.by_class for split in view.splits.values()] == [[2, 2], [2, 2], [3, 3]]
    text = printed(view)
    assert "│ train      │        4 │  5 │" in text
    assert str(data / "train.jsonl") in text.replace("\n", "").replace(" ", "")


def test_label_words_are_shown_with_their_tokens(structure: Path, data: Path) -> None:
    task = {"k": 2, "label_words": ["bad", "great fun"], "label_tokens": "first"}
    view = describe(config(structure, data, task=task))
    assert view.readout == "masked-lm"
    assert [(one.label, one.word, one.tokens) for one in view.classes] == [
        (0, "bad", {"bad": ["bad"]}),
        (1, "great fun", {"great fun": ["great", "fun"]}),
    ]
    assert "great (of great fun)" in printed(view)


def test_several_words_of_a_class_are_shown_with_its_name(structure: Path, data: Path) -> None:
    task = {"k": 2, "label_words": ["no", "yes"], "verbalizer": [["bad", "dull"], ["great"]]}
    view = describe(config(structure, data, task=task))
    assert view.classes[0].word == "no"
    assert view.classes[0].tokens == {"bad": ["bad"], "dull": ["dull"]}
    assert "bad, dull" in printed(view)


def test_an_encoder_has_label_texts(structure: Path, data: Path) -> None:
    sections = {"model": {"readout": "encoder"}, "task": {"k": 2, "template": "{text}"}}
    view = describe(config(structure, data, **sections))
    assert view.readout == "encoder"
    assert view.classes[1].tokens == {"great": ["great"]}
    assert "".join(view.inputs[0].parts) == "[CLS] <3 prompt vectors> joy and love [SEP]"
    assert "label text" in printed(view)


def test_a_causal_models_input_ends_before_the_label_word(data: Path, tmp_path: Path) -> None:
    folder = families.save("Llama", tmp_path / "llama")
    view = describe(config(folder, data, task={"template": "{text} . it was {mask}", "k": 2}))
    assert "".join(view.inputs[0].parts) == "<s> <3 prompt vectors> joy and love . it was"
    text = printed(view)
    assert "read out as causal-lm" in text
    assert "Ġgreat" in text


def test_a_decoders_word_stands_for_t5s_sentinel(data: Path, tmp_path: Path) -> None:
    folder = families.save("T5", tmp_path / "t5")
    view = describe(config(folder, data))
    assert view.readout == "seq2seq"
    shown = "".join(view.inputs[0].parts)
    assert shown.endswith("it was<extra_id_0> .</s>")


def test_labels_are_those_of_the_data(structure: Path, tmp_path: Path) -> None:
    rows = [{"text": t, "label": v} for t, v in [("sad", "neg"), ("fun", "pos")] * 4]
    (tmp_path / "one.json").write_text(json.dumps(rows), encoding="utf-8")
    task = {"labels": ["neg", "pos"], "k": 1}
    view = describe(config(structure, tmp_path / "one.json", task=task))
    assert [one.label for one in view.classes] == ["neg", "pos"]
    assert [split.examples for split in view.splits.values()] == [2, 2, 4]


def test_long_texts_are_cut_but_mask_and_prompt_stay_in_sight(
    structure: Path, tmp_path: Path
) -> None:
    examples = [("slow " * 200, 0), ("fun", 1)]
    write(tmp_path, train=examples, validation=examples, test=examples)
    view = describe(config(structure, tmp_path, task={"k": 1}))
    whole = "".join(view.inputs[0].parts)
    assert whole.count("slow") == 54
    shown = printed(view).replace("\n", " ")
    assert 20 < shown.count("slow") < 54
    assert "[…]" in shown
    assert "it was [MASK] . [SEP]" in shown


def test_what_could_move_a_terminal_is_written_out(structure: Path, tmp_path: Path) -> None:
    examples = [("fun", 0), ("sad", 1)]
    write(tmp_path, train=examples, validation=examples, test=examples)
    task = {"k": 1, "template": "{text} \x1b[31m {mask}\n"}
    text = printed(describe(config(structure, tmp_path, task=task)))
    assert "\x1b" not in text
    assert r"{text} \x1b[31m {mask}\n" in text


def test_many_classes_are_cut(structure: Path, tmp_path: Path) -> None:
    examples = [("fun", label) for label in range(35)]
    write(tmp_path, train=examples, validation=examples, test=examples)
    words = [f"{word} {i}" for i, word in enumerate(tiny.WORDS[:35])]
    task = {"k": 1, "label_words": words, "label_tokens": "first"}
    text = printed(describe(config(structure, tmp_path, task=task)))
    assert "and 5 more" in text


# The command


@pytest.fixture
def user(
    structure: Path,
    data: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    eighty_columns: None,
) -> Path:
    """Where the user stands, with a config."""
    folder = tmp_path_factory.mktemp("user")
    monkeypatch.chdir(folder)
    tree = tiny.tree(structure, data, task={"k": 2})
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return folder


def test_the_command_prints_a_page(user: Path) -> None:
    done = cliptune_here("task", "tiny.yaml", "prompt.length=5")
    assert (done.returncode, done.stderr) == (0, "")
    for part in ("Examples", "Classes", "<5 prompt vectors>", "[MASK]", "at most 64 tokens"):
        assert part in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert [path.name for path in user.iterdir()] == ["tiny.yaml"]


def test_json_is_one_object_and_ray_is_not_even_imported(user: Path) -> None:
    code = (
        "import sys; sys.argv = ['cliptune', 'task', 'tiny.yaml', '--json']\n"
        "from jobs.cli import app\n"
        "app(standalone_mode=False)\n"
        "print(sorted({'ray', 'torch'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=user, env=environment(), capture_output=True, text=True, check=True
    )
    line, imported = done.stdout.splitlines()
    tree = json.loads(line)
    assert tree["splits"]["test"]["by_class"] == [3, 3]
    assert tree["inputs"][0] == {
        "label": 1,
        "input": "[CLS] <3 prompt vectors> joy and love . it was [MASK] . [SEP]",
    }
    assert imported == "['torch']"


def test_that_a_provider_sends_no_tokenizer_is_said(user: Path) -> None:
    words = ["model.name=nowhere", "scorer.url=http://127.0.0.1:9"]
    done = cliptune_here("task", "tiny.yaml", *words)
    assert done.returncode == 2
    assert "does not send it: give the folder of its config.json and tokenizer" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_mistake_is_one_message_on_standard_error(user: Path) -> None:
    done = cliptune_here("task", "tiny.yaml", "task.data=nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("cliptune: task.data: nowhere is no folder or file here (")
    assert len(done.stderr.splitlines()) == 1


def test_a_dataset_of_the_hub_is_read_from_the_cache(
    user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [{"sentence": f"{word} fun", "label": i % 2} for i, word in enumerate(tiny.WORDS)]
    features = {"sentence": Value("string"), "label": Value("int64")}
    hub.put(tmp_path / "cache", "some/reviews", {"train": texts}, features, "film")
    words = ("task.data=some/reviews", "task.subset=film", "task.columns.text=sentence")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    done = cliptune_here("task", "tiny.yaml", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "from some/reviews/film, split train" in done.stdout
