"""Folders here and elsewhere behave alike; writes are whole or absent; one writer at a time."""

import errno
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import MagicMock

import fsspec
import pytest
from pyarrow import fs

from cliptune import storage
from cliptune.errors import RunError
from cliptune.storage import Folder, LocalFolder, open_folder

HOLDER = """
import sys
from cliptune.storage import open_folder
with open_folder(sys.argv[1]).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def memory() -> Iterator[str]:
    """The URI of a folder, not made yet, on fsspec's file system in memory."""
    place = f"memory://{uuid.uuid4()}/run"
    yield place
    system = fsspec.filesystem("memory")
    if system.exists(place):
        system.rm(place, recursive=True)


@pytest.fixture(params=["path", "file", "memory", "pyarrow"])
def folder(
    request: pytest.FixtureRequest, tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch
) -> Folder:
    """A folder of every kind, not made yet."""
    if request.param == "pyarrow":  # a file system of pyarrow's own, in memory
        mock = fs._MockFileSystem()
        monkeypatch.setattr(storage, "_system", lambda place: (mock, "bucket/run"))
        return open_folder("s3://bucket/run")
    places = {"path": str(tmp_path / "run"), "file": f"file://{tmp_path}/run", "memory": memory}
    return open_folder(places[request.param])


# What every folder does


def test_a_file_comes_back_as_it_was_written(folder: Folder) -> None:
    content = bytes(range(256)) * 999
    folder.write("journal/000000.arrow", content)
    folder.write("empty", b"")
    assert folder.read("journal/000000.arrow") == content
    assert folder.read("empty") == b""


def test_writing_again_replaces_the_whole_file(folder: Folder) -> None:
    folder.write("file", b"a long first content")
    folder.write("file", b"short")
    assert folder.read("file") == b"short"
    assert folder.names() == ["file"]


def test_names_are_sorted_and_of_one_folder_only(folder: Folder) -> None:
    for name in ("b", "a", "journal/2", "journal/1", "journal/deep/3"):
        folder.write(name, b"x")
    assert folder.names() == ["a", "b", "journal"]
    assert folder.names("journal") == ["1", "2", "deep"]


def test_a_folder_that_does_not_exist_has_no_names(folder: Folder) -> None:
    assert folder.names() == []
    assert folder.names("journal") == []


def test_only_files_exist(folder: Folder) -> None:
    folder.write("journal/1", b"x")
    assert folder.exists("journal/1")
    assert not folder.exists("journal")
    assert not folder.exists("journal/2")
    assert not folder.exists("nowhere/2")


def test_a_file_that_is_not_there_cannot_be_read(folder: Folder) -> None:
    with pytest.raises(RunError, match=r"journal/7 cannot be read: .*[^.]\.$") as caught:
        folder.read("journal/7")
    assert str(caught.value).startswith(folder.place.removeprefix("file://"))


def test_a_moved_file_is_at_its_new_name_only(folder: Folder) -> None:
    folder.write("journal/1", b"first")
    folder.move("journal/1", "journal/1.damaged")
    assert folder.names("journal") == ["1.damaged"]
    assert folder.read("journal/1.damaged") == b"first"


def test_moving_replaces_what_was_there(folder: Folder) -> None:
    folder.write("old", b"old")
    folder.write("new", b"new")
    folder.move("new", "old")
    assert folder.read("old") == b"new"
    assert folder.names() == ["old"]


def test_a_file_that_is_not_there_cannot_be_moved(folder: Folder) -> None:
    folder.make()
    with pytest.raises(RunError, match="new cannot be written"):
        folder.move("old", "new")


def test_deleting_needs_no_file(folder: Folder) -> None:
    folder.write("a", b"x")
    folder.write("b", b"x")
    folder.delete("a")
    folder.delete("a")
    assert folder.names() == ["b"]


def test_making_says_whether_the_folder_is_new(folder: Folder) -> None:
    assert folder.make()
    folder.write("a", b"x")
    assert not folder.make()
    assert folder.read("a") == b"x"


def test_an_empty_folder_goes_and_one_with_something_in_it_stays(folder: Folder) -> None:
    folder.make()
    folder.write("a", b"x")
    folder.remove()
    assert folder.read("a") == b"x"
    folder.delete("a")
    folder.remove()
    assert folder.make()
    folder.remove()
    folder.remove()


def test_one_holds_a_folder_at_a_time(folder: Folder) -> None:
    folder.make()
    for _ in range(2):  # and it is free again after
        with (
            folder.locked(),
            pytest.raises(RunError, match="is being written by another search"),
            open_folder(folder.place).locked(),
        ):
            raise AssertionError("held twice")
    assert folder.names() == []


def test_a_holder_that_fails_lets_go(folder: Folder) -> None:
    folder.make()
    with pytest.raises(KeyError), folder.locked():
        raise KeyError
    with folder.locked():
        pass


def test_files_are_written_under_a_lock_and_seen_without_one(folder: Folder) -> None:
    folder.make()
    with folder.locked():
        folder.write("a", b"x")
        assert open_folder(folder.place).read("a") == b"x"


# A folder here


def test_a_write_that_fails_leaves_the_old_file_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = LocalFolder(str(tmp_path))
    folder.write("file", b"before")

    def full(descriptor: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    message = r"file cannot be written: No space left on device\. .*before is intact; make room "
    with pytest.raises(RunError, match=message):
        folder.write("file", b"after")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("file", b"before")]


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renaming first would leave an empty file where the machine loses its power."""
    seen: list[tuple[str, list[str]]] = []
    flushed = set()

    def noting(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        seen.append((name, sorted(path.name for path in tmp_path.iterdir())))
        flushed.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", noting)
    LocalFolder(str(tmp_path)).write("file", b"content")
    assert seen == [("file.tmp", ["file.tmp"]), (tmp_path.name, ["file"])]
    assert flushed == {(tmp_path / "file").stat().st_ino, tmp_path.stat().st_ino}


@pytest.mark.parametrize("name", ["file/run", "file"])
def test_a_folder_that_cannot_be_made_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(RunError, match=r"run_dir .*file.* cannot be made: (Not a d|File exists)"):
        open_folder(str(tmp_path / name)).make()


def test_a_folder_without_permission_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*arguments: Any, **options: Any) -> NoReturn:  # root may do anything
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "iterdir", forbidden)
    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(RunError, match=r"journal cannot be read: Permission denied\."):
        open_folder(str(tmp_path)).names("journal")
    with pytest.raises(RunError, match=r"a cannot be written: Permission denied\. .*mend that"):
        open_folder(str(tmp_path)).write("a", b"")


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(RunError, match="by another search"),
            open_folder(str(tmp_path)).locked(),
        ):
            raise AssertionError("held twice")
        process.send_signal(signal.SIGKILL)
    with open_folder(str(tmp_path)).locked():
        assert list(tmp_path.iterdir()) == []


def test_a_lease_stands_in_where_a_mounted_disk_knows_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(descriptor: int, operation: int) -> NoReturn:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr("fcntl.flock", unknown)
    folder = open_folder(str(tmp_path))
    with (
        folder.locked(),
        pytest.raises(RunError, match=rf"process {os.getpid()} on"),
        folder.locked(),
    ):
        raise AssertionError("held twice")
    assert list(tmp_path.iterdir()) == []


# A folder elsewhere


def test_a_trailing_slash_makes_no_other_folder(memory: str) -> None:
    open_folder(memory).write("a", b"x")
    assert open_folder(f"{memory}/").read("a") == b"x"
    assert open_folder(f"{memory}/").place == memory


@pytest.mark.parametrize(
    "place",
    [
        "s3://KEY:SECRET@bucket/run",
        "s3://KEY:a/SECRET@bucket/run",
        "s3://bucket/run?access_key=KEY&secret_key=SECRET",
        "s3://bucket/run?region=x&secret_key=SECRET",
        "abfs://:SECRET@account.dfs.core.windows.net/run",
        "abfs://container@account.dfs.core.windows.net/run?sas_token=SECRET",
        "sftp://me:SECRET@host/run",
    ],
)
def test_credentials_in_a_uri_are_refused_and_never_shown(place: str) -> None:
    with pytest.raises(RunError, match=r"credentials in it would be written.*environ") as caught:
        open_folder(place)
    assert not {"KEY", "SECRET"} & set(str(caught.value).replace(":", " ").split())
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "place",
    [
        "abfs://container@account.dfs.core.windows.net/run",
        "gs://anonymous@bucket/run",
        "http://host:8080/me@home/run",
    ],
)
def test_a_container_or_a_user_in_a_uri_is_no_credential(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_system", lambda place: (None, place))
    assert open_folder(place).place == place


@pytest.mark.parametrize(("kind", "made"), [("s3", []), ("gcs", ["bucket/run", "bucket/run/a"])])
def test_folders_are_made_once_and_not_at_all_where_there_are_none(
    kind: str, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those above a run on S3 may be nobody's to write to."""
    system = MagicMock(type_name=kind)
    system.get_file_info.return_value = []
    monkeypatch.setattr(storage, "_system", lambda place: (system, "bucket/run"))
    folder = open_folder("s3://bucket/run")
    folder.make()
    for name in ("a/1", "a/2", "3"):
        folder.write(name, b"x")
    assert [call.args[0] for call in system.create_dir.call_args_list] == made
    assert system.open_output_stream.call_count == 3


def test_an_unknown_scheme_is_one_sentence() -> None:
    with pytest.raises(RunError) as caught:
        open_folder("nonsense://bucket/run")
    expected = "run_dir: nonsense://bucket/run cannot be reached: Protocol not known: nonsense."
    assert str(caught.value) == expected


def test_the_host_of_a_uri_reaches_its_file_system() -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    class Hosted(MemoryFileSystem):
        protocol = "hosted"
        cachable = False
        hosts: list[str] = []  # noqa: RUF012

        def __init__(self, host: str, **options: Any) -> None:
            super().__init__(**options)
            self.hosts.append(host)

        @staticmethod
        def _get_kwargs_from_urls(path: str) -> dict[str, str]:
            return {"host": path.split("/")[2]}

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return "/" + path.removeprefix("hosted://").partition("/")[2]

    fsspec.register_implementation("hosted", Hosted, clobber=True)
    open_folder("hosted://machine/run")
    assert Hosted.hosts == ["machine"]


@pytest.mark.parametrize(
    "call",
    [
        lambda folder: folder.read("a"),
        lambda folder: folder.write("a", b"x"),
        lambda folder: folder.names(),
        lambda folder: folder.exists("a"),
        lambda folder: folder.move("a", "b"),
        lambda folder: folder.delete("a"),
        lambda folder: folder.make(),
    ],
    ids=["read", "write", "names", "exists", "move", "delete", "make"],
)
def test_whatever_a_file_system_raises_becomes_one_sentence(
    call: Any, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their libraries have errors of their own, which are no OSErrors."""
    from fsspec.implementations.memory import MemoryFileSystem

    class ThrottledError(Exception):
        pass

    def refuse(*arguments: Any, **options: Any) -> NoReturn:
        raise ThrottledError("Slow down.\nRequest 12345")

    folder = open_folder(memory)
    for name in ("info", "isfile", "isdir", "exists", "_open", "mkdir", "makedirs", "mv", "rm"):
        monkeypatch.setattr(MemoryFileSystem, name, refuse)
    with pytest.raises(RunError, match=r"(read|written|made): Slow down\.( What was|$)"):
        call(folder)
    folder.remove()  # which only tidies up
