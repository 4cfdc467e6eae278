"""Text encoders as zero-shot classifiers: a text's class is the label text that lies nearest.

score(class) = cosine(pooled embedding of the prompted text, embedding of the label text) / T,
both from the same thinned network. Label texts carry no prompt, and pooling leaves the
prompt's own positions out. Of several label texts of a class, the mean of the cosines counts.
"""

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModel

from cliptune.models.base import Batch, FrozenModel
from cliptune.models.tokenize import Encoded
from cliptune.models.words import means_by_class


class Encoder(FrozenModel):
    """MiniLM, MPNet and other sentence encoders: any `AutoModel` with a last hidden state."""

    auto: ClassVar[Any] = AutoModel
    readout: ClassVar[str] = "encoder"
    _labels: Tensor | None = None  # (classes, width), of the current network

    def network_changed(self) -> None:
        self._labels = None

    def read_out(
        self, embedded: Tensor, mask: Tensor, batch: Batch, candidates: int, length: int
    ) -> Tensor:
        if self._labels is None:
            self._labels = self._embed_labels()
        texts = self._pooled(embedded, mask, length, batch)
        return texts @ self._labels.T / self.config.temperature

    def _embed_labels(self) -> Tensor:
        tokens = self.tokenizer(list(self.task.every_word))["input_ids"]
        encoded = Encoded(tokens, [0] * len(tokens), [0] * len(tokens))
        batch = self.batch(encoded, range(len(tokens)))
        with self._deep.added(None):
            found = self._pooled(*self.prompted(None, batch), 0, batch)
        means = means_by_class(self.task.words)
        return found if means is None else means.to(found).T @ found

    def _pooled(self, embedded: Tensor, mask: Tensor, length: int, batch: Batch) -> Tensor:
        """Unit vectors `(rows, width)` in float32, from all positions but padding and prompt."""
        seen = mask if batch.padded else None
        hidden = self.module(inputs_embeds=embedded, attention_mask=seen).last_hidden_state
        if self.config.pooling == "cls":
            pooled = hidden[:, 0 if self._offset else length]
        else:
            read = mask.clone()
            read[:, self._offset : self._offset + length] = 0
            weight = read[..., None].float()
            pooled = (hidden.float() * weight).sum(dim=1) / weight.sum(dim=1)
        return F.normalize(pooled.float(), dim=-1)
