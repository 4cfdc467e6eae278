"""A journal that was damaged, changed or mixed up: known before it is parsed, called by name."""

from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pytest
from journals import generation, journal, read, table, write

from cliptune.errors import RunError
from cliptune.journal import (
    PREVIOUS,
    SCHEMA_VERSION,
    sealed,
    unsealed,
)

OLD_RUN = Path(__file__).parents[1] / "data" / "run-schema-1"


def reseal(file: Path, metadata: dict[bytes, bytes]) -> None:
    """Give a file other metadata and a seal that fits."""
    kept = table(file)
    file.write_bytes(sealed(kept, {**kept.schema.metadata, **metadata}))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A journal of one small file, the one with the fewest bytes to turn."""
    plain = generation(0)
    parts = (plain.latents[:2, :1], plain.rewards[:2, :1], plain.fitness[:2])
    latents, rewards, fitness = parts
    small = replace(plain, latents=latents, rewards=rewards, fitness=fitness, best=1)
    return write(tmp_path, small)[0]


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if Arrow, which such bytes can crash, is given a damaged file."""

    def refuse(source: object) -> NoReturn:
        raise AssertionError("Arrow was given a damaged file.")

    monkeypatch.setattr(pa.ipc, "open_file", refuse)


def test_no_bit_of_a_file_can_turn_unnoticed(small: Path) -> None:
    content = bytearray(small.read_bytes())
    assert unsealed(bytes(content)) is not None
    for place in range(len(content)):
        for bit in range(8):
            content[place] ^= 1 << bit
            assert unsealed(bytes(content)) is None, f"bit {bit} of byte {place}"
            content[place] ^= 1 << bit


def test_a_file_with_any_byte_changed_is_set_aside_unopened(small: Path, guarded: None) -> None:
    content = small.read_bytes()
    folder = small.parents[1]
    for place in (*range(0, len(content), 13), len(content) - 1):  # every bit: above
        changed = content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]
        small.write_bytes(changed)
        reader = journal(folder)
        assert reader.read() == []
        aside = reader.set_aside()
        assert aside == f"{small}.damaged"
    assert [file.name for file in small.parent.iterdir()] == ["000000.arrow.damaged"]


def test_a_file_cut_off_anywhere_is_damaged_and_unopened(small: Path, guarded: None) -> None:
    content = small.read_bytes()
    for length in range(len(content)):
        assert unsealed(content[:length]) is None
    for length in (*range(0, len(content), 97), len(content) - 1):
        small.write_bytes(content[:length])
        assert read(small.parents[1]) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:8],
        lambda content: content[:500],
        lambda content: content + b"\0",
        lambda content: bytes(len(content)),
        lambda content: b"not an Arrow file",
        lambda content: content.replace(b"sha256:", b"sha512:"),
    ],
    ids=["empty", "magic", "half", "longer", "zeros", "foreign", "no seal"],
)
class TestDamage:
    def test_the_last_file_is_set_aside_and_the_ones_before_are_read(
        self, damage: object, tmp_path: Path
    ) -> None:
        files = write(tmp_path, *map(generation, range(3)))
        whole = files[2].read_bytes()
        files[2].write_bytes(damage(whole))  # type: ignore[operator]
        reader = journal(tmp_path)
        assert [found.number for found in reader.read()] == [0, 1]
        assert files[2].exists()  # reading changes nothing
        assert reader.set_aside() == f"{files[2]}.damaged"
        assert Path(f"{files[2]}.damaged").read_bytes() == damage(whole)  # type: ignore[operator]
        assert reader.set_aside() is None
        reader.append(generation(2))
        assert files[2].read_bytes() == whole
        assert len(read(tmp_path)) == 3

    @pytest.mark.parametrize("number", [0, 1])
    def test_further_back_it_is_an_error_that_names_the_file(
        self, number: int, damage: object, tmp_path: Path
    ) -> None:
        files = write(tmp_path, *map(generation, range(3)))
        files[number].write_bytes(damage(files[number].read_bytes()))  # type: ignore[operator]
        reader = journal(tmp_path)
        with pytest.raises(RunError, match=rf"/00000{number}\.arrow is damaged: its bytes are not"):
            reader.read()
        assert reader.set_aside() is None
        assert sorted((tmp_path / "journal").iterdir()) == files


def test_a_whole_journal_has_nothing_to_set_aside(tmp_path: Path) -> None:
    write(tmp_path, generation(0))
    reader = journal(tmp_path)
    reader.read()
    assert reader.set_aside() is None


def test_what_a_killed_writer_or_an_earlier_damage_left_behind_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, generation(0))
    for name in ("000001.arrow.tmp", "000001.arrow.damaged"):
        (tmp_path / "journal" / name).write_bytes(b"half a fi")
    assert len(read(tmp_path)) == 1


# What is missing or foreign


@pytest.mark.parametrize(("number", "next_one"), [(0, 1), (1, 2)])
def test_a_missing_file_is_named(number: int, next_one: int, tmp_path: Path) -> None:
    files = write(tmp_path, *map(generation, range(4)))
    files[number].unlink()
    message = rf"0{number}\.arrow is missing; the journal goes on with 00000{next_one}\.arrow\.$"
    with pytest.raises(RunError, match=message):
        read(tmp_path)


def test_a_file_that_is_none_of_the_journals_is_named(tmp_path: Path) -> None:
    write(tmp_path, generation(0))
    (tmp_path / "journal" / "copy of 000000.arrow").write_bytes(b"")
    with pytest.raises(RunError, match=r"goes on with copy of 000000\.arrow"):
        read(tmp_path)


def test_a_file_that_was_changed_and_sealed_again_breaks_the_chain(tmp_path: Path) -> None:
    files = write(tmp_path / "j", *map(generation, range(4)))
    [other] = write(tmp_path / "k", generation(0, seed=1))
    files[1].write_bytes(other.read_bytes())
    reseal(files[1], {PREVIOUS: str(unsealed(files[0].read_bytes())).encode()})
    message = r"000002\.arrow does not follow the file before it: .*The journal was changed"
    with pytest.raises(RunError, match=message):
        read(tmp_path / "j")


def test_the_journal_of_another_search_is_refused(tmp_path: Path) -> None:
    write(tmp_path, generation(0), origin="1" * 64)
    message = r"000000\.arrow does not follow .*expected SHA-256 0{12}\.\.\., it names 1{12}"
    with pytest.raises(RunError, match=message):
        read(tmp_path)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_file_of_another_search_is_refused_wherever_it_is(number: int, tmp_path: Path) -> None:
    files = write(tmp_path / "j", *map(generation, range(3)))
    foreign = write(tmp_path / "k", *map(generation, range(3)), origin="1" * 64)
    files[number].write_bytes(foreign[number].read_bytes())
    with pytest.raises(RunError, match=rf"00000{number}\.arrow does not follow .*another search's"):
        read(tmp_path / "j")
    assert [file.name for file in files] == [
        f.name for f in sorted((tmp_path / "j/journal").iterdir())
    ]


# Other versions


@pytest.mark.parametrize("files", [1, 3])
def test_a_journal_of_schema_version_1_is_refused_by_its_version(
    files: int, tmp_path: Path
) -> None:
    (tmp_path / "journal").mkdir()
    for file in sorted((OLD_RUN / "journal").iterdir())[:files]:
        (tmp_path / "journal" / file.name).write_bytes(file.read_bytes())
    reader = journal(tmp_path)
    message = rf"000000\.arrow is of journal schema version 1, .*reads {SCHEMA_VERSION}\. .*config"
    with pytest.raises(RunError, match=message):
        reader.read()
    assert reader.set_aside() is None


@pytest.mark.parametrize("files", [1, 3])
def test_a_newer_schema_version_is_refused_by_its_version(
    files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as future:
        future.setattr("cliptune.journal.SCHEMA_VERSION", 3)
        write(tmp_path, *map(generation, range(files)))
    message = r"000000\.arrow is of journal schema version 3; .*reads 2\. Update"
    with pytest.raises(RunError, match=message):
        read(tmp_path)
