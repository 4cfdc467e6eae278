"""A provider on Ray Serve: replicas of a model behind one address."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cliptune.config import ModelConfig
from cliptune.errors import ClusterError, ConfigError
from cliptune.protocol import TOKEN
from cluster import nodes
from cluster.provider import Limits, Provider
from cluster.session import connected

APPLICATION = "cliptune-provider"
MARGIN = 8  # requests that a replica is given beyond those that may wait, to be refused by it


@dataclass(frozen=True)
class Stand:
    """Where a provider stands, and what its replicas get."""

    host: str
    port: int
    replicas: int
    threads: int
    gpus: float | None  # a replica; one where there are any if None
    address: str | None  # of a running Ray; one of our own if None


@contextmanager
def provided(model: ModelConfig, limits: Limits, token: str | None, stand: Stand) -> Iterator[None]:
    """Replicas that have loaded the model and answer at the address, until the end."""
    from ray import serve
    from ray.serve.config import HTTPOptions

    needed = stand.replicas * stand.threads + 1  # and what Serve itself runs
    with connected(stand.address, cpus=max(needed, os.cpu_count() or 1)):
        gpus = stand.gpus
        if gpus is None:
            gpus = float(model.device != "cpu" and any(node.gpus for node in nodes.present()))
        digest = None if token is None else hashlib.sha256(token.encode()).hexdigest()
        deployment: Any = serve.deployment(
            Provider,
            num_replicas=stand.replicas,
            max_ongoing_requests=limits.queue + MARGIN,
            max_queued_requests=stand.replicas * (limits.queue + MARGIN),
            ray_actor_options={"num_cpus": stand.threads, "num_gpus": gpus},
            health_check_timeout_s=limits.opening,
        )
        serve.start(http_options=HTTPOptions(host=stand.host, port=stand.port))
        try:
            serve.run(
                deployment.bind(model, limits, digest, stand.threads),
                name=APPLICATION,
                route_prefix="/",
                logging_config={"enable_access_log": False},
            )
        except Exception as error:
            raise ClusterError(_no_provider(error, stand)) from error
        try:
            yield
        finally:
            serve.shutdown()  # type: ignore[no-untyped-call]


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


def _no_provider(error: Exception, stand: Stand) -> str:
    text: Any = str(error).strip().splitlines() or [type(error).__name__]
    return (
        f"The provider could not be started at {stand.host}:{stand.port}: {text[-1]:.300} Is the "
        "port taken, or does a replica not fit (--replicas, --threads, --gpus)?"
    )
