"""Providers and prompts on Ray Serve: replicas of a model behind one address."""

import hashlib
import logging
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cliptune.config import ModelConfig
from cliptune.errors import ClusterError, ConfigError
from cliptune.predictor import Device
from cliptune.protocol import TOKEN
from cluster import nodes
from cluster.classify import Classifier
from cluster.classify import Limits as ClassifyLimits
from cluster.prompts import Served
from cluster.provider import Limits, Provider
from cluster.session import connected

MARGIN = 8  # requests that a replica is given beyond those that may wait, to be refused by it


@dataclass(frozen=True)
class Stand:
    """Where a server stands, and what its replicas get."""

    host: str
    port: int
    replicas: int
    threads: int
    gpus: float | None  # a replica; one where there are any if None
    address: str | None  # of a running Ray; one of our own if None


@contextmanager
def provided(model: ModelConfig, limits: Limits, token: str | None, stand: Stand) -> Iterator[None]:
    """Replicas that have loaded the model and answer at the address, until the end."""
    given = (model, limits, digest(token), stand.threads)
    with _answering("provider", Provider, given, stand, limits.queue, model.device, limits.opening):
        yield


@contextmanager
def served(
    prompts: Sequence[Served],
    limits: ClassifyLimits,
    token: str | None,
    stand: Stand,
    model: str | None,
    device: Device | None,
) -> Iterator[None]:
    """Replicas that answer with the prompts of these runs, until the end."""
    given = (prompts, limits, digest(token), stand.threads, model, device)
    with _answering("serve", Classifier, given, stand, limits.queue, device, limits.seconds):
        yield


def digest(token: str | None) -> str | None:
    """What replicas know of the token."""
    return None if token is None else hashlib.sha256(token.encode()).hexdigest()


@contextmanager
def _answering(
    name: str,
    kind: type[Any],
    given: tuple[Any, ...],
    stand: Stand,
    queue: int,
    device: str | None,
    seconds: float,
) -> Iterator[None]:
    """Replicas of `kind`, each made of what is `given`, where `stand` says.

    In each, `queue` requests wait; one that does not say within so many `seconds` that it is
    healthy is replaced.
    """
    from ray import serve
    from ray.serve.config import HTTPOptions

    needed = stand.replicas * stand.threads + 1  # and what Serve itself runs
    with connected(stand.address, cpus=max(needed, os.cpu_count() or 1)):
        gpus = stand.gpus
        if gpus is None:
            gpus = float(device != "cpu" and any(node.gpus for node in nodes.present()))
        deployment: Any = serve.deployment(
            kind,
            num_replicas=stand.replicas,
            max_ongoing_requests=queue + MARGIN,
            max_queued_requests=stand.replicas * (queue + MARGIN),
            ray_actor_options={"num_cpus": stand.threads, "num_gpus": gpus},
            health_check_timeout_s=seconds,
        )
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        serve.start(http_options=HTTPOptions(host=stand.host, port=stand.port))
        try:
            serve.run(
                deployment.bind(*given),
                name=f"cliptune-{name}",
                route_prefix="/",
                logging_config={"enable_access_log": False},
            )
        except Exception as error:
            raise ClusterError(_not_started(error, stand)) from error
        try:
            yield
        finally:
            if worth_tidying(stand.address):
                serve.delete(f"cliptune-{name}", _blocking=False)


def worth_tidying(address: str | None) -> bool:
    """Whether Ray goes on without us: one of our own takes its replicas with it."""
    return (address or os.environ.get("RAY_ADDRESS") or "local") != "local"


def read_token(file: Path | None) -> str | None:
    """The token that users have to show: a file's, which its owner alone may read, else that of
    the environment; None where there is neither."""
    if file is None:
        return os.environ.get(TOKEN, "").strip() or None
    try:
        known = file.stat()
        if stat.S_IMODE(known.st_mode) & 0o077:
            raise ConfigError(
                f"--token-file {file} may be read by others than its owner: chmod 600 {file}"
            )
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"--token-file {file} cannot be read: {why}.") from None
    if not token:
        raise ConfigError(f"--token-file {file} is empty: expected a token.")
    return token


def refuse_open_door(host: str, token: str | None) -> None:
    """Beyond this machine, nobody may ask without a token."""
    try:
        local = ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local and token is None:
        raise ConfigError(
            f"--host {host} lets other machines ask: set {TOKEN} or give a --token-file, or stay "
            "on 127.0.0.1."
        )


def refuse_taken(host: str, port: int) -> None:
    """Ray Serve itself says of a port that is taken only in its log."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"Nothing can listen at {host}:{port}: {error.strerror}. Choose another --port."
            ) from None


def _not_started(error: Exception, stand: Stand) -> str:
    text: Any = str(error).strip().splitlines() or [type(error).__name__]
    return (
        f"Nothing could be started at {stand.host}:{stand.port}: {text[-1]:.300} Is the "
        "port taken, or does a replica not fit (--replicas, --threads, --gpus)?"
    )
