"""Jobs on a Ray that `ray start --head` made, with authentication: all verbs, from the outside."""

import json
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from threading import Thread
from typing import Any

import pytest
import tiny
import yaml
from command import cliptune_here
from head import authentication, started_head, write_token
from processes import eventually
from tunnel import Tunnel

from cluster.remote import NAME, Remote, Submission
from jobs.logs import exit_code, watch

pytest.importorskip("aiohttp", reason="ray[default] is not installed: it brings the jobs")

EMPTY = b"PK\x05\x06" + bytes(18)  # a package with nothing in it


@pytest.fixture(scope="module")
def head(home: Path) -> Iterator[str]:
    write_token(home)
    with authentication(), started_head() as address:
        yield address


@pytest.fixture(scope="module")
def file(model_dir: Path, task_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that does not end by itself."""
    tree = tiny.tree(model_dir, task_dir, cluster={"actors": 1})
    tree["search"] |= {"method": "random", "budget": 4_000_000}
    del tree["run_dir"]
    file = tmp_path_factory.mktemp("user") / "tiny.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return file


def done(ran: CompletedProcess[str]) -> str:
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


def sentence(ran: CompletedProcess[str], code: int = 1) -> str:
    assert (ran.returncode, ran.stdout) == (code, "")
    (line,) = ran.stderr.splitlines()
    return line


def row(head: str, name: str) -> dict[str, Any]:
    rows = map(json.loads, done(cliptune_here("jobs", "--json", "--address", head)).splitlines())
    (found,) = [row for row in rows if row["id"] == name]
    return dict(found)


def searched(head: str, name: str) -> int:
    return int(row(head, name)["progress"].get("generation", "0").partition("/")[0])


def submission(head: str, file: Path, name: str) -> tuple[str, ...]:
    return "submit", str(file), "--id", name, "--address", head


def stopped(head: str, name: str) -> int:
    """Stop a job that searches; after how many generations."""
    assert eventually(lambda: searched(head, name) > 1)
    assert f"{name}-1 has stopped" in done(cliptune_here("stop", name, "--address", head))
    log = done(cliptune_here("logs", name, "--address", head))
    assert log.splitlines()[-1].startswith("Stopped. Go on with it")
    return searched(head, name)


def test_a_search_is_submitted_once_and_stopped(head: str, file: Path) -> None:
    submit = submission(head, file, "first")
    assert "Submitted first-1" in done(cliptune_here(*submit))
    assert "nothing was submitted" in done(cliptune_here(*submit))
    assert "is another search" in sentence(cliptune_here(*submit, "search.seed=1"), 2)
    assert "stop it first" in sentence(cliptune_here(*submit, "search.budget=8"), 2)
    stopped(head, "first")
    assert row(head, "first")["state"] == "stopped"
    assert "ended already: stopped" in done(cliptune_here("stop", "first", "--address", head))


@pytest.mark.slow
def test_a_stopped_search_is_gone_on_with_by_the_same_command(
    head: str, home: Path, file: Path
) -> None:
    submit = submission(head, file, "again")
    done(cliptune_here(*submit))
    generations = stopped(head, "again")
    budget = f"search.budget={4 * generations + 8}"
    ran = cliptune_here(*submit, budget, "--wait")
    assert ran.returncode == 0, ran.stderr
    assert "Submitted again-2" in ran.stdout
    assert f"Resumed at generation {generations + 1}" in ran.stdout
    assert row(head, "again")["state"] == "succeeded"
    assert searched(head, "again") == generations + 2
    assert len(list((home / "runs" / "again" / "journal").iterdir())) == generations + 2


def test_each_line_comes_once_however_often_the_connection_drops_and_the_outcome_is_true(
    head: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tunnel = Tunnel(head)
    remote = Remote(tunnel.address)
    go_on, package = tmp_path / "go-on", tmp_path / "package.zip"
    package.write_bytes(EMPTY)
    wait = f"while [ ! -e {go_on} ]; do sleep 0.05; done"
    remote.submit("drops", f"seq 1 25; {wait}; seq 26 50; exit 7", package, {}, **{NAME: "drops"})
    ended: list[Submission] = []
    listener = Thread(target=lambda: ended.append(watch(remote, remote.find("drops"))))
    listener.start()
    text = ""

    def heard(number: int) -> bool:
        nonlocal text
        text += capfd.readouterr().out
        return f"\n{number}\n" in text

    assert eventually(lambda: heard(25))
    connections = tunnel.connections
    tunnel.cut()
    assert eventually(lambda: tunnel.connections >= connections + 2)  # asked, and listens again
    go_on.touch()
    listener.join(60)
    tunnel.close()
    assert heard(50)
    assert [line for line in text.splitlines() if line.isdecimal()] == list(map(str, range(1, 51)))
    assert exit_code(ended[0]) == 7


def test_a_missing_or_wrong_token_is_one_sentence(head: str) -> None:
    with authentication("disabled"):
        assert "asks for a token" in sentence(cliptune_here("jobs", "--address", head))
    with authentication(RAY_AUTH_TOKEN="0" * 64):
        assert "does not take the token" in sentence(cliptune_here("jobs", "--address", head))


def test_the_token_is_nobody_elses_to_read_and_written_nowhere(
    head: str, home: Path, tmp_path: Path
) -> None:
    token = home / ".ray" / "auth_token"
    token.chmod(0o644)
    package = tmp_path / "package.zip"
    package.write_bytes(EMPTY)
    remote = Remote(head)
    remote.submit("spoken", "env", package, {}, **{NAME: "spoken"})
    assert eventually(lambda: "PATH=" in remote.log(remote.find("spoken")))
    listed = done(cliptune_here("jobs", "--json", "--address", head))
    assert token.stat().st_mode & 0o777 == 0o600
    secret = token.read_text().strip()
    logs = [remote.log(one) for one in remote.submissions()]
    arguments = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline")]
    assert secret not in listed
    assert not any(secret in log for log in logs)
    assert not any(secret.encode() in words for words in arguments)


@pytest.mark.parametrize("what", ["Ray", "Python"])
def test_another_version_is_refused_before_anything_is_sent(
    what: str, head: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = {"Ray": "ray.__version__", "Python": "platform.python_version"}[what]
    monkeypatch.setattr(ours, "2.1.0" if what == "Ray" else lambda: "3.8.1")
    said = sentence(cliptune_here("submit", str(file), "--id", "old", "--address", head))
    assert f"The cluster runs {what}" in said


def test_a_job_that_nobody_knows_is_one_sentence(head: str) -> None:
    for verb in ("logs", "stop"):
        assert "There is no job nix" in sentence(cliptune_here(verb, "nix", "--address", head))


def test_the_address_that_is_given_counts(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    done(cliptune_here("jobs", "--address", head))
    assert "No cluster answers at http://127.0.0.1:1" in sentence(cliptune_here("jobs"))
