"""Who may ask our servers, from a browser above all; and what is said of what goes wrong."""

import asyncio
import json
import logging
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from cliptune.errors import OutOfMemoryError, TaskError
from cliptune.protocol import HEALTH, METRICS, UnknownSessionError
from cluster.meters import Meters
from cluster.serving import digest
from cluster.web import Route, Server

WORK = "/v1/work"
TOKEN = "a token of the tests"  # noqa: S105 - not a real one


def server(token: str | None = None, error: Exception | None = None, totals: Any = None) -> Server:
    made = Server(digest(token), Meters("serve", totals))

    async def work(request: Request) -> Response:
        if error is not None:
            raise error
        return Response("done")

    made.routes[WORK] = Route("POST", work)
    return made


def ask(asked: Server, path: str = WORK, method: str = "POST", **headers: str) -> Response:
    given = {"host": "localhost:8401", **headers}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [
            (name.replace("_", "-").encode(), value.encode()) for name, value in given.items()
        ],
    }
    return asyncio.run(asked(Request(scope)))


def said(response: Response) -> tuple[int, str]:
    return response.status_code, json.loads(bytes(response.body))["error"]


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8401", "127.0.0.1:8401", "127.9.9.9", "[::1]:8401", "[::1]"]
)
def test_without_a_token_this_machine_may_ask_by_its_own_names(host: str) -> None:
    assert ask(server(), host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example:8401", "localhost@evil.example", "10.0.0.1", "", "["],
)
@pytest.mark.parametrize("path", [WORK, HEALTH, METRICS])
def test_a_name_that_was_made_to_lead_here_is_refused(host: str, path: str) -> None:
    response = ask(server(), path, "POST" if path == WORK else "GET", host=host)
    assert said(response) == (403, "host")
    assert b"127.0.0.1 alone" in bytes(response.body)


def test_with_a_token_the_name_does_not_matter() -> None:
    guarded = server(TOKEN)
    assert ask(guarded, host="gpu-box", authorization=f"Bearer {TOKEN}").status_code == 200
    assert said(ask(guarded, host="localhost")) == (401, "token")
    assert ask(guarded, HEALTH, "GET", host="gpu-box").status_code == 200


def test_a_browser_that_asks_whether_another_page_may_is_not_answered_so() -> None:
    asking = {"origin": "https://evil.example", "access_control_request_method": "POST"}
    for path in (WORK, HEALTH, METRICS, "/none"):
        response = ask(server(), path, "OPTIONS", **asking)
        assert response.status_code in (404, 405)
        assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TaskError("texts.0: expected a text."), (422, "invalid")),
        (UnknownSessionError("not known."), (404, "unknown_session")),
        (OutOfMemoryError("no room."), (507, "out_of_memory")),
    ],
)
def test_what_is_wrong_with_a_request_is_said_in_the_errors_words(
    error: Exception, expected: tuple[int, str]
) -> None:
    response = ask(server(error=error))
    assert said(response) == expected
    assert json.loads(bytes(response.body))["message"] == str(error)


def test_of_a_defect_the_log_holds_kind_and_place_and_no_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        response = ask(server(error=ValueError("a user's text")))
    assert said(response) == (500, "defect")
    assert "ValueError" in caplog.text
    assert "in work" in caplog.text
    assert "a user's text" not in caplog.text + bytes(response.body).decode()


def test_answers_are_counted_by_paths_that_are_known() -> None:
    made = server()
    for path in (WORK, WORK, "/a/secret"):
        ask(made, path)
    found = bytes(ask(made, METRICS, "GET").body).decode()
    assert 'cliptune_serve_requests_total{path="/v1/work",status="200"} 2.0' in found
    assert 'cliptune_serve_requests_total{path="other",status="404"} 1.0' in found
    assert "secret" not in found


def test_without_the_replicas_sum_a_scrape_fails_and_the_replica_is_well() -> None:
    made = server(totals=object())
    assert said(ask(made, METRICS, "GET")) == (503, "busy")
    asyncio.run(made.check_health())
