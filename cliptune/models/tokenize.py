"""From templates to token ids: truncation that spares the template, label words in their place."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from cliptune.errors import ModelError, TaskError
from cliptune.task import LabelTokens, Rendered, Split, Template

Offsets = list[tuple[int, int]]


@dataclass(frozen=True)
class Encoded:
    """A tokenised split, in its own order."""

    ids: list[list[int]]
    mask_positions: list[int]  # 0 where the template has no mask
    dropped: list[int]  # tokens that truncation took

    @property
    def truncated(self) -> int:
        """Examples whose text was shortened."""
        return sum(count > 0 for count in self.dropped)

    @property
    def lengths(self) -> list[int]:
        return [len(row) for row in self.ids]


def encode(
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    split: Split,
    limit: int,
    mask: str | None = None,
) -> Encoded:
    """Tokenise every example in its template, at most `limit` tokens each.

    `mask` is the token that stands for {mask}, if it is not the tokenizer's own mask token.
    """
    _need_offsets(tokenizer)
    mask = (mask or _mask_token(tokenizer)) if template.has_mask else ""
    mask_id = tokenizer.convert_tokens_to_ids(mask)
    ids: list[list[int]] = []
    positions: list[int] = []
    dropped: list[int] = []
    for whole, offsets, example in _tokenised(tokenizer, template, split, mask):
        kept = _shorten(whole, offsets, example, limit)
        dropped.append(len(whole) - len(kept))
        position = _mask_position(whole, offsets, example, mask_id)
        ids.append([whole[i] for i in kept])
        positions.append(kept.index(position) if position is not None else 0)
    return Encoded(ids, positions, dropped)


def encode_until_mask(
    tokenizer: PreTrainedTokenizerBase, template: Template, split: Split, limit: int, word: str
) -> Encoded:
    """Tokenise every example up to a word in the place of {mask}; its last token is read.

    The word decides nothing but where a space before it belongs.
    """
    _need_offsets(tokenizer)
    encoded = Encoded([], [], [])
    for whole, offsets, example in _tokenised(tokenizer, template, split, word):
        end = _first_of_mask(offsets, example)
        kept = _shorten(whole[:end], offsets[:end], example, limit)
        encoded.ids.append([whole[i] for i in kept])
        encoded.mask_positions.append(len(kept) - 1)
        encoded.dropped.append(end - len(kept))
    return encoded


def _tokenised(
    tokenizer: PreTrainedTokenizerBase, template: Template, split: Split, mask: str
) -> Iterator[tuple[list[int], Offsets, Rendered]]:
    pairs = split.pairs or (None,) * len(split)
    rendered = [
        template.render(text, pair, mask) for text, pair in zip(split.texts, pairs, strict=True)
    ]
    tokens = tokenizer(
        [r.string for r in rendered], return_offsets_mapping=True, truncation=False, verbose=False
    )
    return zip(tokens["input_ids"], tokens["offset_mapping"], rendered, strict=True)


def read_ids(
    tokenizer: PreTrainedTokenizerBase,
    found: Mapping[str, list[int]],
    label_tokens: LabelTokens = "single",
    setting: str = "task.label_words",
) -> list[int]:
    """The token that each label word is read at, of the tokens that were found of it.

    `setting` is the one that says the words. A TaskError where one cannot be read.
    """
    ids: dict[int, str] = {}
    for word, tokens in found.items():
        names = tokenizer.convert_ids_to_tokens(tokens)
        if not tokens or tokenizer.unk_token_id in tokens[: 1 if label_tokens == "first" else None]:
            raise TaskError(
                f"Each label word must be in the model's vocabulary; {word!r} is {names}. "
                f"Change it in {setting}."
            )
        if label_tokens == "single" and len(tokens) > 1:
            raise TaskError(
                f"Each label word must be one token of the model's vocabulary; {word!r} is {names}."
                f" Change it in {setting}, or let task.label_tokens=first read the first one."
            )
        if tokens[0] in ids:
            raise TaskError(
                f"Label words must be different tokens; {ids[tokens[0]]!r} and {word!r} are both "
                f"read at {names[0]!r}. Change one of them in {setting}."
            )
        ids[tokens[0]] = word
    return list(ids)


def word_tokens(tokenizer: PreTrainedTokenizerBase, template: Template, word: str) -> list[int]:
    """All tokens of a word where the mask stands, leading space included."""
    _need_offsets(tokenizer)
    example = template.render("", None, word)
    tokens = tokenizer(example.string, return_offsets_mapping=True)
    return [
        token
        for token, span in zip(tokens["input_ids"], tokens["offset_mapping"], strict=True)
        if example.mask_span and _overlap(span, example.mask_span)
    ]


def tokens_before(tokenizer: PreTrainedTokenizerBase, template: Template, word: str) -> list[int]:
    """The tokens before a word in the place of {mask}, without any text."""
    _need_offsets(tokenizer)
    example = template.render("", None, word)
    tokens = tokenizer(example.string, return_offsets_mapping=True)
    ids: list[int] = tokens["input_ids"]
    return ids[: _first_of_mask(tokens["offset_mapping"], example)]


def _first_of_mask(offsets: Offsets, example: Rendered) -> int:
    """The first token of what stands in the place of {mask}."""
    span = example.mask_span or (0, 0)
    for i, found in enumerate(offsets):
        if _overlap(found, span):
            if before := example.string[found[0] : span[0]].strip():
                raise TaskError(
                    f"In {example.string[-60:]!r} the tokenizer joins {before!r} to the label "
                    "word. Put a space before {mask} in task.template."
                )
            return i
    raise TaskError(f"The label word was lost in tokenising {example.string[-60:]!r}.")


def _shorten(ids: list[int], offsets: Offsets, example: Rendered, limit: int) -> list[int]:
    """Positions of the tokens that stay; whichever text is longer loses tokens from its end."""
    excess = len(ids) - limit
    if excess <= 0:
        return list(range(len(ids)))
    texts = [
        [i for i, span in enumerate(offsets) if span[1] > span[0] and _within(span, text)]
        for text in example.text_spans
    ]
    if sum(map(len, texts)) - excess < len(texts):
        raise TaskError(
            f"An input of {len(ids)} tokens cannot be cut to the {limit} that the prompt leaves: "
            f"the template alone takes {len(ids) - sum(map(len, texts))}. Lower prompt.length, or "
            "raise task.max_tokens if the model takes more."
        )
    dropped: set[int] = set()
    for _ in range(excess):
        dropped.add(max(texts, key=len).pop())
    return [i for i in range(len(ids)) if i not in dropped]


def _mask_position(
    ids: list[int], offsets: Offsets, example: Rendered, mask_id: int | None
) -> int | None:
    if example.mask_span is None:
        return None
    for i, (token, span) in enumerate(zip(ids, offsets, strict=True)):
        if token == mask_id and _overlap(span, example.mask_span):
            return i
    raise TaskError(f"The mask token was lost in tokenising {example.string[:80]!r}.")


def _within(inner: tuple[int, int], outer: tuple[int, int]) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _mask_token(tokenizer: PreTrainedTokenizerBase) -> str:
    if tokenizer.mask_token is None:
        raise ModelError(
            "The template has a {mask}, but the model's tokenizer has no mask token. Choose a "
            "masked language model, or a template without {mask} for model.readout encoder or "
            "seq2seq."
        )
    return str(tokenizer.mask_token)


def _need_offsets(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.is_fast:
        raise ModelError(
            f"{type(tokenizer).__name__} cannot say which characters a token comes from; "
            "cliptune needs a fast tokenizer (a tokenizer.json beside the model)."
        )
