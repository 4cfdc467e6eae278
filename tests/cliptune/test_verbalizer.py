"""Words found for a verbalizer: those whose likelihood tells a class, whatever reads them."""

from dataclasses import replace
from pathlib import Path

import families
import numpy as np
import pytest
import tiny
import torch

from cliptune.errors import ConfigError
from cliptune.models.load import load_model
from cliptune.task import Template
from cliptune.verbalizer import centroid_distances, find_words


def test_distances_are_in_units_of_the_spread_within_classes() -> None:
    values = np.array([[0.0, 0.0, 1.0], [2.0, 0.2, 1.0], [4.0, 0.4, 1.0], [6.0, 0.6, 1.0]])
    found = centroid_distances(values, np.array([0, 0, 1, 1]), 2)
    spread = np.sqrt(2), np.sqrt(0.02), 0.0
    median = np.sqrt(0.02)
    expected = [2 / (spread[0] + median), 0.2 / (spread[1] + median), 0.0]
    np.testing.assert_allclose(found, [np.negative(expected), expected], atol=1e-12)


def test_one_example_a_class_has_no_spread_and_is_no_error() -> None:
    found = centroid_distances(np.array([[0.0, 1.0], [2.0, 1.0]]), np.array([0, 1]), 2)
    np.testing.assert_allclose(found, [[-1, 0], [1, 0]])


def test_words_are_those_of_the_plain_models_log_probabilities(model_dir: Path) -> None:
    task = tiny.task()
    config = tiny.config(model_dir, model_dir)
    model = load_model(config, task, without=None)
    words = find_words(model, task["train"], 4)

    tokenizer, known = model.tokenizer, []
    for text in task["train"].texts:
        ids = tokenizer(f"{text} . it was [MASK] .", return_tensors="pt")["input_ids"]
        at = ids[0].tolist().index(tokenizer.mask_token_id)
        with torch.inference_mode():
            known.append(model.module(input_ids=ids).logits[0, at].log_softmax(-1).numpy())
    own = {"bad", "great"}
    named = [word for word in tiny.WORDS if word.isalpha() and len(word) > 1 and word not in own]
    columns = np.array(known)[:, tokenizer.convert_tokens_to_ids(named)]
    distances = centroid_distances(columns, task["train"].labels, 2)
    for label in (0, 1):
        best = sorted(range(len(named)), key=lambda word: -distances[label, word])[:4]
        assert words[label] == tuple(named[word] for word in best)
    assert model.class_scores(None, model.batch(model.encode(task["train"], 0), [0])).shape[-1] == 2


@pytest.mark.parametrize("name", ["GPT-2", "T5", "RoBERTa"])
def test_words_found_are_words_that_a_search_can_read(name: str, tmp_path: Path) -> None:
    folder = families.save(name, tmp_path)
    task = replace(tiny.task(), template=Template(families.FAMILIES[name].template))
    config = tiny.config(folder, folder)
    words = find_words(load_model(config, task, without=None), task["train"], 3)
    assert [len(each) for each in words] == [3, 3]
    assert len({word for each in words for word in each}) == 6
    assert all(word.isalpha() for each in words for word in each)
    every = [word.casefold() for each in (*task.words, *words) for word in each]
    assert len(set(every)) == len(every)
    load_model(config, replace(task, verbalizer=words))  # reads them all


def test_an_encoder_reads_no_words(model_dir: Path) -> None:
    config = tiny.config(model_dir, model_dir, model={"readout": "encoder"})
    model = load_model(config, tiny.task(), without=None)
    with pytest.raises(ConfigError, match=r"model\.readout encoder compares texts"):
        find_words(model, tiny.task()["train"], 3)
