"""Truncation spares all but the text; label words are tokenised where they stand."""

import numpy as np
import pytest
import tiny
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cliptune.errors import ModelError, TaskError
from cliptune.models.tokenize import encode, encode_until_mask, read_ids, word_tokens
from cliptune.task import LabelTokens, Split, Template

TEMPLATE = Template("{text} {mask}")
LONG = "the film was very long and slow and not fun"


def split(*texts: str, pairs: tuple[str, ...] | None = None) -> Split:
    return Split(texts, pairs, np.zeros(len(texts), dtype=np.int64))


def words(ids: list[int]) -> str:
    return " ".join(tiny.tokenizer().convert_ids_to_tokens(ids))


def label_ids(
    tokenizer: PreTrainedTokenizerFast,
    template: Template,
    label_words: tuple[str, ...],
    label_tokens: LabelTokens = "single",
) -> list[int]:
    found = {word: word_tokens(tokenizer, template, word) for word in label_words}
    return read_ids(tokenizer, found, label_tokens)


def test_a_text_is_shortened_and_the_template_stays_whole() -> None:
    encoded = encode(tiny.tokenizer(), Template("{text} . it was {mask} ."), split(LONG), 12)
    assert words(encoded.ids[0]) == "[CLS] the film was very long . it was [MASK] . [SEP]"
    assert encoded.mask_positions == [9]
    assert (encoded.truncated, encoded.dropped) == (1, [5])


def test_a_text_behind_the_mask_is_shortened_at_its_own_end() -> None:
    encoded = encode(tiny.tokenizer(), Template("{mask} : {text} !"), split(LONG), 8)
    assert words(encoded.ids[0]) == "[CLS] [MASK] : the film was ! [SEP]"
    assert encoded.mask_positions == [1]


def test_the_longer_of_two_texts_is_shortened_first() -> None:
    template = Template("{text} ? {mask} , {text_pair}")
    encoded = encode(tiny.tokenizer(), template, split(LONG, pairs=("a sad story",)), 11)
    assert words(encoded.ids[0]) == "[CLS] the film was ? [MASK] , a sad story [SEP]"


def test_what_fits_is_left_alone() -> None:
    encoded = encode(tiny.tokenizer(), Template("{text} . it was {mask} ."), split("fun"), 8)
    assert words(encoded.ids[0]) == "[CLS] fun . it was [MASK] . [SEP]"
    assert encoded.truncated == 0


def test_a_template_that_does_not_fit_is_refused() -> None:
    with pytest.raises(TaskError, match=r"the template alone takes 7.*task.max_tokens"):
        encode(tiny.tokenizer(), Template("{text} . it was {mask} ."), split(LONG), 7)


def test_a_mask_token_inside_the_text_is_not_mistaken_for_the_templates() -> None:
    template = Template("{text} . it was {mask} .")
    encoded = encode(tiny.tokenizer(), template, split("a [MASK] story"), 20)
    assert words(encoded.ids[0]) == "[CLS] a [MASK] story . it was [MASK] . [SEP]"
    assert encoded.mask_positions == [7]


def test_without_a_mask_there_is_no_position() -> None:
    encoded = encode(tiny.tokenizer(), Template("{text}"), split("fun"), 8)
    assert encoded.mask_positions == [0]


def test_label_words_become_their_tokens() -> None:
    tokenizer = tiny.tokenizer()
    found = label_ids(tokenizer, Template("{text} . it was {mask} ."), ("bad", "great"))
    assert found == tokenizer.convert_tokens_to_ids(["bad", "great"])


def byte_level() -> PreTrainedTokenizerFast:
    """As RoBERTa's: a word after a space is another token than the same word after none."""
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "good", "Ġgood", "bad", "Ġbad"]
    letters = sorted(set("goodbadĠ:."))
    core = Tokenizer(
        models.BPE(
            {token: i for i, token in enumerate([*vocabulary, *letters])},
            merges=[],
            unk_token="<unk>",
            ignore_merges=True,
        )
    )
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", pad_token="<pad>", mask_token="<mask>"
    )


@pytest.mark.parametrize(
    ("template", "tokens"),
    [("{text}: {mask}.", ["Ġgood", "Ġbad"]), ("{mask}: {text}", ["good", "bad"])],
)
def test_a_label_word_takes_the_space_before_it_along(template: str, tokens: list[str]) -> None:
    tokenizer = byte_level()
    found = label_ids(tokenizer, Template(template), ("good", "bad"))
    assert tokenizer.convert_ids_to_tokens(found) == tokens


def test_a_label_word_of_several_tokens_is_refused_and_shown() -> None:
    message = r"'very good' is \['very', 'good'\]\. .* task.label_tokens=first"
    with pytest.raises(TaskError, match=message):
        label_ids(tiny.tokenizer(), TEMPLATE, ("bad", "very good"))


def test_the_first_token_of_a_label_word_counts_where_that_is_asked_for() -> None:
    tokenizer = tiny.tokenizer()
    found = label_ids(tokenizer, TEMPLATE, ("bad", "very good", "not zebra"), "first")
    assert tokenizer.convert_ids_to_tokens(found) == ["bad", "very", "not"]


def test_all_tokens_of_a_word_are_known() -> None:
    tokenizer = tiny.tokenizer()
    found = word_tokens(tokenizer, TEMPLATE, "very good")
    assert tokenizer.convert_ids_to_tokens(found) == ["very", "good"]


@pytest.mark.parametrize("label_tokens", ["single", "first"])
@pytest.mark.parametrize("word", ["zebra", "zebra good"])
def test_a_label_word_that_the_vocabulary_lacks_is_refused(
    word: str, label_tokens: LabelTokens
) -> None:
    with pytest.raises(TaskError, match=rf"in the model's vocabulary; '{word}' is \['\[UNK\]'"):
        label_ids(tiny.tokenizer(), TEMPLATE, ("bad", word), label_tokens)


def test_a_label_word_without_any_token_is_refused() -> None:
    with pytest.raises(TaskError, match=r"' ' is \[\]"):
        label_ids(tiny.tokenizer(), TEMPLATE, ("bad", " "), "first")


def test_equal_label_words_are_refused() -> None:
    with pytest.raises(TaskError, match=r"different tokens; 'bad' and 'Bad' are both .* 'bad'"):
        label_ids(tiny.tokenizer(), TEMPLATE, ("great", "bad", "Bad"))


def test_label_words_with_the_same_first_token_are_refused() -> None:
    with pytest.raises(TaskError, match=r"'very good' and 'very bad' are both read at 'very'"):
        label_ids(tiny.tokenizer(), TEMPLATE, ("very good", "very bad"), "first")


def test_a_text_before_the_mask_is_shortened_and_ends_there() -> None:
    encoded = encode_until_mask(
        tiny.tokenizer(), Template("{text} . it was {mask}"), split(LONG), 8, "bad"
    )
    assert words(encoded.ids[0]) == "[CLS] the film was very . it was"
    assert (encoded.mask_positions, encoded.dropped) == ([7], [6])


def test_a_label_word_that_grows_together_with_the_text_is_refused() -> None:
    core = Tokenizer(models.WordLevel({"it:bad": 0, "<unk>": 1}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    joining = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    with pytest.raises(TaskError, match=r"joins 'it:' to the label word. Put a space before"):
        encode_until_mask(joining, Template("{text}:{mask}"), split("it"), 8, "bad")


def test_a_tokenizer_without_a_mask_is_refused_for_a_template_with_one() -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.mask_token = None
    with pytest.raises(ModelError, match="no mask token"):
        encode(tokenizer, Template("{text} {mask}"), split("fun"), 9)
