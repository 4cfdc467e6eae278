"""`cliptune provider`, as a person starts it, and what it refuses before it starts."""

import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import tiny
from command import SCRIPT, cliptune_here, environment
from runs import journal_bytes

from cliptune.loop import search
from cliptune.protocol import TOKEN


def free_port() -> int:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_only_settings_of_the_model_are_a_providers(model_dir: Path) -> None:
    ran = cliptune_here("provider", str(model_dir), "search.seed=1")
    assert ran.returncode == 2
    assert "such as model.dtype=float32; found 'search.seed=1'" in ran.stderr


def test_a_port_that_is_taken_is_said(model_dir: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ran = cliptune_here("provider", str(model_dir), "--port", port)
    assert ran.returncode == 2
    assert "Address already in use. Choose another --port." in ran.stderr


def test_a_model_that_is_not_there_is_said_before_ray_starts(tmp_path: Path) -> None:
    ran = cliptune_here("provider", str(tmp_path / "no"), "--port", str(free_port()))
    assert ran.returncode == 2
    assert "cannot be loaded as a model" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_search_against_two_replicas_writes_the_journal_of_one_of_its_own(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    port = free_port()
    words = ["model.dtype=float32", "model.device=cpu", "--port", str(port), "--replicas", "2"]
    serving = subprocess.Popen(
        [SCRIPT, "provider", str(model_dir), *words],
        env=environment(**{TOKEN: "s3cret"}),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert serving.stdout is not None
        assert any("for who shows the token" in line for line in serving.stdout)
        settings = tiny.tree(
            Path("nowhere"), task_dir, tmp_path / "run", scorer={"url": f"http://127.0.0.1:{port}"}
        )
        file = tmp_path / "search.yaml"
        file.write_text(str(settings).replace("None", "null"))
        code = (
            "import sys\n"
            "class Blocked:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name.partition('.')[0] in ('torch', 'transformers'):\n"
            "            raise ImportError(f'{name} is blocked')\n"
            "sys.meta_path.insert(0, Blocked())\n"
            "from jobs.cli import run\n"
            "run()"
        )
        ran = subprocess.run(
            [sys.executable, "-c", code, "search", str(file)],
            env=environment(**{TOKEN: "s3cret"}),
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert ran.returncode == 0, ran.stderr
        assert "of the provider: " in ran.stdout
    finally:
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(60) == 128 + signal.SIGTERM
    search(tiny.config(model_dir, task_dir, tmp_path / "local"))
    assert journal_bytes(tmp_path / "run") == journal_bytes(tmp_path / "local")
