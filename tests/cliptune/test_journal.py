"""The journal: what goes in comes out, to the bit, and what was tampered with is refused."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cliptune.errors import RunError
from cliptune.journal import (
    PREVIOUS,
    SCHEMA,
    VERSION,
    ArrowJournal,
    Generation,
    Validation,
    write_durably,
)

ORIGIN = "0" * 64


def generation(number: int, seed: int = 0) -> Generation:
    rng = np.random.default_rng([number, seed])
    return Generation(
        number=number,
        latents=rng.standard_normal((4, 3)),
        rewards=rng.standard_normal((4, 2)),
        fitness=rng.standard_normal(4),
        step_size=float(rng.random()),
        best=2,
        validation=Validation(accuracy=float(rng.random()), loss=float(rng.random())),
    )


def write(folder: Path, *generations: Generation, origin: str = ORIGIN) -> list[Path]:
    folder.mkdir(exist_ok=True)
    journal = ArrowJournal(folder, origin)
    for each in generations:
        journal.append(each)
    return sorted(folder.iterdir())


def read(folder: Path, origin: str = ORIGIN) -> list[Generation]:
    return list(ArrowJournal(folder, origin).read())


def table(file: Path) -> pa.Table:
    return pa.ipc.open_file(file).read_all()


def stamp(file: Path, metadata: dict[bytes, bytes] | None) -> None:
    """Give a file other metadata and leave its rows."""
    changed = table(file).replace_schema_metadata(metadata)
    with pa.ipc.new_file(file, changed.schema) as writer:
        writer.write_table(changed)


def assert_same(one: Generation, other: Generation) -> None:
    for name in ("latents", "rewards", "fitness"):
        left, right = getattr(one, name), getattr(other, name)
        assert left.dtype == right.dtype == np.float64
        assert np.array_equal(left, right)
    for name in ("number", "step_size", "best", "validation"):
        assert getattr(one, name) == getattr(other, name)


def test_generations_come_back_as_they_were(tmp_path: Path) -> None:
    written = [generation(number) for number in range(3)]
    write(tmp_path / "j", *written)
    found = read(tmp_path / "j")
    assert len(found) == 3
    for one, other in zip(written, found, strict=True):
        assert_same(one, other)


def test_an_empty_journal_holds_no_generation(tmp_path: Path) -> None:
    assert read(tmp_path) == []


def test_a_file_a_generation_and_a_row_a_candidate(tmp_path: Path) -> None:
    files = write(tmp_path / "j", generation(0), generation(1))
    assert [file.name for file in files] == ["000000.arrow", "000001.arrow"]
    second, expected = table(files[1]), generation(1)
    assert second.schema.equals(SCHEMA)
    assert second["generation"].to_pylist() == [1] * 4
    assert second["candidate"].to_pylist() == [0, 1, 2, 3]
    assert second["latent"].to_pylist() == expected.latents.tolist()
    assert second["rewards"].to_pylist() == expected.rewards.tolist()
    assert second["fitness"].to_pylist() == expected.fitness.tolist()
    assert second["step_size"].to_pylist() == [expected.step_size] * 4


def test_what_was_not_validated_is_null(tmp_path: Path) -> None:
    [file] = write(tmp_path / "j", generation(0))
    accuracy, loss = generation(0).validation.accuracy, generation(0).validation.loss
    assert table(file)["validation"].to_pylist() == [None, None, accuracy, None]
    assert table(file)["validation_loss"].to_pylist() == [None, None, loss, None]


def test_every_file_carries_the_hash_of_the_one_before(tmp_path: Path) -> None:
    files = write(tmp_path / "j", *map(generation, range(3)))
    expected = [ORIGIN, *(hashlib.sha256(f.read_bytes()).hexdigest() for f in files[:-1])]
    assert [table(f).schema.metadata[PREVIOUS].decode() for f in files] == expected


def test_equal_generations_give_equal_bytes(tmp_path: Path) -> None:
    one = write(tmp_path / "a", *map(generation, range(3)))
    other = write(tmp_path / "b", *map(generation, range(3)))
    assert [f.read_bytes() for f in one] == [f.read_bytes() for f in other]


def test_latents_in_another_memory_layout_give_equal_bytes(tmp_path: Path) -> None:
    plain = generation(0)
    turned = replace(plain, rewards=np.asfortranarray(plain.rewards))
    [one], [other] = write(tmp_path / "a", plain), write(tmp_path / "b", turned)
    assert one.read_bytes() == other.read_bytes()


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    files = write(tmp_path / "j", generation(0), generation(1))
    assert {file.suffix for file in files} == {".arrow"}


def test_what_a_killed_writer_left_behind_is_not_read(tmp_path: Path) -> None:
    write(tmp_path / "j", generation(0))
    (tmp_path / "j" / "000001.arrow.tmp").write_bytes(b"half a fi")
    assert len(read(tmp_path / "j")) == 1


def test_a_journal_that_was_read_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = write(tmp_path / "a", *map(generation, range(3)))
    write(tmp_path / "b", generation(0), generation(1))
    journal = ArrowJournal(tmp_path / "b", ORIGIN)
    assert len(list(journal.read())) == 2
    journal.append(generation(2))
    assert (tmp_path / "b" / "000002.arrow").read_bytes() == whole[2].read_bytes()


def test_a_changed_file_breaks_the_chain(tmp_path: Path) -> None:
    files = write(tmp_path / "j", *map(generation, range(4)))
    [other, *_] = write(tmp_path / "k", generation(0, seed=1))
    stamp(other, table(files[1]).schema.metadata)
    files[1].write_bytes(other.read_bytes())
    message = r"000002.arrow does not follow the file before it: .*The journal was changed"
    with pytest.raises(RunError, match=message):
        read(tmp_path / "j")


def test_the_journal_of_another_search_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "j", generation(0), origin="1" * 64)
    message = r"000000.arrow does not follow .*expected SHA-256 0{12}\.\.\., it names 1{12}"
    with pytest.raises(RunError, match=message):
        read(tmp_path / "j")


def test_a_file_of_another_search_is_refused(tmp_path: Path) -> None:
    files = write(tmp_path / "j", *map(generation, range(3)))
    foreign = write(tmp_path / "k", *map(generation, range(3)), origin="1" * 64)
    files[1].write_bytes(foreign[1].read_bytes())
    with pytest.raises(RunError, match=r"000001.arrow does not follow .*another search's"):
        read(tmp_path / "j")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    files = write(tmp_path / "j", *map(generation, range(3)))
    files[1].unlink()
    with pytest.raises(RunError, match=r"000001.arrow cannot be read: No such file"):
        read(tmp_path / "j")


@pytest.mark.parametrize("keep", [0, 8, 500])
def test_a_truncated_file_is_damaged(keep: int, tmp_path: Path) -> None:
    files = write(tmp_path / "j", generation(0), generation(1))
    files[1].write_bytes(files[1].read_bytes()[:keep])
    with pytest.raises(RunError, match=r"000001.arrow is damaged"):
        read(tmp_path / "j")


@pytest.mark.parametrize("metadata", [{VERSION: b"2"}, {b"other": b"1"}])
def test_another_schema_version_is_refused(metadata: dict[bytes, bytes], tmp_path: Path) -> None:
    [file] = write(tmp_path / "j", generation(0))
    assert table(file).schema.metadata[VERSION] == b"1"
    stamp(file, {PREVIOUS: ORIGIN.encode(), **metadata})
    with pytest.raises(RunError, match=r"000000.arrow has journal schema version .*reads 1"):
        read(tmp_path / "j")


@pytest.mark.parametrize(
    ("selection", "better", "worse"),
    [
        ("accuracy", (0.9, 5.0), (0.8, 0.1)),
        ("accuracy", (0.8, 0.1), (0.8, 0.2)),
        ("loss", (0.8, 0.1), (0.9, 5.0)),
        ("loss", (0.9, 0.1), (0.8, 0.1)),
    ],
)
def test_validations_sort_by_the_selection_and_then_by_the_other_measure(
    selection: str, better: tuple[float, float], worse: tuple[float, float]
) -> None:
    assert Validation(*better).order(selection) > Validation(*worse).order(selection)


def test_a_file_that_cannot_be_written_says_what_is_safe(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot be written: No such file.*before is intact"):
        write_durably(tmp_path / "missing" / "file", b"content")


def test_writing_replaces_a_file_as_a_whole(tmp_path: Path) -> None:
    write_durably(tmp_path / "file", b"a long first content")
    write_durably(tmp_path / "file", b"short")
    assert [(f.name, f.read_bytes()) for f in tmp_path.iterdir()] == [("file", b"short")]


def test_a_generation_is_never_written_twice_or_out_of_turn(tmp_path: Path) -> None:
    journal = ArrowJournal(tmp_path, ORIGIN)
    journal.append(generation(0))
    for number in (0, 2):
        with pytest.raises(RunError, match=f"generation 1 comes next, found {number}"):
            journal.append(generation(number))
