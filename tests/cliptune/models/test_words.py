"""Label words: several of a class count by the mean of their scores, whatever reads them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import families
import pytest
import tiny
import torch
from torch import Tensor

from cliptune.errors import TaskError
from cliptune.models.load import load_plain, prepared
from cliptune.models.words import means_by_class
from cliptune.task import Task, Template

SEVERAL = (("bad", "awful", "dull"), ("great",))


def test_means_are_over_the_words_of_a_class() -> None:
    means = means_by_class(SEVERAL)
    assert means is not None
    scores = torch.tensor([[1.0, 2.0, 6.0, 4.0]])
    torch.testing.assert_close(scores @ means, torch.tensor([[3.0, 4.0]]))


def test_where_every_class_has_one_word_nothing_is_averaged() -> None:
    assert means_by_class([("bad",), ("great",)]) is None


def scores(folder: Path, task: Task, without: tuple[str, ...] = (), **model: Any) -> Tensor:
    """Class scores `(examples, classes)` of the training examples under a prompt."""
    settings = tiny.config(folder, folder, model=model)
    model_of = prepared(load_plain(settings.model), settings, task, without)
    assert not set(without) & (set(model_of.changes()) - set(model_of.as_it_was))
    encoded = model_of.encode(task["train"], 3)
    torch.manual_seed(0)
    prompt = torch.randn(1, 3, model_of.width) * 0.2
    return model_of.class_scores(prompt, model_of.batch(encoded, range(6)))[0]


@pytest.mark.parametrize("without", [(), ("head",)])
@pytest.mark.parametrize("name", ["BERT", "GPT-2", "T5", "BART"])
def test_a_class_of_several_words_scores_their_mean(
    name: str, without: tuple[str, ...], tmp_path: Path
) -> None:
    folder = families.save(name, tmp_path)
    template = Template(families.FAMILIES[name].template)
    each = replace(tiny.task(), template=template, label_words=("bad", "awful", "dull", "great"))
    several = replace(each, label_words=("no", "yes"), verbalizer=SEVERAL)
    words = scores(folder, each)
    expected = torch.stack([words[:, :3].mean(dim=1), words[:, 3]], dim=1)
    torch.testing.assert_close(scores(folder, several, without), expected, rtol=1e-4, atol=1e-4)


def test_label_texts_of_an_encoder_count_by_their_mean(model_dir: Path) -> None:
    texts = ("an awful film", "not fun", "good fun")
    each = replace(tiny.task(), template=Template("{text} !"), label_words=texts)
    several = replace(each, label_words=("no", "yes"), verbalizer=(texts[:2], texts[2:]))
    words = scores(model_dir, each, readout="encoder")
    expected = torch.stack([words[:, :2].mean(dim=1), words[:, 2]], dim=1)
    found = scores(model_dir, several, readout="encoder")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["BERT", "GPT-2", "T5"])
def test_a_word_that_is_not_known_is_named_with_its_setting(name: str, tmp_path: Path) -> None:
    folder = families.save(name, tmp_path)
    template = Template(families.FAMILIES[name].template)
    words = (("bad", "\U0001f600"), ("great",))
    task = replace(tiny.task(), template=template, label_words=("no", "yes"), verbalizer=words)
    with pytest.raises(TaskError, match=r"task\.verbalizer"):
        scores(folder, task)
