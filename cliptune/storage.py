"""Where a run lies: a folder on this machine, or one on any file system that pyarrow reaches.

`runs/first` is a folder here; `s3://bucket/runs/first`, `gs://...`, `hdfs://...` and whatever else
pyarrow or an installed fsspec file system knows by its URI are remote. Credentials come from the
environment, never from the URI: it is written into the run's record.
"""

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from cliptune.errors import HeldError, RunError
from cliptune.lease import Lease

UNFINISHED = ".tmp"  # at the end of a file's name until it is written
SCHEME = re.compile(r"^[A-Za-z][\w+.-]+://")
CREDENTIALS = re.compile(  # a secret may have a slash in it, and a port is none
    r"^[^/]*://[^/]*:[^/]*@|^[^/]*://[^/:]*:(?!\d+/)[^@]*@"
    r"|[?&]\w*(key|secret|token|password|sig)\w*=",
    re.IGNORECASE,
)


class Folder(Protocol):
    """Files by name, `journal/000000.arrow` for instance."""

    place: str

    def read(self, name: str) -> bytes:
        """A file's content; RunError where it cannot be read."""

    def write(self, name: str, content: bytes) -> None:
        """Make a file durable: when this returns, it is. Folders on the way are made."""

    def names(self, folder: str = "") -> list[str]:
        """What lies in a folder of this one, sorted; nothing where it does not exist."""

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""

    def move(self, old: str, new: str) -> None:
        """Rename a file."""

    def delete(self, name: str) -> None:
        """Remove a file."""

    def make(self) -> bool:
        """Make the folder where there is none; whether it was made."""

    def remove(self) -> None:
        """Remove the folder if nothing is left in it."""

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Hold the folder, which exists, against other searches; RunError where one holds it."""


def open_folder(place: str) -> Folder:
    """The folder of a path or URI; it need not exist yet."""
    if not SCHEME.match(place):
        return LocalFolder(place)
    if place.startswith("file://"):
        parts = urlsplit(place)
        if parts.netloc not in ("", "localhost"):
            raise RunError(
                f"run_dir: {place} names another machine, {parts.netloc}; a folder on this one is "
                "file:///path, or just its path."
            )
        return LocalFolder(unquote(parts.path))
    refuse_credentials(place)
    return RemoteFolder(place)


def refuse_credentials(place: str) -> None:
    """A URI is written down in many places: nothing secret may stand in it."""
    if SCHEME.match(place) and CREDENTIALS.search(place):
        shown = place.partition("://")[0]
        raise RunError(
            f"run_dir: a URI ({shown}://) with credentials in it would be written into the run's "
            "record; give them by the environment or the machine's role instead."
        )


def local_path(place: str) -> Path | None:
    """Where a folder is on this machine's disks; None for one that is elsewhere."""
    folder = open_folder(place)
    return Path(folder.place) if isinstance(folder, LocalFolder) else None


class LocalFolder:
    """A folder on this machine's own or mounted disks."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._path = Path(place)

    def read(self, name: str) -> bytes:
        try:
            return (self._path / name).read_bytes()
        except OSError as error:
            raise _unreadable(self._path / name, error) from error

    def write(self, name: str, content: bytes) -> None:
        """Write under a temporary name, flush to the disk, rename: whole or not there at all."""
        path = self._path / name
        temporary = path.with_name(path.name + UNFINISHED)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            with _opened(path.parent) as folder:
                os.fsync(folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise _unwritable(path, error) from error

    def names(self, folder: str = "") -> list[str]:
        try:
            return sorted(path.name for path in (self._path / folder).iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(self._path / folder, error) from error

    def exists(self, name: str) -> bool:
        try:
            return (self._path / name).is_file()
        except OSError as error:
            raise _unreadable(self._path / name, error) from error

    def move(self, old: str, new: str) -> None:
        try:
            (self._path / old).replace(self._path / new)
        except OSError as error:
            raise _unwritable(self._path / new, error) from error

    def delete(self, name: str) -> None:
        try:
            (self._path / name).unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(self._path / name, error) from error

    def make(self) -> bool:
        try:
            new = not self._path.exists()
            self._path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"run_dir {self.place} cannot be made: {_reason(error)}.") from error
        return new

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self._path.rmdir()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """A lock of the system's: it goes with the process that holds it, however that ends."""
        with _opened(self._path) as folder:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise HeldError(
                    f"{self.place} is being written by another search; wait for its end, stop it, "
                    "or choose another run_dir."
                ) from None
            except OSError:  # a mounted file system without such locks
                with Lease(self).held():
                    yield
                return
            yield


class RemoteFolder:
    """A folder on a file system that pyarrow reaches by URI.

    What goes wrong there may be raised as anything: fsspec's file systems have their own errors.
    """

    def __init__(self, place: str) -> None:
        self.place = place.rstrip("/")
        self._system, self._root = _system(self.place)
        self._made: set[str] = set()

    def read(self, name: str) -> bytes:
        try:
            with self._system.open_input_stream(self._at(name)) as stream:
                return bytes(stream.read())
        except Exception as error:
            raise _unreadable(f"{self.place}/{name}", error) from error

    def write(self, name: str, content: bytes) -> None:
        """Object stores show a file once it is complete; others may be left with a part of it,
        which is noticed when it is read (see journal.py)."""
        try:
            self._make(self._at(name).rpartition("/")[0])
            with self._system.open_output_stream(self._at(name)) as stream:
                stream.write(content)
        except Exception as error:
            raise _unwritable(f"{self.place}/{name}", error) from error

    def names(self, folder: str = "") -> list[str]:
        at = self._at(folder).rstrip("/")
        try:
            found = self._system.get_file_info(fs.FileSelector(at, allow_not_found=True))
        except Exception as error:
            raise _unreadable(f"{self.place}/{folder}", error) from error
        return sorted(info.base_name for info in found)

    def exists(self, name: str) -> bool:
        try:
            info = self._system.get_file_info(self._at(name))
        except Exception as error:
            raise _unreadable(f"{self.place}/{name}", error) from error
        return bool(info.type == fs.FileType.File)

    def move(self, old: str, new: str) -> None:
        try:
            self._system.move(self._at(old), self._at(new))
        except Exception as error:
            raise _unwritable(f"{self.place}/{new}", error) from error

    def delete(self, name: str) -> None:
        try:
            self._system.delete_file(self._at(name))
        except FileNotFoundError:
            pass
        except Exception as error:
            raise _unwritable(f"{self.place}/{name}", error) from error

    def make(self) -> bool:
        new = not self.names()
        try:
            self._make(self._root)
        except Exception as error:
            raise RunError(f"run_dir {self.place} cannot be made: {_reason(error)}.") from error
        return new

    def remove(self) -> None:
        with contextlib.suppress(Exception):
            if not self.names():
                self._system.delete_dir(self._root)
                self._made.clear()

    @contextmanager
    def locked(self) -> Iterator[None]:
        with Lease(self).held():
            yield

    def _make(self, folder: str) -> None:
        """Once, and nothing on S3, which has no folders: those above the run may not be ours."""
        if folder not in self._made and self._system.type_name != "s3":
            self._system.create_dir(folder, recursive=True)
        self._made.add(folder)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"


def _system(place: str) -> tuple[fs.FileSystem, str]:
    """A URI's file system and the path on it: pyarrow's own, else fsspec's."""
    try:
        try:
            system, root = fs.FileSystem.from_uri(place)
        except pa.ArrowInvalid:
            from fsspec.core import url_to_fs  # comes with datasets; knows more schemes

            other, root = url_to_fs(place)
            system = fs.PyFileSystem(fs.FSSpecHandler(other))
    except Exception as error:
        raise RunError(f"run_dir: {place} cannot be reached: {_reason(error)}.") from error
    return system, root.rstrip("/")


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise _unreadable(folder, error) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _unreadable(path: object, error: Exception) -> RunError:
    return RunError(f"{path} cannot be read: {_reason(error)}.")


def _unwritable(path: object, error: Exception) -> RunError:
    remedy = "make room" if getattr(error, "errno", None) == errno.ENOSPC else "mend that"
    return RunError(
        f"{path} cannot be written: {_reason(error)}. What was written before is intact; "
        f"{remedy} and go on with `cliptune search --resume`, or choose another run_dir."
    )


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0].rstrip(".")
