"""Whom the benchmark compares the scorer with, each on a plain transformers model of its own.

A round of a contender returns its seconds for the whole of the work, every candidate through
every subnetwork; where it did only a part of that, the seconds are scaled up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cliptune.local import LocalScorer
from cliptune.models.tokenize import read_ids
from cliptune.rewards import cross_entropy
from cliptune.sites import find_sites
from cliptune.subnetwork import SubnetworkSpec
from cliptune.thinning import hooked
from cliptune.types import Latents

BATCH_ROWS = {"cpu": (8, 16, 32, 64, 128), "cuda": (32, 64, 128, 256, 512, 1024)}
TRIAL_ROWS = 128  # that a batch size is tried on
REPEATS = 3  # of a matrix product; the fastest counts


class Contender(Protocol):
    """Whoever takes part in a round."""

    def round(self) -> float:
        """Do the work; its seconds."""

    def remarks(self) -> dict[str, Any]:
        """What the report says beside the times."""


@dataclass(frozen=True)
class Work:
    """What is scored, read off the scorer: P candidates on some examples through N subnetworks."""

    scorer: LocalScorer
    latents: Latents  # (population, d)
    subnetworks: Sequence[SubnetworkSpec]
    clock: str = "wall"

    @property
    def device(self) -> str:
        return self.scorer.model.device.type

    @property
    def lengths(self) -> list[int]:
        """Tokens of each example with its prompt, without padding."""
        length = self.scorer.config.prompt.length
        return [length + tokens for tokens in self.scorer.lengths["train"]]

    @property
    def passes(self) -> int:
        """How often all examples go through the model."""
        return len(self.latents) * len(self.subnetworks)

    def seconds(self, part: Callable[[], object]) -> float:
        """What some of it takes, the device's part included.

        By the CPU clock, what this process computes, shared out over its threads: that leaves out
        the time in which other processes have the processor.
        """
        now = time.perf_counter if self.clock == "wall" else _cpu_seconds_a_thread
        self._wait()
        started = now()
        part()
        self._wait()
        return now() - started

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def _cpu_seconds_a_thread() -> float:
    return time.process_time() / torch.get_num_threads()


class Scorer:
    """(b) The scorer itself."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def round(self) -> float:
        return self._work.seconds(lambda: self._work.scorer.score(self._work.latents))

    def remarks(self) -> dict[str, Any]:
        config = self._work.scorer.config.model
        return {"dtype": config.dtype, "micro_batch": config.micro_batch}


class Naive:
    """(a), (a') Mask hooks on a plain float32 model, all examples in one padded batch.

    One candidate at a time as Black-Box Tuning does it, or many at once as its --parallel does. The
    head computes the whole vocabulary, where the mask is (as theirs) or at all positions (as
    transformers does by itself). A round scores some candidates on the first subnetwork, each
    round the next ones.
    """

    def __init__(
        self, module: nn.Module, work: Work, *, part: int, together: bool, head: str
    ) -> None:
        self._module, self._work, self._head = module, work, head
        self._part = min(part, len(work.latents))
        self._batch = self._part if together else 1
        self._next = cycle(range(len(work.latents)))
        self.rewards: dict[int, float] = {}  # on the first subnetwork, by candidate
        scorer = work.scorer
        batch = scorer.model.batch(scorer.encoded["train"], range(len(work.lengths)))
        self._ids, self._lengths, self._read_at = batch.ids, batch.lengths, batch.read_at
        found = {word: scorer.model.word_tokens(word) for word in scorer.task.label_words}
        words = read_ids(scorer.model.tokenizer, found)
        self._words = torch.tensor(words, device=self._ids.device)
        self._read = self._read_at
        base: Any = module.base_model
        if head == "mask":
            base.register_forward_hook(self._keep_mask_position)

    def round(self) -> float:
        chosen = list(islice(self._next, self._part))
        prompts = np.stack([self._work.scorer.prompt(self._work.latents[i]) for i in chosen])
        given = torch.from_numpy(prompts).to(self._ids.device)
        scores: list[Tensor] = []
        took = self._work.seconds(lambda: scores.extend(self._score(given)))
        self._keep(chosen, torch.cat(scores).cpu().numpy())
        return took / len(chosen) * self._work.passes

    def remarks(self) -> dict[str, Any]:
        return {
            "dtype": "float32",
            "batch": self._batch * len(self._ids),
            "head": self._head,
            "scaled_from": f"{self._part} of {len(self._work.latents)} candidates on 1 of "
            f"{len(self._work.subnetworks)} subnetworks a round",
        }

    def _keep(self, chosen: list[int], scores: Any) -> None:
        rewards = cross_entropy(scores, self._work.scorer.task["train"].labels, 0.0)
        self.rewards |= dict(zip(chosen, rewards.mean(axis=1).tolist(), strict=True))

    def _score(self, prompts: Tensor) -> list[Tensor]:
        """Class scores `(candidates, examples, classes)` in parts, halved where memory is short."""
        while True:
            try:
                with torch.inference_mode(), hooked(self._module, self._work.subnetworks[0]):
                    starts = range(0, len(prompts), self._batch)
                    return [self._forward(prompts[i : i + self._batch]) for i in starts]
            except torch.OutOfMemoryError:
                if self._batch == 1:
                    raise
                self._batch = -(-self._batch // 2)

    def _forward(self, prompts: Tensor) -> Tensor:
        module: Any = self._module
        candidates, length, width = prompts.shape
        examples, tokens = self._ids.shape
        words = module.get_input_embeddings()(self._ids)[None].expand(candidates, -1, -1, -1)
        inner = prompts[:, None].expand(-1, examples, -1, -1)
        at = self._work.scorer.model.prompt_offset
        joined = torch.cat([words[:, :, :at], inner, words[:, :, at:]], dim=2)
        embedded = joined.reshape(candidates * examples, length + tokens, width)
        positions = torch.arange(length + tokens, device=embedded.device)
        mask = (positions < length + self._lengths[:, None]).long().repeat(candidates, 1)
        self._read = (self._read_at + length).repeat(candidates)
        logits: Tensor = module(inputs_embeds=embedded, attention_mask=mask).logits
        if self._head == "all":
            logits = logits[torch.arange(len(logits), device=logits.device), self._read]
        return logits[..., self._words].float().view(candidates, examples, -1)

    def _keep_mask_position(self, module: Any, inputs: Any, output: Any) -> Any:
        hidden = output.last_hidden_state
        rows = torch.arange(len(hidden), device=hidden.device)
        output.last_hidden_state = hidden[rows, self._read]
        return output


class Inference:
    """(c) Nothing but the forward of a plain base model on as many tokens, sorted by length."""

    def __init__(self, module: nn.Module, work: Work) -> None:
        base: Any = module.base_model
        self._base, self._work = base, work
        speeds = {rows: self._trial(rows) for rows in BATCH_ROWS[work.device]}
        self.rows = max(speeds, key=lambda rows: speeds[rows])
        self._batches = self._cut(self.rows)

    def round(self) -> float:
        """All candidates through one subnetwork: the others would be the same again."""
        took = self._work.seconds(lambda: self._run(self._batches))
        return took * len(self._work.subnetworks)

    def remarks(self) -> dict[str, Any]:
        return {
            "dtype": str(self._base.dtype).removeprefix("torch."),
            "batch": self.rows,
            "scaled_from": f"1 of {len(self._work.subnetworks)} subnetworks a round",
        }

    def _cut(self, rows: int) -> list[tuple[Tensor, Tensor | None]]:
        """Ids `(rows, tokens)` with their attention masks, which rows of one length do not need."""
        lengths = torch.tensor(sorted(self._work.lengths * len(self._work.latents)))
        batches = []
        for start in range(0, len(lengths), rows):
            part = lengths[start : start + rows]
            shape = (len(part), int(part.max()))
            ids = torch.randint(5, self._base.config.vocab_size, shape)
            mask = (torch.arange(shape[1]) < part[:, None]).long()
            device = self._base.device
            batches.append((ids.to(device), None if mask.all() else mask.to(device)))
        return batches

    def _trial(self, rows: int) -> float:
        """Tokens a second in batches of a size, on some of them, the shortest among them."""
        batches = self._cut(rows)
        some = batches[:: max(1, len(batches) * rows // TRIAL_ROWS)]
        try:
            self._run(some)
            took = min(self._work.seconds(partial(self._run, some)) for _ in range(2))
        except torch.OutOfMemoryError:
            return 0.0
        tokens = sum(ids.numel() if mask is None else int(mask.sum()) for ids, mask in some)
        return tokens / took

    @torch.inference_mode()
    def _run(self, batches: list[tuple[Tensor, Tensor | None]]) -> None:
        for ids, mask in batches:
            self._base(input_ids=ids, attention_mask=mask)


class Ceiling:
    """(d) The machine's matrix products of the sizes of a block's linear layers.

    A round's seconds are those of 10^12 FLOP.
    """

    def __init__(self, module: nn.Module, work: Work, rows: int) -> None:
        self._work = work
        block = find_sites(module).blocks[0]
        layers = [m for m in block.modules() if isinstance(m, nn.Linear)]
        self._weights = [layer.weight.detach() for layer in layers]
        tokens = rows * sum(work.lengths) // len(work.lengths)
        self._rows = [max(1, tokens // 4), max(1, tokens // 2), tokens, 2 * tokens]
        self._best: dict[int, float] = dict.fromkeys(self._rows, 0.0)

    def round(self) -> float:
        now = {rows: self._rate(rows) for rows in self._rows}
        self._best = {rows: max(rate, self._best[rows]) for rows, rate in now.items()}
        return 1e12 / max(now.values())

    def remarks(self) -> dict[str, Any]:
        like = self._weights[0]
        return {
            "dtype": str(like.dtype).removeprefix("torch."),
            "products": [list(weight.shape) for weight in self._weights],
            "rows": max(self._best, key=lambda rows: self._best[rows]),
        }

    @torch.inference_mode()
    def _rate(self, rows: int) -> float:
        """FLOP a second of the layers' products with `(rows, in)` inputs."""
        took = 0.0
        for weight in self._weights:
            inputs = torch.randn(rows, weight.shape[1], device=weight.device).to(weight.dtype)
            product = partial(F.linear, inputs, weight)
            product()
            took += min(self._work.seconds(product) for _ in range(REPEATS))
        return 2 * rows * sum(weight.numel() for weight in self._weights) / took
