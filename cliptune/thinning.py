"""Thinned subnetworks: a frozen model with a fixed part of its hidden units dropped.

Chai et al. (2022) call it stationary clipping: every unit of a site is dropped with probability
p, once and for all tokens, examples and candidates; survivors are divided by 1 - p. Sites are
tensors between a model's modules:

    embedding         the input of the first block
    attention-output  what attention adds to the residual stream, a block
    ffn-hidden        the activation inside the feed-forward layer, a block
    ffn-output        what the feed-forward layer adds to the residual stream, a block
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cliptune.errors import ModelError
from cliptune.randomness import bits
from cliptune.subnetwork import FULL_NETWORK, SubnetworkSpec


def keep_mask(spec: SubnetworkSpec, site: str, units: int) -> NDArray[np.bool_]:
    """Which of a site's units survive, `(units,)`; `site` is e.g. `ffn-output/3`, by block.

    Depends on the ensemble's seed, the subnetwork and the site alone. Unit u is dropped where
    the u-th 64-bit word of the generator, read as a fraction of 2^64, is below the clip ratio.
    """
    purpose = ("mask", spec.seed, spec.index, spec.generation, site)
    words = bits(*purpose).random_raw(units) >> np.uint64(11)
    return np.asarray(words >= np.uint64(spec.clip_ratio * 2.0**53))


def unit_scale(spec: SubnetworkSpec, site: str, units: int) -> Tensor:
    """What a site's units are multiplied by, `(units,)` float32: 0, or 1 / (1 - p)."""
    kept = keep_mask(spec, site, units).astype(np.float32)
    return torch.from_numpy(kept / np.float32(1.0 - spec.clip_ratio))


@dataclass(frozen=True)
class Sites:
    """Where a model can be thinned, by block."""

    blocks: tuple[nn.Module, ...]
    attention_outputs: tuple[nn.Linear, ...]
    ffn_outputs: tuple[nn.Linear, ...]
    width: int


def find_sites(model: nn.Module) -> Sites:
    """Find a transformer's blocks and, in each, the two layers that write to the residual stream.

    In a block these are the last linear layer of the attention and the last one outside of it
    among those with the model's width as output.
    """
    config: Any = model.config
    width, depth = config.hidden_size, config.num_hidden_layers
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    for blocks in lists:
        found = [_writers(block, width) for block in blocks]
        if all(found):
            attention, ffn = zip(*(pair for pair in found if pair), strict=True)
            return Sites(tuple(blocks), attention, ffn, width)
    raise ModelError(
        f"{type(model).__name__} cannot be thinned: expected {depth} blocks, each with an "
        f"attention and a feed-forward part that end in a linear layer of width {width}; found "
        "none. Set ensemble.mode to none to search without clipping."
    )


def _writers(block: nn.Module, width: int) -> tuple[nn.Linear, nn.Linear] | None:
    attention = ffn = None
    for name, module in block.named_modules():
        if isinstance(module, nn.Linear) and module.out_features == width:
            if "attn" in name.lower() or "attention" in name.lower():
                attention = module
            else:
                ffn = module
    return (attention, ffn) if attention is not None and ffn is not None else None


class Thinner:
    """Turns a model into any of its subnetworks, in place: masks are multiplied into weights.

    A thinned model runs as fast as the whole one. Only the embedding site, which has no weight
    of its own in every family, is a multiplication at run time. At most one copy of the thinned
    layers' weights is kept beside the model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._sites: Sites | None = None
        self._whole: list[tuple[nn.Linear, Tensor, Tensor | None]] = []
        self._embedding_hook: RemovableHandle | None = None
        self.current = FULL_NETWORK

    def switch(self, spec: SubnetworkSpec) -> None:
        """Make the model the subnetwork that `spec` names."""
        if spec == self.current:
            return
        self._restore()
        if spec.clip_ratio > 0:
            self._fold(spec)
        self.current = spec

    def _fold(self, spec: SubnetworkSpec) -> None:
        self._sites = self._sites or find_sites(self._model)
        if not self._whole:
            layers = (*self._sites.attention_outputs, *self._sites.ffn_outputs)
            self._whole = [
                (m, m.weight.clone(), None if m.bias is None else m.bias.clone()) for m in layers
            ]
        for block, layer in enumerate(self._sites.attention_outputs):
            _fold_layer(layer, spec, block, output="attention-output", input=None)
        for block, layer in enumerate(self._sites.ffn_outputs):
            _fold_layer(layer, spec, block, output="ffn-output", input="ffn-hidden")
        if "embedding" in spec.sites:
            self._embedding_hook = _scale_block_input(self._sites, spec)

    def _restore(self) -> None:
        if self.current.clip_ratio == 0:
            return
        with torch.no_grad():
            for layer, weight, bias in self._whole:
                layer.weight.copy_(weight)
                if bias is not None:
                    layer.bias.copy_(bias)
        if self._embedding_hook is not None:
            self._embedding_hook.remove()
            self._embedding_hook = None


@contextmanager
def hooked(model: nn.Module, spec: SubnetworkSpec) -> Iterator[None]:
    """The oracle: within, every site's tensor is multiplied by its mask as the model runs.

    Slower than `Thinner` and literally the definition, which is what it is for.
    """
    handles: list[RemovableHandle] = []
    if spec.clip_ratio > 0:
        sites = find_sites(model)
        if "embedding" in spec.sites:
            handles.append(_scale_block_input(sites, spec))
        for block, (attention, ffn) in enumerate(
            zip(sites.attention_outputs, sites.ffn_outputs, strict=True)
        ):
            if "attention-output" in spec.sites:
                handles.append(_scale_output(attention, spec, f"attention-output/{block}"))
            if "ffn-hidden" in spec.sites:
                handles.append(_scale_input(ffn, spec, f"ffn-hidden/{block}"))
            if "ffn-output" in spec.sites:
                handles.append(_scale_output(ffn, spec, f"ffn-output/{block}"))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _fold_layer(
    layer: nn.Linear, spec: SubnetworkSpec, block: int, *, output: str, input: str | None
) -> None:
    with torch.no_grad():
        weight = layer.weight.to(torch.promote_types(layer.weight.dtype, torch.float32))
        if output in spec.sites:
            rows = unit_scale(spec, f"{output}/{block}", layer.out_features).to(weight.device)
            weight = weight * rows[:, None]
            if layer.bias is not None:
                layer.bias.copy_(layer.bias.to(weight.dtype) * rows)
        if input in spec.sites:
            columns = unit_scale(spec, f"{input}/{block}", layer.in_features).to(weight.device)
            weight = weight * columns
        layer.weight.copy_(weight)


def _scale_output(module: nn.Module, spec: SubnetworkSpec, site: str) -> RemovableHandle:
    def multiply(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output * unit_scale(spec, site, output.shape[-1]).to(output)

    return module.register_forward_hook(multiply)


def _scale_input(module: nn.Module, spec: SubnetworkSpec, site: str) -> RemovableHandle:
    def multiply(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0] * unit_scale(spec, site, inputs[0].shape[-1]).to(inputs[0]), *inputs[1:])

    return module.register_forward_pre_hook(multiply)


def _scale_block_input(sites: Sites, spec: SubnetworkSpec) -> RemovableHandle:
    like = sites.ffn_outputs[0].weight
    scale = unit_scale(spec, "embedding/0", sites.width).to(like)

    def multiply(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if inputs:
            return (inputs[0] * scale, *inputs[1:]), named
        return inputs, {**named, "hidden_states": named["hidden_states"] * scale}

    return sites.blocks[0].register_forward_pre_hook(multiply, with_kwargs=True)
