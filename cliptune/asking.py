"""One provider's address: requests, how often and how long they are tried, and their bill."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

import requests
import tenacity
from pydantic import ValidationError
from requests.adapters import HTTPAdapter

from cliptune.errors import ConfigError, ModelError, OutOfMemoryError, ScorerError
from cliptune.protocol import SESSIONS, TOKEN, Failure, Message, Opened, Session
from cliptune.scorer import Bill

if TYPE_CHECKING:
    from cliptune.config import Config

M = TypeVar("M", bound=Message)

FIRST_PATIENCE = 10.0  # seconds where no provider ever answered: the url may be wrong
LONGEST_PAUSE = 30.0  # seconds between two tries, unless the provider asks for more
UNHEARD = (  # what becomes of an answer on its way
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)
AGAIN = (429, 500, 502, 503)  # which status may be another one the next time
BROKEN = 5  # times that a request may end in 500
IN_JOURNAL = "What was scored before is in the journal."


class Provider:
    """An address, and how often and how long one asks there."""

    def __init__(self, config: Config) -> None:
        self._settings = config.scorer
        self.url = str(config.scorer.url).rstrip("/")
        self.bill = Bill()
        self._lock = threading.Lock()  # of the bill
        self._over = threading.Event()
        self._heard = self._met = False  # whether it ever said anything; gave an answer
        _token()
        self._http = requests.Session()
        self._http.auth = _bearer  # a ~/.netrc would come before a mere header
        for scheme in ("http://", "https://"):
            self._http.mount(scheme, HTTPAdapter(pool_maxsize=config.scorer.requests))

    def open(self, session: Session) -> Opened:
        """Have the session known there."""
        return self._again(lambda: self._send(SESSIONS, session, Opened))

    def ask(
        self, path: str, question: Message, kind: type[M], session: Session, opened: Opened
    ) -> M:
        """The answer to a question; the session is sent again where it is not known any more."""

        def once() -> M:
            try:
                return self._send(path, question, kind)
            except _UnknownSessionError:
                self._same(self._send(SESSIONS, session, Opened), opened)
                raise

        return self._again(once)

    def begin(self) -> None:
        """Let requests be tried again, until `give_up`; not those of before."""
        self._over = threading.Event()

    def give_up(self) -> None:
        """Let no request be tried again."""
        self._over.set()

    def _same(self, now: Opened, before: Opened) -> None:
        if (now.facts, now.lengths, now.model) != (before.facts, before.lengths, before.model):
            raise ModelError(
                f"The provider at {self.url} has another model now: {now.facts.name} with SHA-256 "
                f"{now.facts.sha256[:12]} in {now.model.get('dtype')}, before it was "
                f"{before.facts.name} with {before.facts.sha256[:12]} in "
                f"{before.model.get('dtype')}. {IN_JOURNAL} Go on where the first one is."
            )

    @property
    def _kept(self) -> str:
        """What is not lost, where anything was answered before."""
        return f" {IN_JOURNAL}" if self._met else ""

    def _again(self, once: Callable[[], M]) -> M:
        """What comes of trying until there is an answer, or patience ends."""
        patience = self._settings.patience
        over = self._over
        broken = 0

        def counted() -> M:
            nonlocal broken
            try:
                return once()
            except _BrokenError:
                broken += 1
                raise

        trying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Again),
            wait=lambda state: self._pause(state, patience),
            stop=lambda state: broken >= BROKEN or over.is_set() or self._enough(state, patience),
            sleep=tenacity.sleep_using_event(over),
            before_sleep=self._count_retry,
            reraise=True,
        )
        try:
            answer: M = trying(counted)
            return answer
        except _Again as error:
            raise ScorerError(
                f"{error} Tried {trying.statistics['attempt_number']} times in "
                f"{trying.statistics['delay_since_first_attempt']:.0f} s (scorer.patience). "
                f"{error.remedy}{self._kept}"
            ) from None

    def _enough(self, state: tenacity.RetryCallState, patience: float) -> bool:
        left = self._left(state, patience)
        return left <= 0.0 or state.upcoming_sleep > left

    def _pause(self, state: tenacity.RetryCallState, patience: float) -> float:
        """Seconds until the next try: what the provider asks for, else longer each time; the last
        try is at the end of our patience."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _UnknownSessionError):
            return 0.0
        asked = getattr(error, "after", None)
        if asked is not None:
            return float(asked * random.uniform(1.0, 1.25))  # noqa: S311 - not all come at once
        longer = 0.25 * 2 ** min(state.attempt_number, 10)
        pause = min(LONGEST_PAUSE, longer) * random.uniform(0.5, 1.0)  # noqa: S311
        return float(max(0.0, min(pause, self._left(state, patience))))

    def _left(self, state: tenacity.RetryCallState, patience: float) -> float:
        """Seconds that we go on trying."""
        limit = patience if self._met or self._heard else min(patience, FIRST_PATIENCE)
        return limit - (state.seconds_since_start or 0.0)

    def _count_retry(self, state: tenacity.RetryCallState) -> None:
        with self._lock:
            self.bill.retries += 1

    def _send(self, path: str, message: Message, kind: type[M]) -> M:
        """One request; whatever is not its answer is raised."""
        body = message.model_dump_json().encode()
        with self._lock:
            self.bill.requests += 1
            self.bill.bytes_sent += len(body)
        try:
            answer = self._http.post(
                self.url + path,
                data=body,
                headers={"Content-Type": "application/json"},
                timeout=(FIRST_PATIENCE, self._settings.timeout),
                allow_redirects=False,
            )
        except UNHEARD as error:
            raise _Again(f"No answer from the provider at {self.url}: {_reason(error)}.") from None
        except requests.RequestException as error:
            raise ConfigError(f"scorer.url {self.url} cannot be asked: {error}") from None
        with self._lock:
            self.bill.bytes_received += len(answer.content)
        if answer.status_code == 200:
            try:
                found = kind.model_validate_json(answer.content)
            except ValidationError:
                raise self._stranger(answer) from None
            self._met = True
            return found
        raise self._failure(answer)

    def _failure(self, answer: requests.Response) -> Exception:
        """What an answer that is none means."""
        status = answer.status_code
        try:
            failure = Failure.model_validate_json(answer.content)
        except ValidationError:
            failure = Failure(error="", message=f"{status} {answer.reason}.")
        else:
            self._heard = True
        said = f"The provider at {self.url} answered: {failure.message}"
        if status == 401:
            return ScorerError(f"{said} Give its token in the environment variable {TOKEN}.")
        if failure.error == "unknown_session":
            return _UnknownSessionError(said)
        if failure.error == "out_of_memory":
            return OutOfMemoryError(said)
        if failure.error and status in (413, 504):
            return TooMuch(f"{said}{self._kept}")
        if status in AGAIN or (status == 504 and not failure.error):
            kind = _BrokenError if status == 500 else _Again
            return kind(said, after=_seconds(answer.headers.get("Retry-After")))
        if failure.error:
            return ConfigError(said)
        return self._stranger(answer)

    def _stranger(self, answer: requests.Response) -> ScorerError:
        return ScorerError(
            f"What answers at {self.url} ({answer.status_code} {answer.reason}) is no cliptune "
            "provider of this version. Check scorer.url: the address alone, as `cliptune provider` "
            "printed it."
        )


class TooMuch(ScorerError):  # noqa: N818 - seldom the end: units are sent again in parts
    """A request is too large, or takes too long, for the provider."""


class _Again(Exception):  # noqa: N818 - as above
    """No answer this time; `after` are the seconds that the provider asks us to wait."""

    remedy = "Check scorer.url, and that `cliptune provider` runs there."

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class _BrokenError(_Again):
    """The provider failed over the request."""

    remedy = "Its own log says more."


class _UnknownSessionError(_Again):
    """The provider, or one of its replicas, has not seen the session, or forgot it."""


def _bearer(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Show the token that the environment holds, to the provider alone."""
    if token := _token():
        request.headers["Authorization"] = f"Bearer {token}"
    return request


def _token() -> str:
    """That of the environment, such as a file's content with the newline at its end."""
    token = os.environ.get(TOKEN, "").strip()
    if not (token.isascii() and token.isprintable()):
        raise ConfigError(f"{TOKEN} must be one line of ASCII characters that can be printed.")
    return token


def _seconds(header: str | None) -> float | None:
    """What Retry-After says: seconds, or a date."""
    if header is None:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(header))
    with contextlib.suppress(ValueError):
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    return None


def _reason(error: Exception) -> str:
    """Of a failed connection, without addresses of objects."""
    if isinstance(error, requests.ReadTimeout):
        return "it took longer than scorer.timeout"
    if isinstance(error, requests.ConnectTimeout):
        return "the connection took too long"
    if not isinstance(error, requests.ConnectionError):
        return "it broke off"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted"
    text = str(error)
    known = ("Connection refused", "Name or service not known", "Connection aborted", "reset by")
    return next((words for words in known if words in text), type(error).__name__)
