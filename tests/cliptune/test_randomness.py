"""Random numbers by purpose: the same anywhere, in any order, and never shared by two uses."""

import numpy as np
import pytest

from cliptune.randomness import bits, generator


def test_a_purpose_always_gives_the_same_numbers() -> None:
    first = generator("mask", 3, 1).standard_normal(5)
    generator("something else", 0).standard_normal(100)
    np.random.default_rng().standard_normal(100)
    assert np.array_equal(generator("mask", 3, 1).standard_normal(5), first)


def test_numbers_are_those_of_the_first_release() -> None:
    """Masks are rebuilt from seeds years later: these numbers may never change."""
    words = bits("mask", 0, 1, None, "ffn-output/0").random_raw(3).tolist()
    assert words == [8966515659116171231, 4319891457089023748, 17069438594237855743]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("mask", 0), ("mask", 1)),
        (("mask", 0), ("vocabulary", 0)),
        (("mask", 1, 23), ("mask", 12, 3)),
        (("mask", 0, 1), ("mask", 1, 0)),
        (("mask", None), ("mask", 0)),
        (("mask", 0), ("mask", 0, None)),
        (("mask", 1), ("mask", 1 + 2**32)),
    ],
)
def test_purposes_that_differ_have_other_numbers(
    one: tuple[str | int | None, ...], other: tuple[str | int | None, ...]
) -> None:
    assert not np.isin(bits(*one).random_raw(50), bits(*other).random_raw(50)).any()


def test_numpys_global_state_is_left_alone() -> None:
    np.random.seed(0)
    expected = np.random.rand()
    np.random.seed(0)
    generator("mask", 1).random(10)
    assert np.random.rand() == expected
