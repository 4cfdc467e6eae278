"""Whether a model scores embeddings as their words, and rows as if alone: tried when it is loaded.

Families differ in what they make of `inputs_embeds` and of padding, and none says so: a scale that
only ids meet, a convolution that reads what is padded. So each is compared with itself by ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cliptune.device import is_out_of_memory
from cliptune.errors import ModelError
from cliptune.models.fast import place

LONG, SHORT = 9, 5  # tokens of the inputs that are compared
SAME = 1e-3  # relative, where the same operations meet the same numbers; nothing is rounded anew
ROUNDED = {torch.float64: 1e-6, torch.float32: 1e-3}  # where they meet others; half types: COARSE
COARSE = 0.1

Hidden = tuple[Tensor, ...]  # (tokens, width) of a row, of an encoder and of its decoder


class Scaled(nn.Embedding):
    """Word embeddings as a model makes them of ids, where it scales them behind the layer."""

    def __init__(self, words: nn.Embedding, scale: float) -> None:
        super().__init__(words.num_embeddings, words.embedding_dim, device="meta")
        self.weight = words.weight
        self.embed_scale = scale

    def forward(self, input: Tensor) -> Tensor:
        """Ids `(...)` to embeddings `(..., width)`."""
        return super().forward(input) * self.embed_scale


@torch.inference_mode()
def make_exact(module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, readout: str) -> None:
    """See to it that embeddings give what their words give, padded or not.

    Where the model scales its words, its embedding layer does so from here on. Raises ModelError
    for a model that gives something else, or cannot be run so.
    """
    name = f"model.name: {type(module).__name__}"
    try:
        wrong = _wrong(_Trial(module, tokenizer, readout))
    except Exception as error:  # the model's own code, used otherwise than it was meant
        if is_out_of_memory(error):
            raise
        found = " ".join(f"{type(error).__name__} {error}".split())
        raise ModelError(
            f"{name} cannot be given a prompt: expected a model that takes embeddings in the place "
            f"of words, and padding; trying it found {found:.200}. Choose a model of another family"
            + ("." if module.dtype == torch.float32 else ", or model.dtype=float32.")
        ) from error
    if wrong:
        raise ModelError(f"{name} {wrong}")


def scale_behind(module: PreTrainedModel) -> float:
    """By what the model multiplies its embedding layer's output where it is given ids; often 1."""
    embed: Any = module.get_input_embeddings()
    return float(embed.embed_scale) if isinstance(embed, Scaled) else 1.0


class _Trial:
    """A model, and two inputs of unlike lengths that hold the special tokens of real ones."""

    def __init__(
        self, module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, readout: str
    ) -> None:
        self.module, self.readout = module, readout
        special = set(tokenizer.all_special_ids)
        known = min(len(tokenizer), len(module.get_input_embeddings().weight))
        words = [i for i in range(known) if i not in special] or list(range(known))
        picked = [words[i * 7919 % len(words)] for i in range(2 * LONG)]
        first: int = tokenizer("a")["input_ids"][0]
        begin = [first] if first in special else []
        mask = [] if tokenizer.mask_token_id is None else [tokenizer.mask_token_id]
        ids = [*begin, picked[0], *mask, *picked[1:]][:LONG]
        self.long, self.short = torch.tensor([ids]), torch.tensor([[*ids[:2], *picked[-SHORT:-2]]])
        self.fillers = torch.tensor([tokenizer.pad_token_id or 0, picked[-1]])

    def by_ids(self, ids: Tensor) -> Hidden:
        """What the model makes of a row's words."""
        return self._run(input_ids=ids.to(self.module.device))[0]

    def embedded(self, ids: Tensor) -> Hidden:
        """What it makes of their embeddings."""
        return self._run(inputs_embeds=self._words(ids))[0]

    def padded(self, filler: Tensor) -> list[Hidden]:
        """The same, both rows at once: the shorter one filled up with a token."""
        short = self.short.shape[1]
        ids = torch.cat([self.long, filler.expand(1, LONG)])
        ids[1, :short] = self.short[0]
        seen = torch.ones_like(ids)
        seen[1, short:] = 0
        mask = seen.to(self.module.device)
        rows = self._run(inputs_embeds=self._words(ids), attention_mask=mask)
        return [rows[0], (rows[1][0][:short], *rows[1][1:])]

    def _words(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.module.get_input_embeddings()(ids.to(self.module.device))
        return embedded

    def _run(self, **inputs: Tensor) -> list[Hidden]:
        config: Any = self.module.config
        given: dict[str, Any] = dict(inputs)
        two = bool(getattr(config, "is_encoder_decoder", False))
        if two or self.readout == "causal-lm":
            given["use_cache"] = False
        if two:
            rows = len(next(iter(inputs.values())))
            start = getattr(config, "decoder_start_token_id", None) or 0
            given["decoder_input_ids"] = torch.full((rows, 1), start, device=self.module.device)
        body: list[Any] = []
        hook = self.module.base_model.register_forward_hook(lambda *its: body.append(its[-1]))
        try:
            output = self.module(**given)
        finally:
            hook.remove()
        # T5 has its head within its body, and OPT passes its body by
        last = getattr(body[0] if body else output, "last_hidden_state", None)
        if last is None:
            last = output.logits
        parts = [output.encoder_last_hidden_state] if two else []
        return list(zip(*parts, last, strict=True))


def _wrong(trial: _Trial) -> str | None:
    """What is wrong with a model, in words."""
    module = trial.module
    same = COARSE if getattr(module, "is_quantized", False) else SAME
    alone = [trial.by_ids(ids) for ids in (trial.long, trial.short)]
    if not all(part.isfinite().all() for row in alone for part in row):
        return (
            "makes of words what are no finite numbers. Its weights are damaged, or too large for "
            f"model.dtype {str(module.dtype).removeprefix('torch.')}: try a wider one, or load the "
            "model anew."
        )
    off = _off([trial.embedded(trial.long)], alone[:1]).max()
    if not off <= same and _scale_words(module):
        off = _off([trial.embedded(trial.long)], alone[:1]).max()
    if not off <= same:
        return (
            "cannot be given a prompt: expected of word embeddings what their words give, found a "
            f"difference of {off:.0e} of its norm. Choose a model of another family."
        )
    if trial.readout == "causal-lm" and not _sees_no_later_words(trial, same):
        return (
            "is no causal language model: expected that words do not see those behind them, found "
            "that they do. Choose another model, or model.readout masked-lm or encoder."
        )
    padded, others = (trial.padded(filler) for filler in trial.fillers)
    leak = _off(others, padded).max()
    # a mixture of experts may send single words elsewhere as they are rounded: so not the largest
    rounded = _off(padded, alone).median()
    if not (leak <= same and rounded <= max(same, ROUNDED.get(module.dtype, COARSE))):
        return (
            "scores an input otherwise beside longer ones: expected that padding changes nothing, "
            f"found a difference of {max(leak, rounded):.0e} of its norm. Choose a model of "
            "another family."
        )
    return None


def _off(found: Sequence[Hidden], wanted: Sequence[Hidden]) -> Tensor:
    """How far each token of all rows is off, of its norm."""
    pairs = [both for rows in zip(found, wanted, strict=True) for both in zip(*rows, strict=True)]
    parts = [(one.float() - other.float()).norm(dim=-1) for one, other in pairs]
    norms = [other.float().norm(dim=-1) for _, other in pairs]
    return torch.cat(parts).cpu() / torch.cat(norms).cpu()


def _sees_no_later_words(trial: _Trial, same: float) -> bool:
    other = trial.long.clone()
    other[0, -1] = trial.fillers[1]
    one, two = (trial.by_ids(ids)[0][:-1] for ids in (trial.long, other))
    return bool(_off([(one,)], [(two,)]).max() <= same)


def _scale_words(module: PreTrainedModel) -> bool:
    """Have the embedding layer scale its output, where a stack around it does that with ids."""
    embed = module.get_input_embeddings()
    if type(embed) is not nn.Embedding:
        return False
    stacks = [part for part in module.modules() if isinstance(part, PreTrainedModel)]
    scales = {getattr(stack, "embed_scale", 1.0) for stack in stacks} - {1.0}
    if len(scales) != 1:
        return False
    # its own copy of the layer is what a decoder makes its words of, without this scale
    parent, name = place(module, embed)
    setattr(parent, name, Scaled(embed, float(scales.pop())))
    return True
