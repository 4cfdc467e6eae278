"""Jobs on a Ray that runs elsewhere, over its dashboard's HTTP: submitted, listed, stopped.

What Ray's client raises becomes one sentence here. A job's name is ours: it may be submitted again
and again, each time as a submission of its own, NAME-1, NAME-2 and so on.
"""

import logging
import os
import platform
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray

from cliptune.errors import ClusterError, ConfigError
from cluster.access import ENTRY, protect_token

DEFAULT = "http://127.0.0.1:8265"
NAME, NUMBER = "job", "try"  # in a submission's metadata
PENDING, RUNNING, STOPPED, SUCCEEDED = "pending", "running", "stopped", "succeeded"
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0  # to a question
UPLOAD_SECONDS = 120.0  # to what was sent, once all of it is
ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


class RefusedError(ClusterError):
    """The cluster's answer was no."""

    def __init__(self, status: int, text: str) -> None:
        lines = text.strip().splitlines() or [""]  # the last one of a traceback says what it is
        said = re.sub(r"^\w+Error: ", "", lines[-1])
        super().__init__(f"The cluster refuses that ({status}): {said:.500}")
        self.status = status


class UnreachableError(ClusterError):
    """Nobody answered, or not to the end: it may be different in a moment."""


@dataclass(frozen=True)
class Submission:
    """One try of a job, as the cluster knows it."""

    id: str
    state: str  # pending, running, stopped, succeeded or failed
    message: str
    metadata: Mapping[str, str]
    exit_code: int | None  # of its command
    began: float | None  # seconds since 1970
    ended: float | None

    @property
    def name(self) -> str:
        """Of the job; somebody else's submission is a job of its own."""
        return self.metadata.get(NAME, self.id)

    @property
    def number(self) -> int:
        number = self.metadata.get(NUMBER, "")
        return int(number) if number.isdecimal() else 1

    @property
    def over(self) -> bool:
        return self.state not in (PENDING, RUNNING)


def resolve_address(given: str | None) -> str:
    """Where the dashboard is: as given, else by Ray's own variables, else on this machine.

    RAY_ADDRESS counts only where it is a web address; it may name the Ray of searches instead.
    """
    place = given or os.environ.get(ADDRESSES[0])
    if place is None and os.environ.get(ADDRESSES[1], "").startswith(("http://", "https://")):
        place = os.environ[ADDRESSES[1]]
    place = place or DEFAULT
    place = (place if "://" in place else f"http://{place}").rstrip("/")
    try:
        parts = urlsplit(place)
        known = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        known = False
    if not known or parts.username is not None:
        raise ConfigError(
            f"--address is the cluster's dashboard, such as {DEFAULT}, without user or password; "
            f"found {'one with them' if known else place}."
        )
    return place


def connect(given: str | None, warn: Callable[[str], None]) -> "Remote":
    """The cluster of an address, or of the environment's; the token is looked after on the way."""
    address = resolve_address(given)
    if os.environ.get("RAY_AUTH_MODE") == "token" and (exposed := protect_token()):
        warn(exposed)
    return Remote(address)


class Remote:
    """The jobs of one cluster."""

    def __init__(self, address: str) -> None:
        """`address` as `resolve_address` returns it; ClusterError where it is no Ray of ours."""
        self.address = address
        _refuse_silence(address)
        with _said(address), _our_address_wins():
            self.client = _client(address)

    def refuse_other_versions(self) -> None:
        """A submission has to come from the Ray and the Python that the cluster runs."""
        try:
            there = self._ask("GET", "/api/v0/cluster_metadata").get("data") or {}
        except RefusedError:  # of an older Ray, which does not tell
            return
        ours = {"Ray": ray.__version__, "Python": platform.python_version()}
        for what, key in (("Ray", "rayVersion"), ("Python", "pythonVersion")):
            theirs = there.get(key)
            if theirs is not None and _release(what, theirs) != _release(what, ours[what]):
                raise ClusterError(
                    f"The cluster runs {what} {theirs}, here is {ours[what]}: submit from an "
                    f"environment with the cluster's {what}, or start the cluster with this one."
                )

    def submissions(self) -> list[Submission]:
        """All that the cluster remembers, oldest first."""
        jobs = self._ask("GET", "/api/jobs/")
        found = [_submission(job) for job in jobs if job.get("submission_id")]
        return sorted(found, key=lambda one: (one.began or 0.0, one.number))

    def latest(self, name: str) -> Submission | None:
        """The last try of a job."""
        tries = [one for one in self.submissions() if one.name == name]
        return max(tries, key=lambda one: one.number) if tries else None

    def find(self, name: str) -> Submission:
        """The last try of a job, or a submission by its own id."""
        everything = self.submissions()
        tries = [one for one in everything if one.name == name]
        tries = tries or [one for one in everything if one.id == name]
        if not tries:
            known = list(dict.fromkeys(one.name for one in reversed(everything)))
            raise ClusterError(
                f"There is no job {name} on the cluster at {self.address}; it knows "
                f"{', '.join(known[:12]) or 'none'}. (After a restart Ray has forgotten its jobs; "
                "their runs are where they were.)"
            )
        return max(tries, key=lambda one: one.number)

    def look(self, submission: Submission) -> Submission:
        """The same submission as it is now."""
        try:
            return _submission(self._ask("GET", f"/api/jobs/{submission.id}"))
        except RefusedError as refused:
            if refused.status != 404:
                raise
            raise ClusterError(
                f"The cluster at {self.address} no longer knows {submission.id}: it was started "
                "anew. Submit the same again; the search goes on from its run."
            ) from None

    def submit(
        self, id: str, command: str, package: Path, variables: Mapping[str, str], **metadata: str
    ) -> None:
        """Have the command run in a copy of the package; RefusedError for an id that is taken."""
        with _said(self.address):
            self.client.submit_job(
                entrypoint=command,
                submission_id=id,
                runtime_env={"working_dir": str(package), "env_vars": dict(variables)},
                metadata=metadata,
            )

    def stop(self, submission: Submission) -> None:
        """Ask it to end; it is over when `look` says so."""
        self._ask("POST", f"/api/jobs/{submission.id}/stop")

    def log(self, submission: Submission) -> str:
        """Everything that it has printed until now."""
        return str(self._ask("GET", f"/api/jobs/{submission.id}/logs").get("logs") or "")

    def _ask(self, method: str, path: str) -> Any:
        with _said(self.address):
            answer = self.client._do_request(method, path)
            if answer.status_code != 200:
                raise RefusedError(answer.status_code, answer.text)
            return answer.json()


def _client(address: str) -> Any:
    try:
        import aiohttp  # noqa: F401 -- of ray[default], as the client itself only finds out later
        from ray.job_submission import JobSubmissionClient
    except ImportError:
        raise ClusterError(
            "Jobs need Ray's own extra: pip install -c constraints.txt '.[cluster]' (ray[default])."
        ) from None

    for module in ("dashboard_sdk", "job.sdk"):  # what they tell of uploads is not for users
        logging.getLogger(f"ray.dashboard.modules.{module}").setLevel(logging.WARNING)

    class Client(JobSubmissionClient):
        """Ray's, but it does not wait for ever, and an answer keeps its number."""

        def _do_request(self, method: str, endpoint: str, **more: Any) -> Any:
            patience = ANSWER_SECONDS if method == "GET" else UPLOAD_SECONDS
            return super()._do_request(method, endpoint, **{"timeout": patience, **more})

        def _raise_error(self, answer: Any) -> None:
            raise RefusedError(answer.status_code, answer.text)

    return Client(address)


@contextmanager
def _our_address_wins() -> Iterator[None]:
    """Ray's client lets the environment override the address that it is given."""
    kept = {name: os.environ.pop(name) for name in ADDRESSES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


@contextmanager
def _said(address: str) -> Iterator[None]:
    """What goes wrong on the way, in a sentence; what the cluster answers is the caller's."""
    from requests.exceptions import HTTPError, RequestException

    try:
        yield
    except ClusterError:
        raise
    except ray.exceptions.AuthenticationError as error:
        why = f"asks for a token. {ENTRY}"
        if "failed" in str(error).partition("\n")[0]:
            why = (
                "does not take the token from here: copy the cluster's to ~/.ray/auth_token, or "
                "give it in RAY_AUTH_TOKEN."
            )
        raise ClusterError(f"The cluster at {address} {why}") from None
    except HTTPError as error:
        raise ClusterError(_not_ray(address, str(error))) from None
    except (RequestException, OSError) as error:
        if isinstance(error, ValueError):  # an answer that is not JSON
            raise ClusterError(_not_ray(address, "it answers in another language")) from None
        raise UnreachableError(
            f"The connection to the cluster at {address} broke ({_root(error)}): "
            "--address is that of its dashboard, usually with port 8265."
        ) from None
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise ClusterError(_not_ray(address, str(error).partition("\n")[0])) from None


def _root(error: BaseException) -> str:
    """The innermost reason; requests wraps them in one another, and Ray the whole once more."""
    inner = error.__context__ or error
    while inner.args and isinstance(inner.args[0], BaseException):
        inner = inner.args[0]
    reason = getattr(inner, "reason", None) or (inner.args[0] if inner.args else "")
    return str(reason).partition("\n")[0].rpartition(": ")[2].rstrip(".") or type(inner).__name__


def _not_ray(address: str, why: str) -> str:
    return (
        f"What answers at {address} is not the dashboard of a Ray that takes jobs ({why:.200}): "
        f"--address is the one that `ray start` prints, usually with port 8265."
    )


def _refuse_silence(address: str) -> None:
    """Find out at once, and say where, that nobody listens."""
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((str(parts.hostname), port), CONNECT_SECONDS).close()
    except (OSError, UnicodeError) as error:  # the latter of what can be no machine's name
        why = getattr(error, "strerror", None) or error
        raise ClusterError(
            f"No cluster answers at {address}: {why}. Check --address and "
            "RAY_API_SERVER_ADDRESS, and that the cluster runs and a tunnel to it is open."
        ) from None


def _submission(job: Mapping[str, Any]) -> Submission:
    begun, ended = job.get("start_time"), job.get("end_time")
    return Submission(
        id=str(job["submission_id"]),
        state=str(job["status"]).lower(),
        message=str(job.get("message") or ""),
        metadata=job.get("metadata") or {},
        exit_code=job.get("driver_exit_code"),
        began=begun / 1000 if begun else None,
        ended=ended / 1000 if ended else None,
    )


def _release(what: str, version: str) -> str:
    """As much of a version as has to be the same: of Python, 3.12."""
    return ".".join(version.split(".")[:2]) if what == "Python" else version
