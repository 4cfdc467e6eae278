"""The README.md of an exported prompt: a model card as the hub reads it, with code that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

import cliptune
from cliptune.account import clock, cost_line, outcome
from cliptune.config import Config
from cliptune.evaluation import TUNED
from cliptune.record import CONFUSION, RunRecord

if TYPE_CHECKING:
    from cliptune.export import Recipe

HEADS = {
    "masked-lm": "AutoModelForMaskedLM",
    "causal-lm": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "encoder": "AutoModel",
}


def readme(record: RunRecord[Config], how: Recipe, to: str, source: str) -> str:
    """What was found, how good it is, what it took and how it is used."""
    config, accuracy = record.config, outcome(record).accuracy or {}
    parts = [
        f"---\n{_front_matter(record, how, to)}---",
        f"# A soft prompt for {config.task.name}",
        f"{how.prompt_length} prompt vectors for the frozen model `{how.base_model}` (SHA-256 of "
        f"its weights `{how.base_model_sha256}`), found without gradients by "
        f"[Clip-Tuning](https://arxiv.org/abs/2210.12050) with cliptune {cliptune.__version__}.",
        "## Task",
        _task(record, how),
        "## Data",
        _data(record, source),
        "## Scores",
        _table(accuracy),
        "## What it took",
        _cost(record),
        "## How to use it",
        _where(how, to),
        f"```python\n{snippet(how, to)}```",
        "`class_scores` gives a score a class, in the order of the table above: the highest one "
        "wins, and their softmax are the probabilities." + _limit(how),
    ]
    return "\n\n".join(parts) + "\n"


def _limit(how: Recipe) -> str:
    if how.max_tokens is None:
        return ""
    return (
        f" An input has at most {how.max_tokens} tokens: a longer one, of which cliptune cuts off "
        "the text's end, is refused here."
    )


def _front_matter(record: RunRecord[Config], how: Recipe, to: str) -> str:
    accuracy = (outcome(record).accuracy or {}).get(TUNED, {}).get("test")
    task = record.config.task.name
    tree: dict[str, Any] = {
        "base_model": how.base_model,
        "library_name": "peft" if to == "peft" else "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["cliptune", "clip-tuning", "prompt-tuning", "soft-prompt"],
        "metrics": ["accuracy"],
    }
    if accuracy is not None:
        found = {
            "task": {"type": "text-classification"},
            "dataset": {"type": task, "name": task, "split": "test"},
            "metrics": [{"type": "accuracy", "value": round(accuracy, 4)}],
        }
        tree["model-index"] = [{"name": f"{task} soft prompt", "results": [found]}]
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _task(record: RunRecord[Config], how: Recipe) -> str:
    task = record.config.task
    examples = "all examples" if task.k == "all" else f"{task.k} examples a class"
    rows = [
        [f"`{label}`", ", ".join(words)]
        for label, words in zip(how.labels, how.verbalizer, strict=True)
    ]
    said = f"Trained on {examples}, put into words as `{how.template}`."
    return f"{said}\n\n{_lines(['label', 'label word'], rows)}"


def _data(record: RunRecord[Config], source: str) -> str:
    task, counts = record.config.task, (record.result or {}).get(CONFUSION) or {}
    known: dict[str, int] = {}
    if task.k != "all":
        known = dict.fromkeys(("train", "validation"), task.k * len(task.label_words))
    if counts:
        known["test"] = sum(map(sum, next(iter(counts.values()))))
    digests = record.identity.get("data") or {}
    rows = [[name, str(known.get(name, "all")), f"`{sha}`"] for name, sha in digests.items()]
    return f"{source}.\n\n{_lines(['split', 'examples', 'SHA-256 of them'], rows)}"


def _table(accuracy: Any) -> str:
    splits = list(next(iter(accuracy.values())))
    rows = [[name, *(f"{values[s]:.1%}" for s in splits)] for name, values in accuracy.items()]
    return _lines(["accuracy", *splits], rows)


def _lines(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cost(record: RunRecord[Config]) -> str:
    found, config = outcome(record), record.config
    cost = cost_line(found.cost) if found.cost else f"{found.prompts:,} in {clock(found.seconds)}"
    ensemble = config.ensemble
    networks = (
        "the full network alone"
        if ensemble.mode == "none"
        else f"{ensemble.subnetworks} thinned networks, each without "
        f"{100 * ensemble.clip_ratio:g}% of its units ({ensemble.mode})"
    )
    return (
        f"{cost}.\n\nSearched by {config.search.method} in {config.prompt.dimension} dimensions, "
        f"seed {config.search.seed}, scored by {networks}."
    )


def _where(how: Recipe, to: str) -> str:
    if to == "peft":
        return "An adapter of PEFT, prompt tuning: `pip install peft transformers`."
    place = "behind an input's first token" if how.insert_at else "in front of an input's tokens"
    return (
        f"`prompt.safetensors` holds `prompt`, `({how.prompt_length}, width)` float32: embeddings "
        f"that stand {place}. `prompt.json` says the rest."
    )


def snippet(how: Recipe, to: str) -> str:
    """Python that scores one text: transformers, and PEFT where the prompt is its adapter."""
    head = HEADS[how.readout]
    lines = ["import torch"]
    lines += ["from peft import PeftModel"] if to == "peft" else []
    lines += ["from safetensors.torch import load_file"] if to != "peft" else []
    lines += [
        f"from transformers import {head}, AutoTokenizer",
        "",
        f"base = {how.base_model!r}  # or the folder that it lies in",
        "here = '.'  # the folder of this file",
        "",
        "tokenizer = AutoTokenizer.from_pretrained(base)",
        f"model = {head}.from_pretrained(base).eval()",
        *(_labels(how) if how.readout == "encoder" else []),
        *_loading(how, to),
        "",
        "",
        f"def class_scores({_arguments(how)}):",
        *(f"    {line}" for line in _inputs(how)),
        *(f"    {line}" for line in _forward(how, to)),
        *(f"    {line}" for line in _reading(how)),
    ]
    return "\n".join(lines) + "\n"


def _arguments(how: Recipe) -> str:
    return "text, text_pair" if "{text_pair}" in how.template else "text"


def _inputs(how: Recipe) -> list[str]:
    """Lines that tokenise a text: `ids`, `seen`, and `at` where there is a mask to be found."""
    before, found, behind = how.template.partition("{mask}")
    given = ", ".join(f"{name}={name}" for name in _arguments(how).split(", "))
    lines = [f"string = {before!r}.format({given})"]
    if located := bool(found) and how.readout in ("masked-lm", "causal-lm"):
        lines.append("start = len(string)  # the label word's")
    if found and how.readout == "causal-lm":
        lines.append(
            f"string += {how.verbalizer[0][0]!r}  # decides where a space before it belongs"
        )
    elif found:
        lines.append(f"string += {how.mask!r} + {behind!r}.format({given})")
    offsets = ", return_offsets_mapping=True" if located else ""
    lines += [
        f"inputs = tokenizer(string, return_tensors='pt'{offsets})",
        "ids, seen = inputs.input_ids, inputs.attention_mask",
    ]
    if located:
        spans = "inputs.offset_mapping[0].tolist()"
        lines.append(f"at = next(i for i, (_, end) in enumerate({spans}) if end > start)")
    if located and how.readout == "causal-lm":
        lines.append("ids, seen = ids[:, :at], seen[:, :at]")
    if how.max_tokens is None:
        return lines
    refused = f"a text too long: {{ids.shape[1]}} tokens with its template, of {how.max_tokens}"
    return [
        *lines,
        f"if ids.shape[1] > {how.max_tokens}:",
        f"    raise ValueError(f'{refused}')",
    ]


def _loading(how: Recipe, to: str) -> list[str]:
    if to != "peft":
        return ["prompt = load_file(f'{here}/prompt.safetensors')['prompt']"]
    if how.readout == "masked-lm":  # PEFT knows no masked language models: only their encoder
        return [
            "encoder = PeftModel.from_pretrained(model.base_model, here)",
            "setattr(model, model.base_model_prefix, encoder)",
        ]
    return ["model = PeftModel.from_pretrained(model, here)"]


def _forward(how: Recipe, to: str) -> list[str]:
    decoder = ""
    if how.decoder_input_ids is not None:
        decoder = f", decoder_input_ids=torch.tensor([{list(how.decoder_input_ids)}])"
    if to == "peft":
        given = "input_ids=ids, attention_mask=seen"
        return ["with torch.inference_mode():", f"    output = model({given}{decoder})"]
    at = how.insert_at
    return [
        "with torch.inference_mode():",
        f"    words = model.get_input_embeddings()(ids){_times(how)}",
        f"    parts = words[:, :{at}], prompt[None].to(words), words[:, {at}:]",
        f"    output = model(inputs_embeds=torch.cat(parts, dim=1){decoder})",
    ]


def _times(how: Recipe) -> str:
    if how.embedding_scale == 1:
        return ""
    return f" * {how.embedding_scale!r}  # as the model does where it is given ids"


def _reading(how: Recipe) -> list[str]:
    if how.readout == "encoder":
        return _reading_encoder(how)
    at = f"{how.prompt_length} + at" if how.readout == "masked-lm" else "-1"
    ids = iter(how.label_token_ids or ())
    groups = [[next(ids) for _ in words] for words in how.verbalizer]
    labels = ", ".join(how.label_words)
    if _one_each(how):
        words = [word for group in groups for word in group]
        return [f"return output.logits[0, {at}, {words}]{_biased(how)}  # of {labels}"]
    return [
        f"words = {groups}  # of {labels}",
        f"scores = [output.logits[0, {at}, each].mean() for each in words]",
        f"return torch.stack(scores){_biased(how)}",
    ]


def _one_each(how: Recipe) -> bool:
    """Whether each class is read from one word."""
    return all(len(words) == 1 for words in how.verbalizer)


def _biased(how: Recipe) -> str:
    return "" if how.biases is None else f" + torch.tensor({list(how.biases)})"


def _labels(how: Recipe) -> list[str]:
    """What texts are compared with, made before the model is given a prompt."""
    pooled = "mean(dim=0)" if how.pooling == "mean" else "select(0, 0)"
    return [
        "",
        "",
        "def embedded(hidden):",
        f"    return torch.nn.functional.normalize(hidden.{pooled}, dim=-1)",
        "",
        "",
        "labels = []",
        "with torch.inference_mode():",
        *_embedding(how),
    ]


def _embedding(how: Recipe) -> list[str]:
    """Lines within `with`, that fill `labels`."""
    embed = [
        "output = model(**tokenizer(word, return_tensors='pt'))",
        "{}.append(embedded(output.last_hidden_state[0]))",
    ]
    if _one_each(how):
        words = [word for (word,) in how.verbalizer]
        lines = [f"for word in {words!r}:", *(f"    {each.format('labels')}" for each in embed)]
    else:
        lines = [
            f"for words in {[list(words) for words in how.verbalizer]!r}:",
            "    several = []",
            "    for word in words:",
            *(f"        {each.format('several')}" for each in embed),
            "    labels.append(torch.stack(several).mean(dim=0))",
        ]
    return [f"    {line}" for line in lines]


def _reading_encoder(how: Recipe) -> list[str]:
    start, end = how.insert_at, how.insert_at + how.prompt_length
    return [
        "hidden = output.last_hidden_state[0]",
        f"rest = torch.cat([hidden[:{start}], hidden[{end}:]])  # without the prompt",
        f"return torch.stack(labels) @ embedded(rest) / {how.temperature}{_biased(how)}",
    ]
