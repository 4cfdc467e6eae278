"""A Ray head of the tests' own, as `ray start` makes it: with authentication, on free ports."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from processes import with_environment

BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def write_token(home: Path) -> Path:
    """Ray's token in a home folder, where there is none yet."""
    token = home / ".ray" / "auth_token"
    token.parent.mkdir(exist_ok=True)
    if not token.exists():
        token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    return token


@contextmanager
def authentication(mode: str = "token", **more: str) -> Iterator[None]:
    """This process talks to Rays with a token or without, whatever others in it did before."""
    from ray._private.authentication_test_utils import reset_auth_token_state

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
        for name, value in {"RAY_AUTH_MODE": mode, **more}.items():
            patch.setenv(name, value)
        reset_auth_token_state()  # Ray reads both only once
        yield
    reset_auth_token_state()


@contextmanager
def started_head(cpus: int = 1) -> Iterator[str]:
    """The address of its dashboard; jobs find the `cliptune` of these tests.

    Ray's files lie in a folder with a short path: there are sockets in it.
    """
    folder = tempfile.mkdtemp(prefix="ray-")
    dashboard, mark = free_port(), f"CLIPTUNE_TEST_HEAD={secrets.token_hex(8)}"
    own = dict([mark.split("=")], PATH=f"{BIN}:{os.environ['PATH']}")
    options = {
        "temp-dir": folder,
        "num-cpus": cpus,
        "node-ip-address": "127.0.0.1",
        "port": free_port(),
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": free_port(),
        "ray-client-server-port": free_port(),
        "min-worker-port": 0,
        "max-worker-port": 0,
        "object-store-memory": 100 * 2**20,
    }
    command = [BIN / "ray", "start", "--head", "--disable-usage-stats"]
    command += [f"--{name}={value}" for name, value in options.items()]
    try:
        subprocess.run(command, env={**os.environ, **own}, check=True, capture_output=True)
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        for pid in with_environment(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
