"""The journal: what goes in comes out, to the bit, and what was tampered with is refused."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from journals import ORIGIN, generation, journal, read, table, write

from cliptune.errors import RunError
from cliptune.journal import (
    BLANK,
    OWN,
    PREVIOUS,
    SCHEMA,
    VERSION,
    Generation,
    Validation,
    best_of,
    unsealed,
)

OLD_RUN = Path(__file__).parents[1] / "data" / "run-schema-1"


def assert_same(one: Generation, other: Generation) -> None:
    for name in ("latents", "rewards", "fitness"):
        left, right = getattr(one, name), getattr(other, name)
        assert left.dtype == right.dtype == np.float64
        assert np.array_equal(left, right)
    for name in ("number", "step_size", "best", "validation"):
        assert getattr(one, name) == getattr(other, name)


# What is written


def test_generations_come_back_as_they_were(tmp_path: Path) -> None:
    written = [generation(number) for number in range(3)]
    write(tmp_path, *written)
    found = read(tmp_path)
    assert len(found) == 3
    for one, other in zip(written, found, strict=True):
        assert_same(one, other)


def test_the_mean_that_was_validated_comes_back_bit_for_bit(tmp_path: Path) -> None:
    mean = np.array([0.1, -1 / 3, 5e-324, 2.0, 1e300])[: generation(0).latents.shape[1]]
    one = replace(generation(0), mean=mean)
    write(tmp_path, one)
    (found,) = read(tmp_path)
    assert found.mean is not None
    assert found.mean.tobytes() == mean.tobytes()
    assert found.validated is found.mean
    assert found.name == "generation 1, the mean"
    assert generation(0).name == f"generation 1, candidate {generation(0).best + 1}"


def test_an_empty_journal_holds_no_generation(tmp_path: Path) -> None:
    assert read(tmp_path) == []
    (tmp_path / "journal").mkdir()
    assert read(tmp_path) == []


def test_a_file_a_generation_and_a_row_a_candidate(tmp_path: Path) -> None:
    files = write(tmp_path, generation(0), generation(1))
    assert [file.name for file in files] == ["000000.arrow", "000001.arrow"]
    second, expected = table(files[1]), generation(1)
    assert second.schema.equals(SCHEMA)
    assert second.schema.metadata[VERSION] == b"2"
    assert second["generation"].to_pylist() == [1] * 4
    assert second["candidate"].to_pylist() == [0, 1, 2, 3]
    assert second["latent"].to_pylist() == expected.latents.tolist()
    assert second["rewards"].to_pylist() == expected.rewards.tolist()
    assert second["fitness"].to_pylist() == expected.fitness.tolist()
    assert second["step_size"].to_pylist() == [expected.step_size] * 4


def test_what_was_not_validated_is_null(tmp_path: Path) -> None:
    [file] = write(tmp_path, generation(0))
    expected = generation(0).validation
    for column, value in (
        ("validation", expected.accuracy),
        ("validation_loss", expected.loss),
        ("validation_f1", expected.macro_f1),
        ("validation_score", expected.score),
    ):
        assert table(file)[column].to_pylist() == [None, None, value, None]


def test_every_file_names_the_digest_that_the_one_before_carries(tmp_path: Path) -> None:
    files = write(tmp_path, *map(generation, range(3)))
    digests = [unsealed(file.read_bytes()) for file in files]
    assert [table(f).schema.metadata[OWN].decode() for f in files] == [
        f"sha256:{digest}" for digest in digests
    ]
    named = [table(f).schema.metadata[PREVIOUS].decode() for f in files]
    assert named == [ORIGIN, *digests[:-1]]


def test_the_digest_is_of_the_file_with_zeros_in_the_digests_place(tmp_path: Path) -> None:
    [file] = write(tmp_path, generation(0), origin="1" * 64)
    content, digest = file.read_bytes(), unsealed(file.read_bytes())
    assert digest is not None
    assert content.count(digest.encode()) == 2  # Arrow writes the schema at both ends
    blank = content.replace(digest.encode(), BLANK)
    assert hashlib.sha256(blank).hexdigest() == digest


def test_equal_generations_give_equal_bytes(tmp_path: Path) -> None:
    one = write(tmp_path / "a", *map(generation, range(3)))
    other = write(tmp_path / "b", *map(generation, range(3)))
    assert [f.read_bytes() for f in one] == [f.read_bytes() for f in other]


def test_latents_in_another_memory_layout_give_equal_bytes(tmp_path: Path) -> None:
    plain = generation(0)
    turned = replace(plain, rewards=np.asfortranarray(plain.rewards))
    [one], [other] = write(tmp_path / "a", plain), write(tmp_path / "b", turned)
    assert one.read_bytes() == other.read_bytes()


def test_a_journal_that_was_read_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = write(tmp_path / "a", *map(generation, range(3)))
    write(tmp_path / "b", generation(0), generation(1))
    again = journal(tmp_path / "b")
    assert len(again.read()) == 2
    again.append(generation(2))
    assert (tmp_path / "b" / "journal" / "000002.arrow").read_bytes() == whole[2].read_bytes()


def test_a_generation_is_never_written_twice_or_out_of_turn(tmp_path: Path) -> None:
    writer = journal(tmp_path)
    writer.append(generation(0))
    for number in (0, 2):
        with pytest.raises(RunError, match=f"generation 1 comes next, found {number}"):
            writer.append(generation(number))


def test_a_journal_that_was_not_read_is_not_written_over(tmp_path: Path) -> None:
    [file] = write(tmp_path, generation(0))
    before = file.read_bytes()
    with pytest.raises(RunError, match=r"only appended to: .*journal/000000\.arrow"):
        journal(tmp_path).append(generation(0, seed=1))
    assert file.read_bytes() == before


# Which one is chosen


@pytest.mark.parametrize(
    ("better", "worse"),
    [  # accuracy, loss, macro-F1, score
        ((0.1, 9.0, 0.1, 0.9), (0.9, 0.1, 0.9, 0.8)),  # the score decides alone
        ((0.1, 0.1, 0.1, 0.5), (0.9, 0.2, 0.9, 0.5)),  # then the loss
        ((0.9, 0.1, 0.1, 0.5), (0.8, 0.1, 0.9, 0.5)),  # then the accuracy
    ],
)
def test_validations_sort_by_score_then_loss_then_accuracy(
    better: tuple[float, ...], worse: tuple[float, ...]
) -> None:
    assert Validation(*better).order > Validation(*worse).order
    two = [replace(generation(i), validation=Validation(*v)) for i, v in enumerate((worse, better))]
    assert best_of(two).number == 1
    assert best_of(two[::-1]).number == 1


def test_the_first_of_equals_is_the_best() -> None:
    equals = [replace(generation(i), validation=Validation(0.5, 0.5, 0.5, 0.5)) for i in range(3)]
    assert best_of(equals).number == 0
