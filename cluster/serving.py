"""Providers and prompts on Ray Serve: replicas of a model behind one address."""

import hashlib
import logging
import os
import socket
import stat
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliptune.config import ModelConfig
from cliptune.errors import ClusterError, ConfigError
from cliptune.predictor import Device
from cliptune.protocol import TOKEN
from cluster import nodes
from cluster.classify import Classifier
from cluster.classify import Limits as ClassifyLimits
from cluster.meters import BEAT, Totals
from cluster.placement import Growth, Need, Node, capacity
from cluster.prompts import Served
from cluster.provider import Limits, Provider
from cluster.session import connected
from cluster.web import is_loopback

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

    @property
    def place(self) -> str:
        """Its address, and on which machine that is."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{'' if self.own_ray else ' on the head of its Ray'}"

    @property
    def own_ray(self) -> bool:
        """Whether Ray is our own, and ends with us and takes all that runs on it along."""
        return (self.address or os.environ.get("RAY_ADDRESS") or "local") == "local"


@contextmanager
def provided(model: ModelConfig, limits: Limits, token: str | None, stand: Stand) -> Iterator[None]:
    """Replicas that have loaded the model and answer at the address, until the end."""
    given = {"model": model, "limits": limits, "token_sha256": digest(token)}
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
    given = {
        "served": prompts,
        "limits": limits,
        "token_sha256": digest(token),
        "model": model,
        "device": device,
    }
    with _answering("serve", Classifier, given, stand, limits.queue, device, limits.seconds):
        yield


def digest(token: str | None) -> str | None:
    """What replicas know of the token."""
    return None if token is None else hashlib.sha256(token.encode()).hexdigest()


@contextmanager
def _answering(
    verb: str,
    kind: type[Any],
    given: Mapping[str, Any],
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
        refuse_what_never_fits(stand, gpus, nodes.present(), nodes.growth())
        deployment: Any = serve.deployment(
            kind,
            num_replicas=stand.replicas,
            max_ongoing_requests=queue + MARGIN,
            max_queued_requests=stand.replicas * (queue + MARGIN),
            ray_actor_options={"num_cpus": stand.threads, "num_gpus": gpus},
            health_check_period_s=BEAT,
            health_check_timeout_s=seconds,
        )
        totals: Any = serve.deployment(Totals, ray_actor_options={"num_cpus": 0})
        each = {**given, "threads": stand.threads, "folder": str(Path.cwd())}
        if stand.replicas > 1:
            each["totals"] = totals.bind()
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        if not stand.own_ray:
            refuse_company(stand)
        name = f"cliptune-{verb}-{uuid.uuid4().hex[:8]}"  # of one that came between: not replaced
        try:
            try:
                serve.start("HeadOnly", HTTPOptions(host=stand.host, port=stand.port))
                serve.run(
                    deployment.bind(**each),
                    name=name,
                    route_prefix="/",
                    logging_config={"enable_access_log": False},
                )
            except Exception as error:
                raise ClusterError(_not_started(error, stand)) from error
            yield
        finally:
            if not stand.own_ray:
                _tidy(name)


def refuse_what_never_fits(
    stand: Stand, gpus: float, machines: Sequence[Node], growth: Sequence[Growth]
) -> None:
    """Ray Serve itself waits for ever, and says nothing, for a place that there cannot be."""
    need = Need(stand.threads, gpus)
    more = sum(kind.node.holds(need) * kind.count for kind in growth)
    room = max(capacity(machines, need), more)
    if stand.replicas > room:
        raise ConfigError(
            f"--replicas: {stand.replicas} with {need.cpus:g} CPUs and {need.gpus:g} GPUs each do "
            f"not fit, {room} do (here are {sum(node.cpus for node in machines):g} CPUs and "
            f"{sum(node.gpus for node in machines):g} GPUs). Ask for fewer, or for less each with "
            "--threads and --gpus."
        )


def refuse_company(stand: Stand) -> None:
    """Ray Serve has one address for all that runs on a Ray: another's is not ours to use, nor to
    end."""
    from ray import serve

    status = serve.status()
    if status.applications or status.proxies:
        runs = ", ".join(status.applications) or "nothing yet"
        raise ClusterError(
            f"Ray Serve runs already on the Ray at {stand.address or os.environ['RAY_ADDRESS']} "
            f"({runs}), and answers at one address alone. Leave --address out, and RAY_ADDRESS "
            "unset, to have a Ray of our own beside it; or end that one first: Ctrl-C where it was "
            "started, or `serve shutdown` where nobody holds it any more."
        )
    if is_head():
        refuse_taken(stand.host, stand.port)


def is_head() -> bool:
    """Whether this machine is the one of its Ray where Serve listens."""
    import ray

    ours: Any = ray
    here = ours.get_runtime_context().get_node_id()
    mine = next(node for node in ours.nodes() if node["NodeID"] == here)
    return "node:__internal_head__" in mine["Resources"]


def _tidy(name: str) -> None:
    """Leave nothing on a Ray that goes on, and what others have begun there meanwhile alone."""
    from ray import serve

    ours: Any = serve
    if name in ours.status().applications:
        ours.delete(name)
    if not ours.status().applications:
        ours.shutdown()


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
    if token is None and not is_loopback(host):
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
