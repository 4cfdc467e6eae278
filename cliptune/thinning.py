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

UNITS = 32  # matrix units work on multiples of it


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
    ffn_inputs: tuple[nn.Linear, ...] | None  # None where not one layer a block makes ffn-hidden
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
            inputs = [_readers(*pair, width) for pair in zip(blocks, ffn, strict=True)]
            alone = all(len(layers) == 1 for layers in inputs)
            first = tuple(layers[0] for layers in inputs) if alone else None
            return Sites(tuple(blocks), attention, ffn, first, width)
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


def _readers(block: nn.Module, ffn: nn.Linear, width: int) -> list[nn.Linear]:
    """The linear layers of a block from the model's width to that of its ffn-hidden units."""
    return [
        module
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear)
        and (module.in_features, module.out_features) == (width, ffn.in_features)
        and module is not ffn
        and "attn" not in name.lower()
        and "attention" not in name.lower()
    ]


class Thinner:
    """Turns a model into any of its subnetworks: masks are multiplied into weights.

    A thinned model runs no slower than the whole one, and faster where ffn-hidden units are
    dropped: these are not computed. Only the embedding site, which has no weight of its own in
    every family, is a multiplication at run time. Beside the model's own weights, those of one
    subnetwork's thinned layers exist.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._sites: Sites | None = None
        self._whole: list[tuple[Any, nn.Parameter, nn.Parameter | None]] = []
        self._embedding_hook: RemovableHandle | None = None
        self.current = FULL_NETWORK

    def switch(self, spec: SubnetworkSpec) -> None:
        """Make the model the subnetwork that `spec` names."""
        if spec == self.current:
            return
        self._restore()
        try:
            if spec.clip_ratio > 0:
                self._fold(spec)
        except BaseException:  # memory may run out half-way
            self._restore()
            raise
        self.current = spec

    def _fold(self, spec: SubnetworkSpec) -> None:
        self._sites = sites = self._sites or find_sites(self._model)
        for block, layer in enumerate(sites.attention_outputs):
            if "attention-output" in spec.sites:
                self._put(layer, *_scaled(layer, spec, f"attention-output/{block}"))
        for block, layer in enumerate(sites.ffn_outputs):
            weight: Tensor = layer.weight
            bias: Tensor | None = layer.bias
            if "ffn-output" in spec.sites:
                weight, bias = _scaled(layer, spec, f"ffn-output/{block}")
            if "ffn-hidden" in spec.sites:
                kept, scale = _columns(spec, f"ffn-hidden/{block}", layer.in_features)
                if sites.ffn_inputs is None:
                    kept = torch.arange(layer.in_features)
                else:
                    first = sites.ffn_inputs[block]
                    rows = kept.to(first.weight.device)
                    self._put(
                        first,
                        first.weight[rows],
                        first.bias[rows] if first.bias is not None else None,
                    )
                weight = _times(weight[:, kept.to(weight.device)], scale[kept])
            if weight is not layer.weight:
                self._put(layer, weight, bias)
        if "embedding" in spec.sites:
            self._embedding_hook = _scale_block_input(sites, spec)

    def _put(self, layer: Any, weight: Tensor, bias: Tensor | None) -> None:
        """Give a layer other weights, of another shape perhaps, and keep its own."""
        self._whole.append((layer, layer.weight, layer.bias))
        dtype = layer.weight.dtype
        layer.weight = nn.Parameter(weight.to(dtype).contiguous(), requires_grad=False)
        if bias is not None:
            layer.bias = nn.Parameter(bias.to(dtype), requires_grad=False)

    def _restore(self) -> None:
        self.current = FULL_NETWORK
        for layer, weight, bias in self._whole:
            layer.weight = weight
            layer.bias = bias
        self._whole = []
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


def _scaled(layer: nn.Linear, spec: SubnetworkSpec, site: str) -> tuple[Tensor, Tensor | None]:
    """A layer's weight and bias with a site's scale on their output units."""
    rows = unit_scale(spec, site, layer.out_features)
    weight = _times(layer.weight, rows[:, None])
    return weight, None if layer.bias is None else _times(layer.bias, rows)


def _columns(spec: SubnetworkSpec, site: str, units: int) -> tuple[Tensor, Tensor]:
    """Which of a site's units are computed, and the scale of all of them.

    The survivors, and as many of the dropped ones, scaled by 0, as make a multiple of UNITS.
    """
    scale = unit_scale(spec, site, units)
    order = torch.argsort((scale == 0).to(torch.int8), stable=True)
    survivors = int((scale != 0).sum())
    computed = min(units, -(-max(survivors, 1) // UNITS) * UNITS)
    return order[:computed].sort().values, scale


def _times(weight: Tensor, scale: Tensor) -> Tensor:
    """A product in at least single precision."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    return weight.detach().to(wide) * scale.to(weight.device)


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
