"""`cliptune task`: what a task looks like to its model, without weights and without Ray."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cliptune.config import Config
from cliptune.errors import ModelError
from cliptune.models.base import FrozenModel
from cliptune.models.load import load_structure
from cliptune.models.tokenize import Encoded
from cliptune.task import Split, Task, load_task
from jobs.words import titled_table

INPUTS = 3  # shown of the training split
CLASSES = 30  # shown at most
PART = (170, 60)  # letters shown at the beginning and the end of a long part of an input


@dataclass(frozen=True)
class ClassView:
    """A class, by its label in the data, and what it is read out by."""

    label: int | str
    word: str
    tokens: dict[str, list[str]]  # of each of its words; where words are read, the first one is


@dataclass(frozen=True)
class SplitView:
    """A split after sampling and truncation."""

    source: str
    available: int  # examples of the source, before sampling
    examples: int
    by_class: list[int]
    tokens: dict[str, float]  # min, median and max of an input, with its prompt
    truncated: int  # examples whose text is shortened
    dropped: dict[str, float]  # min, median and max of the tokens that those lose


@dataclass(frozen=True)
class InputView:
    """One training example as the model sees it, in the parts that lie around prompt and mask."""

    label: int
    parts: list[str]


@dataclass(frozen=True)
class TaskView:
    """All that `cliptune task` shows."""

    task: str
    template: str
    model: str
    readout: str
    max_input: int  # tokens, with the prompt
    prompt_length: int
    classes: list[ClassView]
    splits: dict[str, SplitView]
    inputs: list[InputView]
    special_tokens: list[str]


def main(config: Config, *, as_json: bool) -> None:
    """Show what the task of a config looks like."""
    view = describe(config)
    if as_json:
        tree = asdict(view)
        tree["inputs"] = [{"label": i.label, "input": "".join(i.parts)} for i in view.inputs]
        print(json.dumps(tree, ensure_ascii=False))
    else:
        show(view, Console(highlight=False, markup=False, emoji=False))


def describe(config: Config) -> TaskView:
    """Read the task and tokenise it as a search would."""
    task = load_task(config.task)
    try:
        model = load_structure(config, task)
    except ModelError as error:
        if config.scorer.url is None:
            raise
        raise ModelError(
            f"{error} The provider at {config.scorer.url} does not send it: give the folder "
            "of its config.json and tokenizer as model.name=PATH; weights are not needed."
        ) from None
    length = config.prompt.length
    encoded = {name: model.encode(split, length) for name, split in task.splits.items()}
    first = encoded["train"]
    decoder = model.tokenizer.backend_tokenizer.decoder
    if hasattr(decoder, "cleanup"):  # of WordPiece: it would hide spaces before punctuation
        decoder.cleanup = False
    return TaskView(
        task.name,
        task.template.source,
        config.model.name,
        model.readout,
        model.max_input,
        length,
        _classes(model, task, config.task.labels),
        {name: _split(task, task[name], encoded[name], length) for name in encoded},
        [
            InputView(int(label), _parts(model, ids, position, length))
            for label, ids, position in zip(
                task["train"].labels[:INPUTS], first.ids, first.mask_positions, strict=False
            )
        ],
        model.tokenizer.all_special_tokens,
    )


def _classes(model: FrozenModel, task: Task, labels: Sequence[int | str] | None) -> list[ClassView]:
    def tokens(word: str) -> list[str]:
        found: list[str] = model.tokenizer.convert_ids_to_tokens(model.word_tokens(word))
        return found

    names = zip(labels or range(task.classes), task.label_words, task.words, strict=True)
    return [
        ClassView(label, name, {word: tokens(word) for word in words})
        for label, name, words in names
    ]


def _split(task: Task, split: Split, encoded: Encoded, prompt: int) -> SplitView:
    return SplitView(
        split.source,
        split.available,
        len(split),
        np.bincount(split.labels, minlength=task.classes).tolist(),
        _range([prompt + tokens for tokens in encoded.lengths]),
        encoded.truncated,
        _range([count for count in encoded.dropped if count > 0]),
    )


def _range(counts: Sequence[int]) -> dict[str, float]:
    if not counts:
        return {}
    return {"min": min(counts), "median": statistics.median(counts), "max": max(counts)}


def _parts(model: FrozenModel, ids: list[int], mask: int, prompt: int) -> list[str]:
    """An input decoded: what precedes the prompt, the prompt's place, and what is around the mask.

    Together they are the input as one string.
    """
    cuts = {model.prompt_offset, len(ids)}
    if model.shows_mask:
        cuts |= {mask, mask + 1}
    texts = [
        model.tokenizer.decode(
            ids[:cut], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        for cut in sorted(cuts)
    ]
    first, *rest = [texts[-1][len(a) : len(b)] for a, b in pairwise(["", *texts])]
    marker = f"<{prompt} prompt vector{'s' if prompt > 1 else ''}>"
    before = " " if first else ""
    behind = "" if rest[0].startswith(" ") else " "
    return [first, f"{before}{marker}{behind}", *rest]


def show(view: TaskView, console: Console) -> None:
    """Print a view for people."""
    facts = _grid()
    facts.add_row("task", view.task)
    facts.add_row("template", _visible(view.template))
    facts.add_row("model", f"{view.model}, read out as {view.readout}")
    facts.add_row(
        "input", f"at most {view.max_input} tokens, {view.prompt_length} of them the prompt's"
    )
    console.print(facts, "", _split_table(view))
    sources = _grid()
    for name, split in view.splits.items():
        sources.add_row(name, f"from {split.source}")
    console.print(sources, "", _class_table(view), "")
    console.print(Text("The first training inputs, as the model sees them", style="bold"))
    for example in view.inputs:
        word = view.classes[example.label].word
        text = Text(f"{_visible(word)}: ", style="italic")
        body = Text("".join(_cut(_visible(part)) for part in example.parts), style="not italic")
        body.highlight_words([*view.special_tokens], "dim")
        body.highlight_words([example.parts[1].strip()], "bold cyan")
        console.print(text + body)


def _split_table(view: TaskView) -> Table:
    columns = ("examples", "of", "tokens of an input", "shortened", "tokens lost")
    table = titled_table("Examples", "", *columns)
    for name, split in view.splits.items():
        table.add_row(
            name,
            f"{split.examples:,}",
            f"{split.available:,}",
            _shown_range(split.tokens),
            f"{split.truncated:,}",
            _shown_range(split.dropped),
        )
    table.caption = "of: before sampling; tokens: min / median / max, with the prompt"
    table.caption_justify = "left"
    return table


def _class_table(view: TaskView) -> Table:
    words = view.readout != "encoder"
    table = titled_table("Classes", "label")
    table.add_column("label word" if words else "label text")
    table.add_column("token read" if words else "tokens", overflow="fold")
    for name in view.splits:
        table.add_column(name, justify="right")
    for i, one in enumerate(view.classes[:CLASSES]):
        read = _first_token if words else _number_of_tokens
        tokens = ", ".join(map(read, one.tokens.values()))
        counts = [f"{split.by_class[i]:,}" for split in view.splits.values()]
        table.add_row(_visible(str(one.label)), _visible(one.word), _visible(tokens), *counts)
    if len(view.classes) > CLASSES:
        table.add_row("", f"and {len(view.classes) - CLASSES} more")
    return table


def _first_token(tokens: list[str]) -> str:
    return tokens[0] + (f" (of {' '.join(tokens)})" if len(tokens) > 1 else "")


def _number_of_tokens(tokens: list[str]) -> str:
    return str(len(tokens))


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(overflow="fold")
    return grid


def _shown_range(values: dict[str, float]) -> str:
    return " / ".join(f"{value:,g}" for value in values.values())


def _visible(text: str) -> str:
    """Line breaks and control characters written out, so that none reaches the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _cut(text: str) -> str:
    first, last = PART
    return text if len(text) <= first + last else f"{text[:first]} […] {text[-last:]}"
