"""A headless Chromium that is driven as a person would drive it, over its own protocol."""

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-component-update --disable-background-networking --hide-scrollbars"
).split()
WAIT = """new Promise((found, missing) => {
  const end = Date.now() + 30000;
  (function look() {
    if (%s) found(true);
    else if (Date.now() > end) missing(new Error("not within 30 s"));
    else setTimeout(look, 20);
  })();
})"""


class Tab:
    """One page. What is asked of it is answered in order."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, os.fdopen(answers, "rb")
        self._number, self._session = 0, None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := json.loads(self._read())).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def run(self, code: str) -> Any:
        """The value of an expression on the page."""
        found = self.call(
            "Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, (code, found)
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until a condition holds on the page."""
        self.run(WAIT % condition)

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def type(self, field: str, text: str) -> None:
        self.run(f"document.getElementById({field!r}).focus()")
        self.call("Input.insertText", text=text)

    def look(self, width: int, *, dark: bool) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def _read(self) -> bytes:
        parts = b""
        while not parts.endswith(b"\0"):
            part = self._answers.read(1)
            assert part, "the browser has ended"
            parts += part
        return parts[:-1]


@contextmanager
def tab(profile: Path) -> Iterator[Tab]:
    """A browser with one page, until the end."""
    ours_in, out = os.pipe()
    into, ours_out = os.pipe()
    # The protocol speaks on the descriptors 3 and 4, where ours must not lie.
    theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (into, out)]
    shell = f'exec "$0" "$@" 3<&{theirs[0]} 4>&{theirs[1]}'
    flags = [*QUIET, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        ["/bin/bash", "-c", shell, str(BROWSER), *flags],
        pass_fds=theirs,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for end in (into, out, *theirs):
        os.close(end)
    try:
        yield Tab(ours_out, ours_in)
    finally:
        process.terminate()
        process.wait(30)
        os.close(ours_out)
