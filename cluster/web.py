"""What our servers have in common: who may ask, how much, and how a refusal is said."""

import hashlib
import hmac
from typing import TypeVar

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from cliptune.protocol import Failure, Message

M = TypeVar("M", bound=Message)

JSON = "application/json"
RETRY_AFTER = 1  # seconds, of a full queue
DRAIN = 8  # times the largest body that is read, and thrown away, so that a sender hears of it


class Refused(Exception):  # noqa: N818 - it is an answer
    """What is answered instead of an answer."""

    def __init__(self, status: int, error: str, message: str, after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.error, self.after = status, error, after


def check_token(request: Request, token_sha256: str | None) -> None:
    """Refuse who does not show the token; without one everybody may ask."""
    if token_sha256 is None:
        return
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    found = hashlib.sha256(token.strip().encode()).hexdigest()
    if kind.lower() != "bearer" or not hmac.compare_digest(found, token_sha256):
        what = "the token is another one" if token else "a token is needed"
        raise Refused(401, "token", f"{what}.")


async def read_body(request: Request, most: int) -> bytes:
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


def parsed(kind: type[M], body: bytes) -> M:
    """A message that is as it should be."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        what = first["msg"].removeprefix("Value error, ")
        raise Refused(422, "invalid", f"{where}: {what}.") from None


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
