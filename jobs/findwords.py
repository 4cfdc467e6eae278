"""`cliptune words`: several words a class, found on the training examples, and their worth."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cliptune.config import merge, validate
from cliptune.device import resolve
from cliptune.errors import ConfigError
from cliptune.evaluation import calibrate
from cliptune.evaluation import validate as validated
from cliptune.journal import Validation
from cliptune.local import LocalScorer
from cliptune.models.load import Loaded, load_plain, prepared
from cliptune.task import Task, load_task
from cliptune.verbalizer import find_words
from cluster.config import ClusterSearch
from jobs.config import read_tree
from jobs.words import make_console


def main(words: Sequence[str], *, count: int, out: Path | None, as_json: bool) -> None:
    """Find them, compare them with the label words on validation, and write them down."""
    tree = read_tree(words, {})
    config = validate(ClusterSearch, tree)
    if config.scorer.url is not None:
        raise ConfigError(
            "scorer.url: a provider gives scores of label words alone. Leave it out, and name the "
            "model itself as model.name."
        )
    if out is not None and out.exists():
        raise ConfigError(f"--out: {out} is there already; give a new file.")
    config = resolve(config, cuda=torch.cuda.is_available())
    task = load_task(config.task)
    loaded = load_plain(config.model)
    model = prepared(loaded.another(), config, task, None)
    found = find_words(model, task["train"], count)
    before = _worth(config, task, loaded)
    after = _worth(config, replace(task, verbalizer=found), loaded)
    if out is not None:
        _write(out, merge(tree, {"task": {"verbalizer": [list(each) for each in found]}}))
    if as_json:
        tried = {"before": asdict(before), "after": asdict(after)}
        print(json.dumps({"verbalizer": found, "validation": tried}, ensure_ascii=False))
    else:
        _show(task, found, before, after, out, make_console())


def _worth(config: ClusterSearch, task: Task, loaded: Loaded) -> Validation:
    """How good the template alone is, with such words."""
    scorer = LocalScorer(config, task, loaded=loaded.another())
    return validated(scorer, None, calibrate(scorer, None))


def _write(out: Path, tree: object) -> None:
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, default_flow_style=None)
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out: {out} cannot be written: {error.strerror}.") from None


def _show(
    task: Task,
    found: Sequence[Sequence[str]],
    before: Validation,
    after: Validation,
    out: Path | None,
    console: Console,
) -> None:
    table = Table("class", "words")
    for name, words in zip(task.label_words, found, strict=True):
        table.add_row(Text(name), Text(", ".join(words)))
    console.print(table)
    console.print(
        "validation, without a soft prompt: accuracy "
        f"{before.accuracy:.1%}, loss {before.loss:.3f} as the task is now; "
        f"{after.accuracy:.1%}, {after.loss:.3f} with these words",
        soft_wrap=True,
    )
    if out is not None:
        console.print(f"written to {out}: cliptune search {out}", soft_wrap=True)
