"""Models that do not fit as they are: spread over several GPUs, or with fewer bits a weight."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from cliptune.errors import ConfigError, OutOfMemoryError

if TYPE_CHECKING:
    from cliptune.config import ModelConfig

BLOCK = 64  # weights of 4 bits that share a scale
OUTPUTS = 32  # that bitsandbytes computes together on a CPU


def placement(config: ModelConfig, gpus: int) -> dict[str, Any]:
    """What `from_pretrained` is given for it; nothing where a model is simply moved to its device.

    `gpus` are those of this process, of which a model takes all.
    """
    several = config.device == "cuda" and gpus > 1
    if config.quantize is None and not several:
        return {}
    reason = f"model.quantize={config.quantize}" if config.quantize else f"{gpus:g} GPUs an actor"
    for package in ("accelerate", *(("bitsandbytes",) if config.quantize else ())):
        if find_spec(package) is None:
            raise ConfigError(
                f"{reason} needs {package}, which is not installed where the model is loaded: "
                "pip install 'cliptune[large]'."
            )
    given: dict[str, Any] = {"device_map": "balanced" if several else {"": config.device}}
    if config.quantize is not None:
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # else a line a forward pass
        given["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=config.quantize == "8bit",
            load_in_4bit=config.quantize == "4bit",
            bnb_4bit_compute_dtype=getattr(torch, config.dtype),
        )
    return given


def quantised_bytes(module: Any, quantize: str) -> dict[Tensor, int]:
    """What each weight that bitsandbytes quantises comes to; `module` is one that is not yet.

    They are those of all linear layers but the vocabulary's. A number in single precision goes
    with each row of 8 bits a weight, and with each block of 4 bits.
    """
    head = module.get_output_embeddings()
    weights = [m.weight for m in module.modules() if type(m) is nn.Linear and m is not head]
    if quantize == "8bit":
        return {weight: weight.numel() + 4 * len(weight) for weight in weights}
    return {weight: weight.numel() // 2 + 4 * -(-weight.numel() // BLOCK) for weight in weights}


def refuse_offloaded(module: Any, config: ModelConfig) -> None:
    """Refuse a model of which accelerate left a part outside of the GPUs, for want of memory.

    Its weights are fetched as they are needed: they cannot be thinned, and it is slow.
    """
    places = set(map(str, getattr(module, "hf_device_map", {}).values()))
    if config.device == "cuda" and places & {"cpu", "disk", "meta"}:
        raise OutOfMemoryError(
            f"{config.name} does not fit into the memory of an actor's GPUs. More of them "
            "(cluster.gpus_per_actor), a smaller model or model.quantize=4bit would do."
        )


def refuse_widths(module: Any, config: ModelConfig) -> None:
    """Refuse layers that bitsandbytes, where it uses a CPU's bfloat16, could not lay out anew for
    it: it would say so in the first forward pass, in terms of its own."""
    if config.quantize != "4bit" or config.device != "cpu":
        return
    for name, layer in module.named_modules():
        if not getattr(layer, "support_avx512bf16_for_cpu", False):
            continue
        if layer.in_features % BLOCK or layer.out_features % OUTPUTS:
            raise ConfigError(
                f"model.quantize=4bit: on this CPU a layer must have a multiple of {BLOCK} inputs "
                f"and of {OUTPUTS} outputs; {name} of {config.name} has {layer.in_features} and "
                f"{layer.out_features}. Choose model.quantize=8bit, or none."
            )
