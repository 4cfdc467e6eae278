"""What our servers have in common: who may ask, how much, and how what goes wrong is said."""

import asyncio
import hashlib
import hmac
import logging
import os
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

from cliptune.errors import CliptuneError, OutOfMemoryError
from cliptune.protocol import HEALTH, METRICS, Failure, Message, UnknownSessionError
from cluster.meters import Meters

M = TypeVar("M", bound=Message)

JSON = "application/json"
RETRY_AFTER = 1  # seconds, of a full queue
DRAIN = 8  # times the largest body that is read, and thrown away, so that a sender hears of it

LOG = logging.getLogger("cliptune.server")


class Refused(Exception):  # noqa: N818 - it is an answer
    """What is answered instead of an answer."""

    def __init__(self, status: int, error: str, message: str, after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.error, self.after = status, error, after


@dataclass(frozen=True)
class Route:
    """How a path is asked, and what answers."""

    method: str
    answer: Callable[[Request], Awaitable[Response]]
    open: bool = False  # to who does not show the token, too


def settle(threads: int, folder: str | None) -> None:
    """Make this process one that computes on so many CPU `threads`, and that stands in `folder`,
    where there is one: the user's, which what is named by a relative path lies in."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch

    torch.set_num_threads(threads)
    if folder is not None and Path(folder).is_dir():
        os.chdir(folder)


class Server:
    """Answers requests by their path. Ray Serve runs it, and so does any ASGI server."""

    def __init__(self, token_sha256: str | None, meters: Meters) -> None:
        """Of the token only its SHA-256 is known here, and without one everybody on this machine
        may ask."""
        self._token, self._meters = token_sha256, meters
        self.routes = {
            HEALTH: Route("GET", self._health, open=True),
            METRICS: Route("GET", self._metrics),
        }

    async def __call__(self, request: Request) -> Response:
        started = time.perf_counter()
        path = request.url.path.rstrip("/")
        try:
            response = await self._route(request, path).answer(request)
        except ClientDisconnect:
            response = Response(status_code=499)
        except Exception as error:
            response = failure(refusal(error))
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        known = path or "/" if path in self.routes else "other"
        self._meters.request(known, response, time.perf_counter() - started)
        return response

    async def check_health(self) -> None:
        """Asked by Ray Serve every few seconds, which is when a replica reports what it counted."""
        with suppress(Exception):  # whoever cannot be told of them: it is still well
            await self._meters.text()

    def _route(self, request: Request, path: str) -> Route:
        """What answers, if this one may ask."""
        route = self.routes.get(path)
        if self._token is None:
            check_host(request)
        elif route is None or not route.open:
            check_token(request, self._token)
        if route is None:
            raise Refused(404, "not_found", f"there is no {path[:60]} here.")
        if request.method != route.method:
            raise Refused(405, "method", f"{path or '/'} is asked with {route.method}.")
        return route

    async def _health(self, request: Request) -> Response:
        return Response('{"status":"ok"}', media_type=JSON)

    async def _metrics(self, request: Request) -> Response:
        try:
            return PlainTextResponse(await self._meters.text())
        except Exception:  # a gap is better than numbers that fall
            text = "what the replicas have counted cannot be added up now."
            raise Refused(503, "busy", text, RETRY_AFTER) from None


def check_token(request: Request, token_sha256: str) -> None:
    """Refuse who does not show the token."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    found = hashlib.sha256(token.strip().encode()).hexdigest()
    if kind.lower() != "bearer" or not hmac.compare_digest(found, token_sha256):
        what = "the token is another one" if token else "a token is needed"
        raise Refused(401, "token", f"{what}.")


def check_host(request: Request) -> None:
    """Refuse a browser that was led here: the page that it shows has a name of its own, which it
    says, though the name's address may by now be that of this machine."""
    said = request.headers.get("host", "")
    try:
        host = urlsplit(f"//{said}").hostname or ""
    except ValueError:
        host = ""
    if not is_loopback(host):
        raise Refused(
            403,
            "host",
            f"without a token this server is asked as localhost or 127.0.0.1 alone, the request "
            f"says {said[:60] or 'nothing'}; under other names it needs a token.",
        )


def is_loopback(host: str) -> bool:
    """Whether a name or address can be none but this machine's own."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


async def read_json(request: Request, kind: type[M], most: int, meters: Meters) -> M:
    """The message that was sent, of bounded size."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        # A browser asks before it sends JSON for another page, and is not answered.
        raise Refused(415, "media_type", f"the body must be {JSON}, and be called so.")
    body = await _read_body(request, most)
    meters.received.inc(len(body))
    return await asyncio.to_thread(_parsed, kind, body)


async def _read_body(request: Request, most: int) -> bytes:
    """What was sent, of bounded size; what is too large is read all the same, so that its
    sender gets to read the answer."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size <= most:
            parts.append(part)
        else:
            parts.clear()
        if size > DRAIN * most:
            break
    if size > most:
        raise Refused(413, "too_large", f"a request may have {most:,} bytes, it has more.")
    return b"".join(parts)


def _parsed(kind: type[M], body: bytes) -> M:
    """A message that is as it should be."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        what = first["msg"].removeprefix("Value error, ")
        raise Refused(422, "invalid", f"{where}: {what}.") from None


def refusal(error: Exception) -> Refused:
    """How whatever went wrong is answered. The log hears of a defect where it happened, and no
    message: users' texts may be in it."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, UnknownSessionError):
        return Refused(404, "unknown_session", str(error))
    if isinstance(error, OutOfMemoryError):
        return Refused(507, "out_of_memory", str(error))
    if isinstance(error, CliptuneError):
        return Refused(422, "invalid", str(error))
    where = "".join(traceback.format_tb(error.__traceback__))
    LOG.error("A request failed with %s\n%s", type(error).__name__, where)
    return Refused(500, "defect", "this is a defect of the server; its log says where.")


def failure(refused: Refused) -> Response:
    """A refusal as it is sent."""
    said = Failure(error=refused.error, message=str(refused))
    headers = {} if refused.after is None else {"Retry-After": str(refused.after)}
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(said.model_dump_json(), refused.status, headers=headers, media_type=JSON)


def as_json(message: Message) -> Response:
    """A message as it is sent."""
    return Response(message.model_dump_json(), media_type=JSON)
