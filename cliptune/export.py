"""A found prompt for other programs: an adapter of PEFT, or embeddings for whatever takes them.

What is written names no place on this machine: it is meant to be given away.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from cliptune.account import outcome
from cliptune.card import readme
from cliptune.config import Config, TaskConfig
from cliptune.errors import ConfigError, RunError
from cliptune.examples import HUB_NAME
from cliptune.models.base import OWN, FrozenModel
from cliptune.models.exact import scale_behind
from cliptune.models.seq2seq import Seq2Seq
from cliptune.models.words import WordModel
from cliptune.predictor import Predictor
from cliptune.record import RunRecord
from cliptune.types import PromptArray
from cliptune.weights import MINILM_HUB

TENSOR = "prompt"  # in prompt.safetensors
UNLIMITED = 2**31  # tokens, more than any model has positions for
PEFT_TASKS = {
    "masked-lm": "FEATURE_EXTRACTION",  # of the encoder, whose head is the user's to put on
    "encoder": "FEATURE_EXTRACTION",
    "causal-lm": "CAUSAL_LM",
    "seq2seq": "SEQ_2_SEQ_LM",
}


@dataclass(frozen=True)
class Recipe:
    """How scores come of prompt and text: all that another program has to know."""

    base_model: str  # a hub id, or the name of the folder that the model lay in
    base_model_sha256: str  # of its weights
    readout: str  # as model.readout
    prompt_length: int
    insert_at: int  # tokens of an input that stand before the prompt
    template: str
    label_words: tuple[str, ...]
    verbalizer: tuple[tuple[str, ...], ...]  # the words that each class is read from
    labels: tuple[int | str, ...]  # what the label column has for each
    label_token_ids: (
        tuple[int, ...] | None
    )  # of all words; None where classes are no words of the vocabulary
    decoder_input_ids: tuple[int, ...] | None  # of an encoder-decoder
    mask: str | None  # the token that stands for {mask}
    pooling: str | None  # of an encoder, as is the temperature
    temperature: float | None
    max_tokens: int | None  # of an input, without the prompt; None where there is no limit
    embedding_scale: float  # of embeddings where the model multiplies them behind their layer
    biases: tuple[float, ...] | None = None  # by class, added to the scores that the model gives


def export(record: RunRecord[Config], to: str, out: Path, model: str | None = None) -> list[str]:
    """Write the prompt of a finished run to a new folder; the names of its files.

    `to` is one of `FORMATS`. Raises ConfigError where the format has no room for what was found.
    """
    if to not in FORMATS:
        raise ConfigError(f"--to must be one of {', '.join(FORMATS)}; found {to}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out: {out} is there already; give a new folder.")
    if not outcome(record).finished:
        raise RunError(
            f"{record.path} has not ended, so its prompt is not chosen yet. Go on with it first: "
            f"cliptune search --resume {record.path}"
        )
    if record.config.prompt.layers > 1:
        raise ConfigError(
            f"{record.path} has a prompt at each of {record.config.prompt.layers} layers, which "
            f"{to} has no place for. Search with prompt.layers=1 to export it."
        )
    predictor = Predictor(record, model)
    how = recipe(record, predictor.model)
    if predictor.biases is not None:
        how = replace(how, biases=tuple(predictor.biases.tolist()))
    files = FORMATS[to](how, predictor.prompt, predictor.model)
    source = public_source(record.config.task)
    files["README.md"] = readme(record, how, to, source).encode()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (out / name).write_bytes(content)
    except OSError as error:
        raise RunError(f"{out} cannot be written: {error.strerror}.") from error
    return sorted(files)


def recipe(record: RunRecord[Config], model: FrozenModel) -> Recipe:
    """How this run's model comes to its scores."""
    task, encoder = record.config.task, model.readout == "encoder"
    if model.readout == OWN:
        raise ConfigError(
            f"A read-out of your own ({record.config.model.readout}) cannot be exported: the model "
            "card would not know how to come to its scores. `cliptune predict` does."
        )
    words, beginning, mask = None, None, None
    own = record.config.scorer.url is None  # else model.name was not used
    if isinstance(model, WordModel):
        words = tuple(model.find_label_words())
    if isinstance(model, Seq2Seq):
        beginning = tuple(model.beginning)
        mask = model.mask_token
    elif model.readout != "causal-lm" and model.task.template.has_mask:
        mask = str(model.tokenizer.mask_token)
    return Recipe(
        base_model=public_name(record.config.model.name if own else record.facts.name),
        base_model_sha256=record.facts.sha256,
        readout=model.readout,
        prompt_length=record.config.prompt.length,
        insert_at=model.prompt_offset,
        template=task.template,
        label_words=task.label_words,
        verbalizer=model.task.words,
        labels=record.label_values,
        label_token_ids=words,
        decoder_input_ids=beginning,
        mask=mask,
        pooling=record.config.model.pooling if encoder else None,
        temperature=record.config.model.temperature if encoder else None,
        max_tokens=_most_tokens(model.max_input, record.config.prompt.length),
        embedding_scale=scale_behind(model.module),
    )


def _most_tokens(positions: int, prompt: int) -> int | None:
    """What is left of the positions; a tokenizer that knows no limit says a huge one."""
    return positions - prompt if positions < UNLIMITED else None


def public_name(name: str) -> str:
    """A model's name for others: a hub id as it is, of a folder its last part alone."""
    if name == "minilm":
        return MINILM_HUB
    path = Path(name)
    is_path = path.is_absolute() or path.exists() or name.startswith((".", "~"))
    return path.name if is_path else name


def public_source(task: TaskConfig) -> str:
    """Where the examples are from, for others: a dataset as the hub has it, of a path its end."""
    if task.data is None:
        return f"`{task.name}`, embedded in cliptune"
    if Path(task.data).exists() or not HUB_NAME.fullmatch(task.data):
        return f"`{Path(task.data).name}`, local files"
    subset = f", `{task.subset}`" if task.subset else ""
    return f"`{task.data}`{subset} of the hub"


Files = dict[str, bytes]


def _embeddings(how: Recipe, prompt: PromptArray, model: FrozenModel) -> Files:
    """A tensor `(length, width)` float32, and JSON that says where it goes."""
    return {
        "prompt.safetensors": _safetensors({TENSOR: prompt}),
        "prompt.json": _json({"format": "cliptune-embeddings", "version": 1, **asdict(how)}),
    }


def _peft(how: Recipe, prompt: PromptArray, model: FrozenModel) -> Files:
    """What `PeftModel.from_pretrained` reads: PEFT itself writes the config."""
    if how.insert_at:
        raise ConfigError(
            "PEFT puts a prompt in front of an input, but this one was searched behind its first "
            "token, where other positions give other scores. Search with prompt.position=front, or "
            "use --to embeddings."
        )
    if how.embedding_scale != 1:
        raise ConfigError(
            "PEFT puts a prompt before embeddings that this model scales behind their layer, which "
            "it leaves out: its scores would be others. Use --to embeddings."
        )
    if importlib.util.find_spec("peft") is None:
        raise ConfigError("--to peft needs the package peft: pip install 'cliptune[peft]'")
    from peft import PromptTuningConfig, TaskType

    config: Any = model.module.config
    adapter = PromptTuningConfig(
        task_type=TaskType[PEFT_TASKS[how.readout]],
        base_model_name_or_path=how.base_model,
        num_virtual_tokens=how.prompt_length,
        token_dim=prompt.shape[1],
        num_transformer_submodules=1,  # of two, the encoder alone is given the prompt
        num_attention_heads=config.num_attention_heads,
        num_layers=config.num_hidden_layers,
        inference_mode=True,
    )
    values = {key: _plain(value) for key, value in adapter.to_dict().items()}
    return {
        "adapter_config.json": _json(values),
        "adapter_model.safetensors": _safetensors({"prompt_embeddings": prompt}),
        "recipe.json": _json(asdict(how)),
    }


def _safetensors(tensors: dict[str, PromptArray]) -> bytes:
    return bytes(save({name: np.ascontiguousarray(one) for name, one in tensors.items()}))


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _plain(value: Any) -> Any:
    """As JSON has it: PEFT's enumerations are texts, its sets lists."""
    return sorted(value) if isinstance(value, set) else getattr(value, "value", value)


FORMATS: Mapping[str, Callable[[Recipe, PromptArray, FrozenModel], Files]] = {
    "peft": _peft,
    "embeddings": _embeddings,
}
