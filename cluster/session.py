"""Connecting to Ray, or starting it here; checking what it has; running a search on it."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path

import ray
from ray._private import worker
from ray.exceptions import RayError

from cliptune import functions, loop
from cliptune.device import resolve
from cliptune.errors import ConfigError, HeldError, ScorerError
from cliptune.observer import Observer, Observers
from cliptune.record import Result
from cliptune.run import opened
from cliptune.scorer import Scorer
from cliptune.task import Task, load_task
from cliptune.trackers import tracked
from cliptune.weights import count_parameters
from cluster import nodes
from cluster.access import ENTRY, protect_token
from cluster.config import MOST, ActorRange, ClusterConfig, ClusterSearch
from cluster.metrics import Metrics
from cluster.placement import Growth, Need, Node, capacity
from cluster.pool import ActorPool

CPU_ACTORS = 2  # of one's own share of a Ray; on a Ray that is the search's alone up to:
MOST_CPU_ACTORS = 8
ACTOR_BYTES = 768 * 2**20  # of one on a CPU, besides
PARAMETER_BYTES = 12  # a parameter: in float32, again where it is thinned, and what is computed
CONNECT_SECONDS = 10.0
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x04"  # the type of a frame, its fourth byte; three are its length
EMPTY_SETTINGS = b"\0\0\0" + SETTINGS + bytes(5)
BETWEEN_TRIES = 5.0  # seconds

_start = threading.Event()


def search(
    config: ClusterSearch,
    observer: Observer | None = None,
    *,
    resume: bool = False,
    patience: float = 0.0,
) -> Result:
    """Run a whole search on Ray actors, or go on with the one in `run_dir`.

    For `patience` seconds, wait while another search may hold `run_dir` that died and cannot let
    go of it.
    """
    observer = observer or Observer()
    until, said = time.monotonic() + patience, False
    while True:
        try:
            return _search(config, observer, resume=resume)
        except HeldError:
            if time.monotonic() >= until:
                raise
        if not said:
            observer.phase(f"Waiting for the search that holds {config.run_dir}")
            said = True
        time.sleep(BETWEEN_TRIES)


def _search(config: ClusterSearch, observer: Observer, *, resume: bool) -> Result:
    task = load_task(config.task)  # bad input is refused before anything is started
    loop.refuse_missing(config)
    functions.refuse_here_only(config)
    config = anchored(config)
    with opened(config, resume=resume) as run, tracked(config, run.path, observer) as observer:
        observer = Observers([observer, Metrics(run.path)])
        run.foresee(config, task)
        observer.writing(run.path)
        with scoring(config, task, observer) as scorer:
            return loop.advance(scorer, run, observer)


@contextmanager
def scoring(config: ClusterSearch, task: Task, observer: Observer) -> Iterator[Scorer]:
    """Actors that have loaded the model, on the Ray that the config names; or the model behind
    `scorer.url`, which needs no Ray."""
    if config.scorer.url is not None:
        yield loop.own_scorer(config, task, observer)
        return
    observer.phase("Starting Ray")
    with connected(config.cluster.address) as own:
        config = fit(config, nodes.present(), nodes.growth(), alone=own)
        observer.phase(f"Loading {config.model.name} on {_counted(config.cluster)}")
        with ActorPool(config, task, observer) as pool:
            yield pool


def _counted(cluster: ClusterConfig) -> str:
    least, most = cluster.to_begin, cluster.most
    return f"{least} actors" if least == most else f"{least} to {most} actors"


@contextmanager
def connected(address: str | None, cpus: int | None = None) -> Iterator[bool]:
    """A connection to Ray: to `address`, to RAY_ADDRESS, or to a Ray of our own that ends with it;
    whether it is that.

    A Ray that happens to run on this machine is not joined unless it is asked for. One of our own
    may be told to have other `cpus` than there are, for actors that do not compute.
    """
    if ray.is_initialized():
        yield False
        return
    place = address or os.environ.get("RAY_ADDRESS") or "local"
    own = place == "local"
    if place.startswith("ray://"):
        raise ConfigError(
            f"cluster.address or RAY_ADDRESS: {place} is Ray's client, which does not show a "
            "search the machines. Give HEAD:6379 from one of the cluster's machines, or send the "
            "search there with cliptune submit."
        )
    _refuse_others(place)
    try:
        with _starting():
            ray.init(
                address=place,
                num_cpus=cpus if own else None,
                include_dashboard=False if own else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except RayError as error:  # of a token that is missing here
        raise ScorerError(_no_connection(place, f"{_first_sentence(error)}. {ENTRY}")) from error
    except ValueError as error:
        raise ScorerError(_no_connection(place, str(error).splitlines()[0])) from error
    except Exception as error:  # of any kind: a missing token, a local Ray that is too slow
        hint = "" if own or os.environ.get("RAY_AUTH_MODE") == "token" else f" {ENTRY}"
        raise ScorerError(_no_connection(place, f"{_first_sentence(error)}.{hint}")) from error
    _silence()
    try:
        if own:
            protect_token()
        yield own
    finally:
        ray.shutdown()


def is_starting() -> bool:
    """Whether Ray is being started or joined: an exception in between would break it."""
    return _start.is_set()


@contextmanager
def _starting() -> Iterator[None]:
    _start.set()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        # Ray puts the driver's folder first on its workers' import path: from a user's folder with
        # a cluster.py in it, they would import that instead of us.
        with chdir(Path(__file__).parents[1]):
            yield
    finally:
        _start.clear()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray may have put its own in its place


def _refuse_others(place: str) -> None:
    """Ray itself tries for a quarter of an hour where nobody listens, or somebody else."""
    host, _, port = place.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        if _speaks_grpc(host.strip("[]"), int(port)):
            return
        why = "what listens there is no Ray (the port of a head is 6379, unless it was given one)."
    except (OSError, OverflowError, UnicodeError) as error:  # the last: no machine's name
        why = f"{error}."
    raise ScorerError(_no_connection(place, why))


def _speaks_grpc(host: str, port: int) -> bool:
    """Whether the first frame from there is that of HTTP/2's settings (RFC 9113, 3.4)."""
    with socket.create_connection((host, port), CONNECT_SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return True  # as far as can be seen from outside
        connection.settimeout(CONNECT_SECONDS)
        connection.sendall(HTTP2_PREFACE + EMPTY_SETTINGS)
        return connection.recv(4, socket.MSG_WAITALL)[3:] == SETTINGS


def _first_sentence(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].partition(". ")[0].rstrip(".")


def _no_connection(place: str, why: str) -> str:
    if place == "local":
        return (
            f"Ray could not be started here: {why} Often the machine is too busy, or short of "
            "memory, disk (/tmp/ray) or processes; make room and try again."
        )
    return (
        f"No connection to Ray at {place}: {why} "
        "Check cluster.address and RAY_ADDRESS, or unset both to start a local Ray."
    )


def anchored(config: ClusterSearch) -> ClusterSearch:
    """The config with absolute paths: neither the actors nor a later resume stand where we do."""
    model, prompt, task = config.model, config.prompt, config.task
    if task.data is not None and Path(task.data).exists():
        task = task.model_copy(update={"data": str(Path(task.data).resolve())})
    if Path(model.name).is_dir():
        model = model.model_copy(update={"name": str(Path(model.name).resolve())})
    if prompt.file is not None:
        prompt = prompt.model_copy(update={"file": prompt.file.resolve()})
    sections = {"model": model, "prompt": prompt, "task": task}
    return functions.anchored(config.model_copy(update=sections))


def fit(
    config: ClusterSearch,
    machines: Sequence[Node],
    growth: Sequence[Growth] = (),
    *,
    alone: bool = False,
) -> ClusterSearch:
    """The config with no `auto` left, refused where the cluster cannot hold it.

    `growth` is what an autoscaler may come to run, the machines that are there included. The search
    is `alone` where nothing else will run on the machines: then it may take all of their CPUs.
    """
    cluster = config.cluster
    gpus = max(sum(node.gpus for node in machines), sum(g.node.gpus * g.count for g in growth))
    each = cluster.gpus_per_actor
    if each == "auto":
        each = 1.0 if gpus and config.model.device != "cpu" else 0.0
    if config.model.device == "cuda" and not each:
        raise ConfigError(
            f"model.device is cuda, but actors get no GPU: the cluster has {gpus:g} GPUs and "
            f"cluster.gpus_per_actor is {cluster.gpus_per_actor}."
        )
    need = Need(cluster.threads_per_actor, each)
    now = capacity(machines, need)
    room = max(now, sum(each_kind.node.holds(need) * each_kind.count for each_kind in growth))
    actors = cluster.actors
    if actors == "auto":
        wanted = room
        if not each:
            wanted = _on_cpus(config, machines, need) if alone else CPU_ACTORS
        most = min(MOST, max(1, min(wanted, room)))
        least = 1 if most > now else most if each else min(most, CPU_ACTORS)
        actors = most if most == least else ActorRange(min=least, max=most)
    chosen = {"actors": actors, "gpus_per_actor": each}
    config = config.model_copy(update={"cluster": cluster.model_copy(update=chosen)})
    if config.cluster.to_begin > room:
        raise ConfigError(_too_much(need, config.cluster.to_begin, room, machines))
    return resolve(config, cuda=each > 0)


def _on_cpus(config: ClusterSearch, machines: Sequence[Node], need: Need) -> int:
    """How many actors on CPUs machines have room and memory for that run nothing else."""
    parameters = count_parameters(config.model.name)
    if parameters is None:
        return CPU_ACTORS
    each = ACTOR_BYTES + PARAMETER_BYTES * parameters
    fitting = sum(min(machine.holds(need), int(machine.memory // each)) for machine in machines)
    return max(CPU_ACTORS, min(MOST_CPU_ACTORS, fitting))


def _too_much(need: Need, wanted: int, room: int, machines: Sequence[Node]) -> str:
    cpus = ", ".join(f"{node.cpus:g}" for node in machines)
    gpus = ", ".join(f"{node.gpus:g}" for node in machines)
    return (
        f"cluster.actors: {wanted} actors with {need.cpus:g} CPUs and {need.gpus:g} GPUs each do "
        f"not fit, the cluster holds {room} (CPUs by machine: {cpus}; GPUs by machine: {gpus}). "
        "Ask for fewer, or for less each with cluster.threads_per_actor and cluster.gpus_per_actor."
    )


def _silence() -> None:
    """Keep Ray from printing the logs of what died into our output; there is no public way."""
    if hasattr(worker, "_worker_logs_enabled"):
        worker._worker_logs_enabled = False
