"""Where a transformer can be thinned. Sites are tensors between its modules:

embedding         the input of the first block; of an encoder's and of a decoder's
attention-output  what attention adds to the residual stream, a block
ffn-hidden        the activation inside the feed-forward layer, a block
ffn-output        what the feed-forward layer adds to the residual stream, a block
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from cliptune.errors import ModelError

Writers = tuple[tuple[nn.Linear, ...], nn.Linear]  # of a block: its attentions', its ffn's


@dataclass(frozen=True)
class Sites:
    """Where a model can be thinned, in the order in which it computes: an encoder before a decoder.

    A decoder's block that attends to the encoder, too, has two attention outputs.
    """

    stacks: tuple[tuple[nn.Module, ...], ...]  # blocks; two stacks where a decoder has an encoder
    attention_outputs: tuple[nn.Linear, ...]
    ffn_outputs: tuple[nn.Linear, ...]  # one a block
    ffn_inputs: tuple[nn.Linear, ...] | None  # None where not one layer a block makes ffn-hidden
    width: int

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """The blocks of all stacks."""
        return tuple(block for stack in self.stacks for block in stack)


def find_sites(model: nn.Module) -> Sites:
    """Find a transformer's blocks and, in each, the layers that write to the residual stream.

    In a block these are the last linear layer of each attention and the last one outside of it
    among those with the model's width as output.
    """
    config: Any = model.config
    width = config.hidden_size
    # what has no heads is recurrent, whatever its parts are called
    attends = getattr(config, "num_attention_heads", None) is not None
    found = [_stack(part, depth, width) if attends else {} for part, depth in _parts(model)]
    if not all(found):
        depths = " and ".join(str(depth) for _, depth in _parts(model))
        raise ModelError(
            f"{type(model).__name__} cannot be thinned: expected {depths} blocks, each with an "
            f"attention and a feed-forward part that end in a linear layer of width {width}; found "
            "none. Set ensemble.mode to none to search without clipping."
        )
    writers = [pair for pairs in found for pair in pairs.values()]
    attention = tuple(layer for layers, _ in writers for layer in layers)
    ffn = tuple(layer for _, layer in writers)
    stacks = tuple(tuple(pairs) for pairs in found)
    blocks = (block for stack in stacks for block in stack)
    inputs = [_readers(*pair, width) for pair in zip(blocks, ffn, strict=True)]
    alone = all(len(layers) == 1 for layers in inputs)
    first = tuple(layers[0] for layers in inputs) if alone else None
    return Sites(stacks, attention, ffn, first, width)


def _parts(model: Any) -> list[tuple[nn.Module, int]]:
    """What has blocks of its own, and how many: the model, or its encoder and its decoder."""
    config = model.config
    if not getattr(config, "is_encoder_decoder", False):
        return [(model, config.num_hidden_layers)]
    deep = getattr(config, "num_decoder_layers", None) or config.decoder_layers
    return [(model.get_encoder(), config.num_hidden_layers), (model.get_decoder(), deep)]


def _stack(part: nn.Module, depth: int, width: int) -> dict[nn.Module, Writers]:
    """The blocks of a model's part with their writers; empty where they are not found."""
    lists = [m for m in part.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    for blocks in lists:
        found = {block: _writers(block, width) for block in blocks}
        if all(attention and ffn for attention, ffn in found.values()):
            return {block: (layers, ffn) for block, (layers, ffn) in found.items() if ffn}
    return {}


def _writers(block: nn.Module, width: int) -> tuple[tuple[nn.Linear, ...], nn.Linear | None]:
    """The last layer of each attention, and that of the feed-forward part.

    None of a mixture of experts, whose units are other ones for each token.
    """
    attention: dict[str, nn.Linear] = {}
    ffn = None
    for name, module in block.named_modules():
        if "expert" in name.lower():
            return (), None
        if isinstance(module, nn.Linear) and module.out_features == width:
            if within := _attention(name):
                attention[within] = module
            else:
                ffn = module
    return tuple(attention.values()), ffn


def _attention(name: str) -> str:
    """The attention that a module of a block belongs to, by its name; empty for none."""
    parts = name.split(".")
    for i, part in enumerate(parts):
        if "attn" in part.lower() or "attention" in part.lower():
            return ".".join(parts[: i + 1])
    return ""


def _readers(block: nn.Module, ffn: nn.Linear, width: int) -> list[nn.Linear]:
    """The linear layers of a block from the model's width to that of its ffn-hidden units."""
    return [
        module
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear)
        and (module.in_features, module.out_features) == (width, ffn.in_features)
        and module is not ffn
        and not _attention(name)
    ]
