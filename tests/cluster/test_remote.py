"""A cluster's address, and what answers there; jobs themselves: tests/jobs/test_submit.py."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cliptune.errors import ClusterError, ConfigError, ScorerError
from cluster import session
from cluster.remote import DEFAULT, RefusedError, Remote, resolve_address

pytest.importorskip("aiohttp", reason="ray[default] is not installed: it brings the jobs")


@pytest.fixture(autouse=True)
def no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def web_server() -> Iterator[str]:
    """One that is no Ray."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *words: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("given", "resolved"),
    [
        (None, DEFAULT),
        ("head:8265", "http://head:8265"),
        ("https://head/", "https://head"),
        ("http://127.0.0.1:8265", "http://127.0.0.1:8265"),
    ],
)
def test_an_address_may_be_short(given: str | None, resolved: str) -> None:
    assert resolve_address(given) == resolved


def test_the_given_address_comes_before_rays_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")  # of searches
    assert resolve_address(None) == DEFAULT
    monkeypatch.setenv("RAY_ADDRESS", "http://one:1")
    assert resolve_address(None) == "http://one:1"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://two:2")
    assert resolve_address(None) == "http://two:2"
    assert resolve_address("http://three:3") == "http://three:3"


@pytest.mark.parametrize("given", ["ray://head:10001", "http://", "http://head:99999", "ftp://h"])
def test_what_is_no_web_address_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="--address is the cluster's dashboard"):
        resolve_address(given)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as error:
        resolve_address("http://me:hunter2@head:8265")
    assert "hunter2" not in str(error.value)


def test_an_address_where_nobody_listens_is_one_sentence() -> None:
    with pytest.raises(ClusterError, match=r"No cluster answers at http://127.0.0.1:1: "):
        Remote("http://127.0.0.1:1")


@pytest.mark.parametrize("host", ["a..b", "a" * 300])
def test_an_address_that_can_be_no_machines_is_one_sentence(host: str) -> None:
    with pytest.raises(ClusterError, match=f"No cluster answers at http://{host}:"):
        Remote(f"http://{host}")
    with (
        pytest.raises(ScorerError, match=f"No connection to Ray at {host}:6379:"),
        session.connected(f"{host}:6379"),
    ):
        pass


@contextmanager
def nobody_speaks() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield f"127.0.0.1:{one.getsockname()[1]}"


def test_a_search_is_told_that_what_listens_at_its_address_is_no_ray(
    web_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray by itself would try for a quarter of an hour."""
    monkeypatch.setattr(session, "CONNECT_SECONDS", 0.5)
    place = web_server.removeprefix("http://")
    is_none = f"^No connection to Ray at {place}: what listens there is no Ray .* cluster.address"
    with pytest.raises(ScorerError, match=is_none), session.connected(place):
        pass
    with nobody_speaks() as place:
        silent = f"^No connection to Ray at {place}: timed out. Check cluster.address"
        with pytest.raises(ScorerError, match=silent), session.connected(place):
            pass


def test_a_server_that_is_no_ray_is_said_to_be_none(web_server: str) -> None:
    with pytest.raises(ClusterError, match="not the dashboard of a Ray") as error:
        Remote(web_server)
    assert "\n" not in str(error.value)


def test_a_refusal_is_the_last_line_of_what_ray_says() -> None:
    text = "Traceback (most recent call last):\n  File ...\nValueError: Job first already exists."
    assert (
        str(RefusedError(400, text)) == "The cluster refuses that (400): Job first already exists."
    )
