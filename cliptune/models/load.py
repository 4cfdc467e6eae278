"""Finding, checking and loading a model: safetensors only, no remote code."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from cliptune.device import is_out_of_memory
from cliptune.errors import ConfigError, ModelError
from cliptune.functions import readout
from cliptune.hashing import digest
from cliptune.models import fast
from cliptune.models.base import FrozenModel
from cliptune.models.causal_lm import CausalLM
from cliptune.models.encoder import Encoder
from cliptune.models.exact import make_exact
from cliptune.models.large import placement, refuse_offloaded, refuse_widths
from cliptune.models.masked_lm import MaskedLM
from cliptune.models.seq2seq import Seq2Seq
from cliptune.task import Task
from cliptune.weights import source_of

if TYPE_CHECKING:
    from cliptune.config import Config, ModelConfig

FAMILIES: dict[str, type[FrozenModel]] = {
    family.readout: family for family in (MaskedLM, CausalLM, Seq2Seq, Encoder)
}
HEADS = {  # by the end of an architecture's name; the first that fits
    "ForMaskedLM": "masked-lm",
    "WithLMHeadModel": "masked-lm",  # XLM's, Flaubert's
    "ElectraForPreTraining": "encoder",  # these tell words apart, and have none to give
    "FunnelForPreTraining": "encoder",
    "ForPreTraining": "masked-lm",
    "ForCausalLM": "causal-lm",
    "LMHeadModel": "causal-lm",
}

UNESSENTIAL = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "_commit_hash"}


@dataclass(frozen=True)
class Loaded:
    """A model as it lies on disk, before it is made to score some task."""

    family: type[FrozenModel]
    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def another(self) -> Loaded:
        """The same with layers of its own to be changed, that share their weights with these."""
        weights = (*self.module.parameters(), *self.module.buffers())
        module = copy.deepcopy(self.module, {id(tensor): tensor for tensor in weights})
        return Loaded(self.family, module, self.tokenizer)


def load_model(
    config: Config, task: Task, without: Collection[str] | None = (), gpus: int = 1
) -> FrozenModel:
    """Load the model that `model.name` names, ready to score `task`, but for some changes fast.

    `without` None leaves it wholly as it is. On a GPU it takes the first one, or all of several.
    """
    return prepared(load_plain(config.model, gpus), config, task, without)


def load_plain(config: ModelConfig, gpus: int = 1) -> Loaded:
    """Load the model that `model.name` names, for any task."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ModelError("model.device is cuda, but there is no GPU here that torch can use.")
    source = source_of(config.name)
    family = _family(source, config)
    tokenizer = _tokenizer(source)
    module = _weights(source, family, config, placement(config, gpus))
    fast.with_linear_layers(module)
    module.requires_grad_(False).eval()
    make_exact(module, tokenizer, family.readout)
    return Loaded(family, module, tokenizer)


def prepared(
    loaded: Loaded, config: Config, task: Task, without: Collection[str] | None = ()
) -> FrozenModel:
    """A loaded model made ready to score `task`; its layers are changed."""
    position = config.prompt.position
    model = loaded.family(loaded.module, loaded.tokenizer, task, config.model, position)
    if without is not None:
        model.speed_up(without)
    return model


def load_structure(config: Config, task: Task) -> FrozenModel:
    """The same model without weights: it can tokenise and measure, but not score."""
    source = source_of(config.model.name)
    family = _family(source, config.model)
    tokenizer = _tokenizer(source)
    try:
        structure = AutoConfig.from_pretrained(source, trust_remote_code=False)
        with torch.device("meta"):
            module = family.auto.from_config(structure, trust_remote_code=False)
    except Exception as error:  # each of these files can be wrong in ways of its own
        raise ModelError(_not_found(source, error)) from error
    fast.with_linear_layers(module)
    return family(module, tokenizer, task, config.model, config.prompt.position)


def family_of(config: ModelConfig) -> type[FrozenModel]:
    """What reads the model out: as the config says, where it is auto by config.json alone."""
    return _family(source_of(config.name), config)


def shape_of(name: str) -> tuple[int, int]:
    """Layers of a model and the width of its word embeddings, by its config.json alone."""
    source = source_of(name)
    config = _config(source).get_text_config()
    width = getattr(config, "embedding_size", None) or config.hidden_size
    return int(config.num_hidden_layers), int(width)


def config_digest(config: dict[str, Any]) -> str:
    """SHA-256 of what a model's config.json says of the network, not of where and how it lies."""
    return digest(
        json.loads(
            json.dumps({k: v for k, v in config.items() if k not in UNESSENTIAL}, default=str)
        )
    )


def own_readout(name: str, found: Any) -> type[FrozenModel]:
    """A user's read-out: a class beside ours."""
    if not (isinstance(found, type) and issubclass(found, FrozenModel) and hasattr(found, "auto")):
        raise ConfigError(
            f"{readout.setting}: {name} must be a subclass of cliptune.models.FrozenModel that "
            f"says, as `auto`, which Auto class of transformers loads it; found {found!r:.60}."
        )
    return found


def _family(source: str, config: ModelConfig) -> type[FrozenModel]:
    """The read-out asked for, or the one that goes with the architecture that config.json names."""
    found = _config(source)
    two = bool(getattr(found, "is_encoder_decoder", False))
    heads = getattr(found, "architectures", None) or []
    if two and any(name.endswith("EncoderModel") for name in heads):
        raise ModelError(
            f"model.name: {source} is an encoder without its decoder ({heads[0]}), which no "
            "read-out takes. Choose the whole model, for seq2seq, or another encoder."
        )
    if config.readout == "auto":
        family = FAMILIES["seq2seq" if two else _by_head(heads)]
    else:
        family = readout.find(config.readout)
        if two != family.two_stacks:
            kind = "an encoder with a decoder" if two else "no encoder with a decoder"
            fits = "seq2seq" if two else "masked-lm, causal-lm or encoder"
            raise ModelError(
                f"model.readout {config.readout} does not go with {source}, which is {kind} "
                f"({found.model_type}). Leave it on auto, or choose {fits}."
            )
    _refuse_other_than_text(source, found, family)
    if config.readout == "auto" and not (two or heads):
        raise ModelError(
            f"The config.json of {source} names no architectures, by which model.readout=auto "
            "chooses. Set model.readout to masked-lm, causal-lm or encoder."
        )
    return family


def _refuse_other_than_text(source: str, config: Any, family: type[FrozenModel]) -> None:
    """Refuse what is fed pictures or sound, or several kinds of input."""
    known = getattr(family.auto, "_model_mapping", {})
    model = known.get(type(config), None)
    fed = getattr(model, "main_input_name", "input_ids")
    sized = hasattr(config, "hidden_size") and hasattr(config, "num_hidden_layers")
    if sized and fed == "input_ids" and (model or not known):
        return
    if config.get_text_config() is not config:
        why, remedy = "has a part for text among others", "Choose a model that is that part alone"
    elif sized and fed != "input_ids":
        why, remedy = f"is fed {fed}", "Choose another one"
    elif sized:
        why = f"is none that transformers reads out as {family.readout}"
        remedy = "Choose another one, or another model.readout"
    else:
        why, remedy = "has no hidden_size and num_hidden_layers", "Choose another one"
    raise ModelError(
        f"model.name: {source} is no language model of text alone for {family.readout}: its "
        f"config.json says {config.model_type}, which {why}. {remedy}."
    )


def _by_head(architectures: list[str]) -> str:
    found = [HEADS[end] for name in architectures for end in HEADS if name.endswith(end)]
    return found[0] if found else "encoder"


def _config(source: str) -> Any:
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # each of these files can be wrong in ways of its own
        raise ModelError(_not_found(source, error)) from error


def _tokenizer(source: str) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # each of these files can be wrong in ways of its own
        raise ModelError(_not_found(source, error)) from error


def _weights(
    source: str, family: type[FrozenModel], config: ModelConfig, placed: dict[str, Any]
) -> PreTrainedModel:
    dtype = getattr(torch, config.dtype)
    logging.disable_progress_bar()
    try:
        module, report = family.auto.from_pretrained(
            source,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **placed,
        )
    except Exception as error:  # each of these files can be wrong in ways of its own
        if is_out_of_memory(error):
            raise
        raise ModelError(_not_found(source, error)) from error
    if missing := sorted(key for key in report["missing_keys"] if "pooler" not in key):
        raise ModelError(
            f"{source} has no weights for {missing[0]} ({len(missing)} missing), which the "
            f"{family.readout} read-out needs. Choose another model or model.readout."
        )
    refuse_offloaded(module, config)
    refuse_widths(module, config)
    loaded: PreTrainedModel = module if placed else module.to(config.device)
    return loaded


def _not_found(source: str, error: Exception) -> str:
    what = (str(error) or type(error).__name__).splitlines()[0]
    if not isinstance(error, (OSError, ValueError)):
        what = f"{type(error).__name__}: {what}"
    return f"model.name: {source} cannot be loaded as a model with safetensors weights: {what}"
