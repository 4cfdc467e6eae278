"""Models and sentences that are made here and now."""

from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer

from cliptune.errors import TaskError
from cliptune.specimen import (
    LABEL_WORDS,
    SST2_TOKENS,
    Shape,
    made_up_task,
    read_task,
    save_model,
    settings,
)
from cliptune.subnetwork import ensemble


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_shape_becomes_a_model_with_its_tokenizer(family: str, tmp_path: Path) -> None:
    folder = save_model(Shape(family, 2, 16, 4, 32, 90), tmp_path)
    found = AutoConfig.from_pretrained(folder)
    assert found.architectures in (["BertForMaskedLM"], ["RobertaForMaskedLM"])
    assert (found.num_hidden_layers, found.hidden_size, found.vocab_size) == (2, 16, 90)
    words = AutoTokenizer.from_pretrained(folder)
    assert len(words) <= 90
    assert all(len(words(word, add_special_tokens=False)["input_ids"]) == 1 for word in LABEL_WORDS)


def test_made_up_sentences_are_as_long_as_those_of_sst2() -> None:
    train = made_up_task(seed=1)["train"]
    assert sorted(len(text.split()) for text in train.texts) == list(SST2_TOKENS)
    assert sum(train.labels) == 16
    assert made_up_task(seed=1)["train"].texts == train.texts
    assert made_up_task(seed=2)["train"].texts != train.texts


def test_a_file_gives_its_examples_and_as_many_label_words_as_classes(tmp_path: Path) -> None:
    file = tmp_path / "three.jsonl"
    file.write_text('{"text": "a", "label": 0}\n\n{"text": "b", "label": 2}\n', encoding="utf-8")
    task = read_task(file)
    assert (task.name, task.classes, task["train"].texts) == ("three", 3, ("a", "b"))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"text": "a"}',
        '{"text": "a", "label": "good"}',
        '{"text": "a", "label": -1}',
        '{"text": "a", "label": 10}',
    ],
)
def test_a_file_that_holds_no_examples_is_named(content: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(TaskError) as caught:
        read_task(file)
    assert str(caught.value).startswith(f"--task: {file} must ")
    assert len(str(caught.value).splitlines()) == 1


def test_settings_with_another_number_of_subnetworks_have_as_many() -> None:
    made = settings(
        model="model",
        dtype="float32",
        device="cpu",
        micro_batch=8,
        length=4,
        dimension=6,
        subnetworks=5,
        clip_ratio=0.1,
        sites=("embedding",),
        seed=0,
    ).ensemble
    assert len(ensemble(made, 0)) == 5
    assert len(ensemble(made.model_copy(update={"subnetworks": 1}), 0)) == 1
