"""Ctrl-C and SIGTERM: finish what is being written, say how to go on, and end soon."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_asked: list[int] = []  # the signals that came since `stopping` began


class Stopped(BaseException):
    """A signal asked the search to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@contextmanager
def stopping(at_once: Callable[[], bool]) -> Iterator[None]:
    """Raise Stopped on SIGINT and SIGTERM.

    Within, it is a KeyboardInterrupt: the only one that Ray lets pass while it waits for actors.
    While `at_once()` holds, and at a second signal, the process ends on the spot: what is durable
    already stays so, and what is not is searched again on resume.
    """
    _asked.clear()

    def stop(number: int, frame: FrameType | None) -> None:
        if _asked or at_once():
            leave(128 + number)
        _asked.append(number)
        raise KeyboardInterrupt

    before: dict[signal.Signals, Any] = {one: signal.signal(one, stop) for one in SIGNALS}
    try:
        with _watched(at_once):
            yield
    except KeyboardInterrupt:
        raise Stopped(_asked[0] if _asked else signal.SIGINT) from None
    finally:
        _asked.clear()
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def leaving(at_once: Callable[[], bool], farewell: Callable[[], None]) -> Iterator[None]:
    """As `stopping`; what is within is left, the farewell said, and the process ends."""
    try:
        with stopping(at_once):
            yield
    except Stopped as stopped:
        farewell()
        leave(stopped.exit_code)


def insist() -> None:
    """Raise again what a library has swallowed: `import cma` has an `except:` around imports."""
    if _asked:
        raise KeyboardInterrupt


@contextmanager
def _watched(at_once: Callable[[], bool]) -> Iterator[None]:
    """Also end where the main thread sits in a library, which Python cannot interrupt."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def watch() -> None:
        while byte := os.read(reading, 1):
            if byte[0] in SIGNALS and at_once():
                leave(128 + byte[0])
        os.close(reading)

    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)


def leave(code: int) -> NoReturn:
    """End now; the interpreter's own way out takes another second with so much loaded."""
    if sys.stdout.isatty():
        sys.stdout.write("\x1b[?25h")  # the live display hides the cursor
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(code)
