"""Who may ask a provider: tokens, and addresses that others reach."""

import time
from pathlib import Path
from typing import Any

import pytest
from clusters import machines
from head import free_port
from provider_here import model_of
from ray._private.state import actors
from served import ask, searched

from cliptune.errors import ClusterError, ConfigError
from cliptune.protocol import TOKEN
from cluster.classify import Limits
from cluster.placement import Growth, Node
from cluster.prompts import Served
from cluster.provider import Limits as ProviderLimits
from cluster.serving import (
    Stand,
    provided,
    read_token,
    refuse_open_door,
    refuse_what_never_fits,
    served,
)


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)


def test_a_token_is_a_files_or_the_environments_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_token(None) is None
    monkeypatch.setenv(TOKEN, " of the environment\n")
    assert read_token(None) == "of the environment"
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text("of the file\n")
    assert read_token(file) == "of the file"


@pytest.mark.parametrize(
    ("mode", "content", "words"),
    [
        (0o644, b"token", "may be read by others than its owner: chmod 600"),
        (0o600, b" \n", "is empty: expected a token"),
        (0o600, b"\xff\xfe", "cannot be read: it is not text"),
    ],
)
def test_a_bad_token_file_is_refused(mode: int, content: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    file.chmod(mode)
    with pytest.raises(ConfigError, match=words):
        read_token(file)


def test_a_token_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_token(tmp_path / "nothing")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_on_this_machine_no_token_is_needed(host: str) -> None:
    refuse_open_door(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "gpu-box"])  # noqa: S104
def test_elsewhere_one_is(host: str) -> None:
    refuse_open_door(host, "token")
    with pytest.raises(ConfigError, match=f"--host {host} lets other machines ask"):
        refuse_open_door(host, None)


def stand(**given: Any) -> Stand:
    some = {"replicas": 1, "threads": 1, "gpus": None, "address": None}
    return Stand(**{"host": "127.0.0.1", "port": 8400, **some, **given})


def test_a_place_is_printed_as_a_browser_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert stand().place == "http://127.0.0.1:8400"
    assert stand(host="::1").place == "http://[::1]:8400"
    assert stand(address="auto").place == "http://127.0.0.1:8400 on the head of its Ray"


def test_replicas_for_which_there_is_never_room_are_refused_before_anybody_waits() -> None:
    stand = Stand("127.0.0.1", 8401, replicas=2, threads=1, gpus=1, address=None)
    machine = Node(cpus=8, gpus=1)
    with pytest.raises(ConfigError, match="2 with 1 CPUs and 1 GPUs each do not fit, 1 do"):
        refuse_what_never_fits(stand, 1, [machine], [])
    refuse_what_never_fits(stand, 0.5, [machine], [])
    refuse_what_never_fits(stand, 1, [machine, machine], [])
    refuse_what_never_fits(stand, 1, [machine], [Growth(machine, 2)])


def test_only_a_ray_that_goes_on_is_tidied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert stand().own_ray
    assert not stand(address="127.0.0.1:6379").own_ray
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert not stand().own_ray


def counted(url: str) -> dict[str, float]:
    """What /metrics says of the requests that were classified, and of replicas."""
    status, found, _ = ask(url, "/metrics")
    assert status == 200
    lines = (line.rpartition(" ") for line in found.splitlines() if not line.startswith("#"))
    wanted = ("cliptune_serve_requests", "cliptune_serve_texts", "cliptune_serve_replicas")
    return {name: float(value) for name, _, value in lines if name.startswith(wanted)}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Serve's own
def test_on_a_ray_of_others_one_server_stands_speaks_for_its_replicas_and_leaves_nothing(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    from ray import serve

    run = searched(model_dir, task_dir, tmp_path / "run")
    texts = 'cliptune_serve_texts_total{ensemble="false",prompt="run"}'
    with machines({"num_cpus": 2}) as (cluster, _):
        here = stand(address=cluster.address, port=free_port(), replicas=2, gpus=0.0)
        url = here.place.split()[0]
        with served([Served("run", str(run))], Limits(), None, here, None, "cpu"):
            before: dict[str, float] = {}
            for _ in range(40):
                assert ask(url, "/v1/classify", {"texts": ["a good film"]})[0] == 200
                now = counted(url)
                assert all(now[name] >= value for name, value in before.items())
                before = now
            end = time.monotonic() + 60  # whoever is asked has heard of all by then
            while (counted(url)[texts], counted(url)["cliptune_serve_replicas"]) != (40, 2):
                assert time.monotonic() < end, counted(url)
            another = stand(address=cluster.address, port=free_port())
            with (
                pytest.raises(ClusterError, match=r"runs already on the Ray .*cliptune-serve-"),
                provided(model_of(model_dir), ProviderLimits(), None, another),
            ):
                pass
            assert ask(url, "/v1/health")[0] == 200
        assert not serve.status().applications
        assert {actor["State"] for actor in actors().values()} == {"DEAD"}
