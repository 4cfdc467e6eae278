"""What every frozen model can do: tokenise a split, take a prompt, give class scores.

A family adds its read-out in a file of its own. Inputs are `inputs_embeds`: the model's own word
embeddings with the prompt inserted, so no model code is copied and positions, token types and
padding stay the model's business. Padding is on the right.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cliptune.errors import ConfigError
from cliptune.models import attention, fast
from cliptune.models.deep import DeepPrompts
from cliptune.models.tokenize import Encoded, encode
from cliptune.prompt import SoftPrompt, build_prompt
from cliptune.task import Split, Task
from cliptune.types import Neighbours

if TYPE_CHECKING:
    from cliptune.config import ModelConfig, PromptConfig

OWN = "own"  # a read-out of the user's
NEIGHBOURS = 3  # tokens named of each prompt vector
WORDS_AT_ONCE = 4096  # embeddings compared with it, which need memory of their own


@dataclass(frozen=True)
class Batch:
    """Some examples of a split as rectangular tensors, without the prompt."""

    ids: Tensor  # (examples, tokens), padded on the right
    lengths: Tensor  # (examples,)
    padded: bool  # whether they differ in length
    read_at: Tensor  # (examples,), position of the mask token; 0 where there is none


class FrozenModel(ABC):
    """A language model that is only ever run forward, with one way to read classes out of it."""

    auto: ClassVar[Any]  # transformers' Auto class that loads it
    readout: ClassVar[str] = OWN  # as model.readout has it, of ours
    two_stacks: ClassVar[bool] = False  # whether it is an encoder with a decoder
    shows_mask: bool = False  # whether its inputs hold a token for {mask}

    def __init__(
        self,
        module: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        task: Task,
        config: ModelConfig,
        position: str,
    ) -> None:
        self.module = module
        self.tokenizer = tokenizer
        self.task = task
        self.config = config
        self._embed = module.get_input_embeddings()
        self._leading = _leading_special_tokens(tokenizer)
        self._offset = 0 if position == "front" else len(self._leading)
        self.parameters = int(module.num_parameters())  # two a byte, where they have 4 bits
        self._deep = DeepPrompts(module, self._offset)
        self.as_it_was: dict[str, str] = {}  # what could not be made faster, and why
        self.prepare()

    def prepare(self) -> None:  # noqa: B027 - some families need nothing more
        """What else a family makes of the model and the task, before anything is computed."""

    @property
    def device(self) -> torch.device:
        return torch.device(self.module.device)

    @property
    def width(self) -> int:
        """Width of a word embedding, and so of a prompt vector."""
        width: int = self._embed.weight.shape[1]
        return width

    @property
    def _words(self) -> Tensor:
        """Word embeddings as the model meets them, `(vocabulary, width)`: some scale theirs."""
        weight: Tensor = self._embed.weight
        scale = float(getattr(self._embed, "embed_scale", 1.0))
        return weight if scale == 1.0 else weight * scale

    @property
    def prompt_offset(self) -> int:
        """Tokens of an input that stand before the prompt."""
        return self._offset

    def soft_prompt(self, config: PromptConfig, sigma: float) -> SoftPrompt:
        """The soft prompt of a search in this model's embedding space."""
        return build_prompt(
            config,
            sigma,
            self._words.detach(),
            set(self.tokenizer.all_special_ids),
            lambda text: list(self.tokenizer(text, add_special_tokens=False)["input_ids"]),
            lambda initial: self._deep.prepare(initial, config.layers),
        )

    @torch.inference_mode()
    def nearest(self, prompt: Tensor) -> Neighbours:
        """The tokens whose word embeddings have the largest cosine with each prompt vector.

        `prompt` is `(length, width)`; of `(layers, length, width)` only the first layer's lie among
        word embeddings. Cosines are rounded, as their last digits are the machine's.
        """
        words = self._words[: len(self.tokenizer)]  # some models have rows to spare
        vectors = F.normalize(prompt.view(-1, *prompt.shape[-2:])[0].float(), dim=-1)
        parts = torch.split(words, WORDS_AT_ONCE)
        cosines = torch.cat([F.normalize(part.float(), dim=-1) @ vectors.T for part in parts])
        values, ids = cosines.topk(min(NEIGHBOURS, len(cosines)), dim=0)
        return [
            [(str(token), round(value, 4)) for token, value in zip(tokens, row, strict=True)]
            for tokens, row in zip(
                map(self.tokenizer.convert_ids_to_tokens, ids.T.tolist()),
                values.T.tolist(),
                strict=True,
            )
        ]

    def encode(self, split: Split, prompt_length: int) -> Encoded:
        """Tokenise a split, shortening texts so that each input fits with its prompt."""
        if prompt_length >= self.max_input:
            raise ConfigError(
                f"prompt.length {prompt_length} leaves no room for a text: an input takes at most "
                f"{self.max_input} positions (the model {self.max_positions}, task.max_tokens "
                f"{self.task.max_tokens or 'null'}). Lower prompt.length or raise the limit."
            )
        limit = self.max_input - prompt_length
        return self.tokenise(split, limit)

    def tokenise(self, split: Split, limit: int) -> Encoded:
        """Tokenise a split as this family reads it, at most `limit` tokens an example."""
        return encode(self.tokenizer, self.task.template, split, limit)

    def word_tokens(self, word: str) -> list[int]:
        """All tokens of a label word; where it is read as a word, the first one counts."""
        tokens: list[int] = self.tokenizer(word, add_special_tokens=False)["input_ids"]
        return tokens

    @property
    def max_input(self) -> int:
        """Longest input with its prompt, of this model for this task."""
        return min(self.max_positions, self.task.max_tokens or self.max_positions)

    @property
    def max_positions(self) -> int:
        """Longest input that the model takes."""
        config: Any = self.module.config
        embeddings = [
            m for name, m in self.module.named_modules() if name.endswith("position_embeddings")
        ]
        reserved = getattr(embeddings[0], "padding_idx", None) if embeddings else None
        longest = int(self.tokenizer.model_max_length)
        limit = getattr(config, "max_position_embeddings", None)
        if limit is None or int(limit) < 0:  # positions are relative
            return longest
        return min(int(limit) - (0 if reserved is None else reserved + 1), longest)

    def batch(self, encoded: Encoded, rows: Sequence[int]) -> Batch:
        """Pad some examples to the longest among them."""
        ids = [encoded.ids[row] for row in rows]
        longest = max(map(len, ids))
        pad = self.tokenizer.pad_token_id or 0
        padded = torch.tensor([row + [pad] * (longest - len(row)) for row in ids])
        lengths = torch.tensor([len(row) for row in ids])
        read_at = torch.tensor([encoded.mask_positions[row] for row in rows])
        different = min(map(len, ids)) < longest
        to = self.device
        return Batch(padded.to(to), lengths.to(to), different, read_at.to(to))

    def prompted(self, prompts: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]:
        """Every candidate's prompt in every example.

        `(candidates, length, width)` prompts, or None for none, and a batch of examples to the
        embedded input `(candidates * examples, length + tokens, width)` and its attention mask.
        """
        words = self._embed(batch.ids)
        examples, tokens, width = words.shape
        if prompts is None:
            prompts = words.new_zeros((1, 0, width))
        candidates, length, _ = prompts.shape
        inner = prompts.to(words.dtype)[:, None].expand(-1, examples, -1, -1)
        outer = words[None].expand(candidates, -1, -1, -1)
        at = self._offset
        joined = torch.cat([outer[:, :, :at], inner, outer[:, :, at:]], dim=2)
        embedded = joined.reshape(candidates * examples, length + tokens, width)
        positions = torch.arange(length + tokens, device=embedded.device)
        mask = (positions < length + batch.lengths[:, None]).long().repeat(candidates, 1)
        return embedded, mask

    @torch.inference_mode()
    def class_scores(self, prompts: Tensor | None, batch: Batch) -> Tensor:
        """`(candidates, examples, classes)` float32 scores: logits up to a constant a row."""
        return self.scores(prompts, batch)

    def scores(self, prompts: Tensor | None, batch: Batch) -> Tensor:
        """As `class_scores`, with what a gradient needs.

        Prompts are `(candidates, length, width)`, or None for none; `(candidates, layers, length,
        width)` where several layers have one.
        """
        deeper = None
        if prompts is not None and prompts.dim() == 4:
            prompts, deeper = prompts[:, 0], prompts[:, 1:]
        embedded, mask = self.prompted(prompts, batch)
        candidates = 1 if prompts is None else len(prompts)
        length = 0 if prompts is None else prompts.shape[1]
        with self._deep.added(deeper):
            scores = self.read_out(embedded, mask, batch, candidates, length)
        return scores.float().view(candidates, len(batch.ids), -1)

    def changes(self) -> dict[str, fast.Change]:
        """What may make this family faster, by name; see fast.py."""
        return {
            "attention": lambda: attention.own_attention(self.module),
            "linear layers": lambda: fast.products(self.module),
            "gelu": lambda: fast.fused_gelu(self.module),
        }

    def speed_up(self, without: Collection[str] = ()) -> None:
        """Make the changes that leave the scores as they are; `as_it_was` tells of the others."""
        for name, change in self.changes().items():
            declined: str | None = "it was asked for"
            if name not in without:
                declined = fast.try_out(change, self._sample_scores, self.module.dtype)
            if declined is not None:
                self.as_it_was[name] = declined
        self.network_changed()

    def _sample_scores(self) -> Tensor:
        """Class scores of a few inputs, of equal and of different lengths."""
        vocabulary = len(self._embed.weight)
        ids = torch.arange(15, device=self.device).view(3, 5) * 7919 % vocabulary
        ids[:, : len(self._leading)] = torch.tensor(self._leading, device=self.device)
        prompts = self._embed(torch.arange(6, device=self.device).view(2, 3) * 104729 % vocabulary)
        lengths = torch.tensor([[5, 5, 5], [3, 5, 4]], device=self.device)
        read_at = torch.tensor([2, 1, 2], device=self.device)
        batches = [Batch(ids, row, i > 0, read_at) for i, row in enumerate(lengths)]
        self.network_changed()
        return torch.cat([self.class_scores(prompts, batch) for batch in batches])

    @abstractmethod
    def read_out(
        self, embedded: Tensor, mask: Tensor, batch: Batch, candidates: int, length: int
    ) -> Tensor:
        """Run the model: `(candidates * examples, classes)` scores."""

    def shared_tokens(self, length: int) -> int:
        """Tokens of an input, of a prompt of this length and what stands before it, that are
        computed once a candidate and network, and not with every example."""
        return 0

    def network_changed(self) -> None:  # noqa: B027 - most families have nothing to recompute
        """Called when the weights became another subnetwork's: recompute what hangs on them."""


def _leading_special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special token that the tokenizer begins an input with, if it has one."""
    first: int = tokenizer("a")["input_ids"][0]
    return [first] if first in tokenizer.all_special_ids else []
