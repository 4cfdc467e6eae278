"""`cliptune words`: more words a class, found on the training examples, and their worth."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cliptune.calibration import class_biases
from cliptune.config import merge, validate
from cliptune.device import resolve
from cliptune.errors import ConfigError
from cliptune.evaluation import measured
from cliptune.journal import Validation
from cliptune.local import LocalScorer
from cliptune.metrics import accuracy
from cliptune.models.load import Loaded, load_plain, prepared
from cliptune.rewards import log_probabilities
from cliptune.settings import safe_dump
from cliptune.subnetwork import FULL_NETWORK
from cliptune.task import Task, load_task
from cliptune.verbalizer import find_words
from cluster.config import ClusterSearch
from jobs.config import read_tree
from jobs.words import make_console, titled_table

COUNTS = (1, 3, 10, 30)  # words that are added to each class, tried one after the other

NONE_LEFT = "No other words tell the classes apart; the task stays as it is."
NONE_BETTER = "No words that were found are clearly better than the task's own; it stays as it is."

Verbalizer = tuple[tuple[str, ...], ...]
Scores = dict[str, dict[str, NDArray[np.float32]]]


@dataclass(frozen=True)
class Trial:
    """The template alone, read from some words."""

    added: int  # words a class, at most
    words: Verbalizer
    validation: Validation
    test_accuracy: float | None  # where it was asked for, of the task as it is and of the best


def main(
    words: Sequence[str], *, count: int | None, test: bool, out: Path | None, as_json: bool
) -> None:
    """Find them, choose how many by the validation set, and write down the best."""
    tree = read_tree(words, {})
    config = validate(ClusterSearch, tree)
    if config.scorer.url is not None:
        raise ConfigError(
            "scorer.url: a provider gives scores of label words alone. Leave it out, and name the "
            "model itself as model.name."
        )
    if out is not None:
        _refuse_place(out)
    config = resolve(config, cuda=torch.cuda.is_available())
    task = load_task(config.task)
    loaded = load_plain(config.model)
    counts = COUNTS if count is None else (count,)
    model = prepared(loaded.another(), config, task, None)
    found = find_words(model, task["train"], max(counts))
    verbalizers = list(dict.fromkeys(_longer(task, found, added) for added in (0, *counts)))
    scores = _scores(config, task, loaded, verbalizers[-1], test=test)
    trials, losses = zip(
        *(_trial(config, task, scores, words) for words in verbalizers), strict=True
    )
    best = trials[-1 if count else best_of(losses)]
    trials = tuple(
        one if one in (trials[0], best) else replace(one, test_accuracy=None) for one in trials
    )
    if as_json:
        value = {"tried": list(map(asdict, trials)), "best": asdict(best)}
        print(json.dumps(value, ensure_ascii=False))
    else:
        _show(task, trials, best, make_console())
    if out is not None:
        verbalizer = {"verbalizer": [list(each) for each in best.words]} if best.added else {}
        _write(out, merge(tree, {"task": verbalizer}))
        if not as_json:
            make_console().print(f"written to {out}: cliptune search {out}", soft_wrap=True)


def _refuse_place(out: Path) -> None:
    if out.exists():
        raise ConfigError(f"--out: {out} is there already; give a new file.")
    if not out.parent.is_dir():
        raise ConfigError(f"--out: there is no folder {out.parent}; make it first.")


def _longer(task: Task, found: Verbalizer, added: int) -> Verbalizer:
    """The task's words of each class, and so many of those found."""
    pairs = zip(task.words, found, strict=True)
    return tuple((*own, *more[:added]) for own, more in pairs)


def _scores(
    config: ClusterSearch, task: Task, loaded: Loaded, words: Verbalizer, *, test: bool
) -> Scores:
    """By split and word, the scores of its examples: each is computed once."""
    every = tuple(word for each in words for word in each)
    by_word = replace(task, label_words=every, verbalizer=None)  # as if each were a class
    scorer = LocalScorer(config, by_word, loaded=loaded.another())
    splits = ("train", "validation", "test") if test else ("train", "validation")
    found = {split: scorer.class_scores(None, split, [FULL_NETWORK])[0, 0] for split in splits}
    return {split: dict(zip(every, scores.T, strict=True)) for split, scores in found.items()}


def best_of(losses: Sequence[NDArray[np.float64]]) -> int:
    """Which words to read classes from, by the losses of validation examples: those with the least
    mean, unless the first, the task's own, are within one standard error of it.

    The error is that of the mean difference, paired by example. The rule is that of Breiman et al.
    (Classification and Regression Trees, 1984): a choice among few examples is chance otherwise.
    """
    best = int(np.argmin([each.mean() for each in losses]))
    gain = losses[0] - losses[best]
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    return best if gain.mean() > error else 0


def _trial(
    config: ClusterSearch, task: Task, scores: Scores, words: Verbalizer
) -> tuple[Trial, NDArray[np.float64]]:
    """And the losses of the validation examples."""
    classes = {
        split: np.stack(
            [np.mean([known[word] for word in each], axis=0) for each in words], axis=-1
        )
        for split, known in scores.items()
    }  # (examples, classes)
    biases = np.zeros(task.classes)
    if config.search.calibrate:
        biases = class_biases(classes["train"], task["train"].labels)
    calibrated = classes["validation"] + biases
    labels = task["validation"].labels
    test = None
    if "test" in classes:
        test = accuracy(classes["test"] + biases, task["test"].labels)
    added = max(len(each) - len(own) for own, each in zip(task.words, words, strict=True))
    validation = measured(calibrated, labels, config.search.selection)
    losses = -log_probabilities(calibrated)[np.arange(len(labels)), labels]
    return Trial(added, words, validation, test), losses


def _write(out: Path, tree: object) -> None:
    try:
        out.write_text(safe_dump(tree, default_flow_style=None), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out: {out} cannot be written: {error.strerror}.") from None


def _show(task: Task, trials: Sequence[Trial], best: Trial, console: Console) -> None:
    tested = best.test_accuracy is not None
    columns = ("validation", "loss", *(["test"] if tested else []))
    tried = titled_table("without a soft prompt", "words added to a class", *columns)
    for one in trials:
        name = str(one.added or "none") + (" (chosen)" if one is best else "")
        test = ["" if one.test_accuracy is None else f"{one.test_accuracy:.1%}"] if tested else []
        tried.add_row(name, f"{one.validation.accuracy:.1%}", f"{one.validation.loss:.3f}", *test)
    console.print(tried)
    if best.added:
        table = Table("class", "words")
        for name, words in zip(task.label_words, best.words, strict=True):
            table.add_row(Text(name), Text(", ".join(words)))
        console.print(table)
    else:
        console.print(NONE_LEFT if len(trials) == 1 else NONE_BETTER)
