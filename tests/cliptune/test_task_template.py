"""Templates: what they take, and where the parts of an example come to lie."""

import pytest

from cliptune.errors import TaskError
from cliptune.task import Template


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "{text} {label}",
            r"knows \{text\}, \{text_pair\} and \{mask\}.*found another field, 'label'",
        ),
        ("{text} {}", r"found another field, '', in"),
        ("{text} {mask!r}", "just as they are; found another field, 'mask'"),
        ("{text} {mask:>9}", "just as they are; found another field, 'mask'"),
        ("{mask} news", r"must hold \{text\} once"),
        ("{text_pair} {mask}", r"must hold \{text\} once"),
        ("{text} {text}", r"must hold \{text\} once"),
        ("{text} {mask} {mask}", r"\{mask\} at most once"),
        ("{text} {text_pair} {text_pair}", r"\{text_pair\} and \{mask\} at most once"),
        ("{text} {mask", "cannot be read: .*found '{text} {mask'"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(source: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Template(source)


def test_rendering_remembers_where_the_parts_lie() -> None:
    template = Template("{text} ? {mask} , {text_pair} !")
    rendered = template.render("one two", "three", "[MASK]")
    assert rendered.string == "one two ? [MASK] , three !"
    assert [rendered.string[slice(*span)] for span in rendered.text_spans] == ["one two", "three"]
    assert rendered.mask_span is not None
    assert rendered.string[slice(*rendered.mask_span)] == "[MASK]"


def test_a_texts_own_braces_are_left_alone() -> None:
    rendered = Template("say: {text}").render("{mask} {0} }{", None, "[MASK]")
    assert rendered.string == "say: {mask} {0} }{"
    assert rendered.mask_span is None


def test_the_text_comes_first_among_the_spans_wherever_it_stands() -> None:
    rendered = Template("{text_pair} so {text}").render("one", "two", "")
    assert [rendered.string[slice(*span)] for span in rendered.text_spans] == ["one", "two"]


def test_a_template_says_what_it_needs() -> None:
    both = Template("{text} {mask} {text_pair}")
    assert (both.has_mask, both.has_pair) == (True, True)
    neither = Template("{text}")
    assert (neither.has_mask, neither.has_pair) == (False, False)
