"""Connecting to Ray or starting it, what fits on it, and whole searches."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import tiny
import yaml
from ray.cluster_utils import Cluster
from ray.exceptions import AuthenticationError
from scorer_contract import journal_bytes

import cliptune
from cliptune.config import validate
from cliptune.errors import CliptuneError, ConfigError, RunError, ScorerError, TaskError
from cliptune.evaluation import CALIBRATED, ENSEMBLE, MANUAL, TUNED
from cliptune.observer import Observer, Progress
from cluster import nodes, session
from cluster.config import ActorRange, ClusterSearch
from cluster.placement import Growth, Node
from cluster.session import anchored, connected, fit, search


def fit_on(machines: list[Node], model: dict[str, Any], **cluster: Any) -> ClusterSearch:
    return fit(validate(ClusterSearch, {"model": model, "cluster": cluster}), machines)


def chosen(machines: list[Node], device: str = "auto", **cluster: Any) -> tuple[Any, ...]:
    """Actors, GPUs for each, and the device that they compute on."""
    config = fit_on(machines, {"device": device}, **cluster)
    return config.cluster.actors, config.cluster.gpus_per_actor, config.model.device


def refusal(machines: list[Node], device: str = "auto", **cluster: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        fit_on(machines, {"device": device}, **cluster)
    return str(caught.value)


TWO_CPUS, EIGHT_CPUS = Node(2, 0), Node(8, 0)
GIB = 2**30
TWO_GPUS = Node(8, 2)


@pytest.mark.parametrize("machines", [[EIGHT_CPUS], [TWO_GPUS]])
def test_nothing_that_decides_bits_is_left_on_auto(machines: list[Node]) -> None:
    config = fit_on(machines, {})
    cluster, model = config.cluster, config.model
    machine = (cluster.actors, cluster.gpus_per_actor, cluster.threads_per_actor)
    arithmetic = (model.device, model.dtype, model.micro_batch)
    assert not {"auto", None} & {*machine, *arithmetic}


def test_cpus_of_a_shared_ray_get_two_actors_and_small_batches() -> None:
    assert chosen([Node(8, 0, 64 * GIB)]) == (2, 0, "cpu")
    assert fit_on([EIGHT_CPUS], {}).model.micro_batch == 60


@pytest.mark.parametrize(
    ("machines", "parameters", "actors"),
    [
        ([Node(8, 0, 16 * GIB)], 22, 8),
        ([Node(6, 0, 16 * GIB)], 22, 6),  # one a CPU
        ([Node(64, 0, 256 * GIB)], 22, 8),
        ([Node(8, 0, 5 * GIB)], 22, 5),
        ([Node(8, 0, 16 * GIB)], 355, 3),  # a large model
        ([Node(8, 0, 2 * GIB)], 355, 2),
        ([Node(1, 0, 16 * GIB)], 22, 1),
        ([Node(0, 0, 64 * GIB), Node(8, 0, 4 * GIB)], 22, 4),  # a head that computes nothing
        ([EIGHT_CPUS], 22, 2),  # nobody says how much memory there is
        ([Node(8, 0, 16 * GIB)], None, 2),  # nor how large the model is
    ],
)
def test_all_cpus_are_used_where_the_search_is_alone_as_memory_allows(
    machines: list[Node], parameters: int | None, actors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = None if parameters is None else parameters * 10**6
    monkeypatch.setattr(session, "count_parameters", lambda name: count)
    cluster = fit(validate(ClusterSearch, {}), machines, alone=True).cluster
    assert cluster.most == actors
    assert cluster.to_begin == min(actors, 2)  # so that it is resumed on a smaller machine


def test_a_single_cpu_gets_one_actor() -> None:
    assert chosen([Node(1, 0)]) == (1, 0, "cpu")


def test_every_gpu_gets_an_actor_and_large_batches() -> None:
    assert chosen([TWO_GPUS, EIGHT_CPUS, TWO_GPUS]) == (4, 1, "cuda")
    model = fit_on([TWO_GPUS], {}).model
    assert (model.micro_batch, model.dtype) == (120, "bfloat16")


def test_a_gpu_can_be_shared() -> None:
    assert chosen([Node(8, 1)], gpus_per_actor=0.5) == (2, 0.5, "cuda")


def test_gpus_are_no_more_than_the_cpus_beside_them_can_serve() -> None:
    assert chosen([Node(3, 4)]) == (3, 1, "cuda")
    assert chosen([Node(3, 4)], threads_per_actor=2) == (1, 1, "cuda")


def test_gpus_are_left_alone_where_the_device_is_the_cpu() -> None:
    assert chosen([TWO_GPUS], device="cpu") == (2, 0, "cpu")


def test_gpus_are_left_alone_where_actors_are_to_have_none() -> None:
    assert chosen([TWO_GPUS], gpus_per_actor=0) == (2, 0, "cpu")


def test_gpus_can_be_reserved_for_actors_that_compute_on_the_cpu() -> None:
    assert chosen([TWO_GPUS], device="cpu", gpus_per_actor=1) == (2, 1, "cpu")


def test_what_was_asked_for_is_kept() -> None:
    model = {"device": "cpu", "dtype": "float32", "micro_batch": 7}
    config = fit_on([EIGHT_CPUS], model, actors=3, threads_per_actor=2, gpus_per_actor=0)
    assert config.model.model_dump(include=set(model)) == model
    assert (config.cluster.actors, config.cluster.threads_per_actor) == (3, 2)


def test_more_actors_than_fit_are_refused_with_the_figures() -> None:
    message = refusal([TWO_CPUS, Node(3, 0)], actors=6)
    assert "6 actors with 1 CPUs and 0 GPUs each" in message
    assert "holds 5" in message
    assert "CPUs by machine: 2, 3" in message
    assert "cluster.threads_per_actor" in message


@pytest.mark.parametrize(
    ("machines", "growth", "expected"),
    [
        ([], Growth(Node(8, 8), 4), ActorRange(min=1, max=32)),
        ([Node(8, 8)], Growth(Node(8, 8), 4), ActorRange(min=1, max=32)),
        ([Node(8, 8)] * 4, Growth(Node(8, 8), 4), 32),
        ([], Growth(Node(8, 8), 10_000), ActorRange(min=1, max=10_000)),  # has no bound of its own
    ],
)
def test_what_an_autoscaler_may_add_counts_as_room(
    machines: list[Node], growth: Growth, expected: Any
) -> None:
    config = validate(ClusterSearch, {"model": {"device": "cuda"}})
    assert fit(config, machines, [growth]).cluster.actors == expected


def test_as_many_actors_as_fit_are_taken() -> None:
    assert chosen([TWO_CPUS, Node(3, 0)], actors=5) == (5, 0, "cpu")


@pytest.mark.parametrize("actors", [1, 64])
def test_more_threads_than_any_machine_has_are_refused_with_the_figures(actors: int) -> None:
    message = refusal([TWO_CPUS, TWO_CPUS], actors=actors, threads_per_actor=3)
    assert f"{actors} actors with 3 CPUs" in message
    assert "holds 0" in message
    assert "CPUs by machine: 2, 2" in message


def test_more_threads_than_any_machine_has_are_refused_for_automatic_actors_too() -> None:
    assert "holds 0" in refusal([TWO_CPUS, TWO_CPUS], threads_per_actor=3)


def test_more_gpus_than_any_machine_has_are_refused_with_the_figures() -> None:
    message = refusal([TWO_GPUS, EIGHT_CPUS], gpus_per_actor=4)
    assert "4 GPUs each" in message
    assert "GPUs by machine: 2, 0" in message


def test_cuda_without_gpus_is_refused() -> None:
    message = refusal([EIGHT_CPUS], device="cuda")
    assert "model.device is cuda" in message
    assert "the cluster has 0 GPUs" in message


def test_cuda_without_gpus_for_the_actors_is_refused() -> None:
    message = refusal([TWO_GPUS], device="cuda", gpus_per_actor=0)
    assert "the cluster has 2 GPUs and cluster.gpus_per_actor is 0" in message


def test_cuda_with_gpus_for_actors_that_the_cluster_lacks_is_refused() -> None:
    assert "holds 0" in refusal([EIGHT_CPUS], device="cuda", gpus_per_actor=1)


def grown(machines: list[Node], growth: list[Growth], **cluster: Any) -> Any:
    return fit(validate(ClusterSearch, {"cluster": cluster}), machines, growth).cluster.actors


def test_machines_that_an_autoscaler_may_add_count_as_room() -> None:
    workers = [Growth(Node(0, 0), 1), Growth(Node(8, 4), 3)]
    assert grown([Node(0, 0)], workers, actors=12) == 12
    with pytest.raises(ConfigError, match="holds 12"):
        grown([Node(0, 0)], workers, actors=13)


def test_automatic_actors_come_as_the_machines_do_where_there_is_an_autoscaler() -> None:
    workers = [Growth(Node(8, 4), 3)]
    assert grown([Node(0, 0)], workers) == ActorRange(min=1, max=12)
    assert grown([Node(8, 4)] * 3, workers) == 12
    assert grown([EIGHT_CPUS], [Growth(EIGHT_CPUS, 3)]) == 2


def test_of_a_range_only_the_minimum_has_to_fit() -> None:
    assert grown([TWO_CPUS], [], actors={"min": 2, "max": 64}) == ActorRange(min=2, max=64)
    with pytest.raises(ConfigError, match=r"^cluster\.actors: 3 actors .* holds 2 "):
        grown([TWO_CPUS], [], actors={"min": 3, "max": 64})


def test_files_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Actors do not work where the user stands."""
    monkeypatch.chdir(tmp_path.parent)
    folder, prompt = tmp_path.name, {"init": "file", "file": "p.safetensors"}
    tree = {"model": {"name": folder}, "task": {"data": folder}, "prompt": prompt}
    config = anchored(validate(ClusterSearch, tree))
    assert config.model.name == config.task.data == str(tmp_path)
    assert config.prompt.file == tmp_path.parent / "p.safetensors"


@pytest.mark.parametrize("name", ["minilm", "organisation/model", "/nowhere/at/all"])
def test_what_is_no_folder_here_keeps_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = validate(ClusterSearch, {"model": {"name": name}})
    assert anchored(config) == config


def cluster_search(model_dir: Path, task_dir: Path, run_dir: Path, **cluster: Any) -> ClusterSearch:
    return validate(ClusterSearch, tiny.tree(model_dir, task_dir, run_dir, cluster=cluster))


class Phases(Observer):
    """What a search said that it was about to do."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def phase(self, message: str) -> None:
        self.messages.append(message)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("nonsense", "No connection to Ray at nonsense: Invalid address format"),
        ("http://localhost", "No connection to Ray at http://localhost: Invalid Ray address"),
        ("ray://h:1", "cluster.address or RAY_ADDRESS: ray://h:1 is Ray's client, which does not"),
    ],
)
def test_an_address_that_is_none_is_one_sentence(address: str, reason: str) -> None:
    with pytest.raises(CliptuneError) as caught, connected(address):
        pass
    assert str(caught.value).startswith(reason)
    assert len(str(caught.value).splitlines()) == 1
    assert "cluster.address" in str(caught.value)
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    ("mode", "error"),
    [
        ("token", AuthenticationError("Token authentication is enabled but no token was found")),
        ("", ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379\nFurther lines")),
    ],
)
def test_a_ray_that_asks_for_a_token_says_what_is_missing(
    mode: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**settings: Any) -> None:
        raise error

    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ScorerError) as caught, connected("auto"):
        pass
    message = str(caught.value)
    assert message.startswith(f"No connection to Ray at auto: {str(error).splitlines()[0][:40]}")
    assert "RAY_AUTH_MODE=token" in message
    assert "~/.ray/auth_token" in message
    assert len(message.splitlines()) == 1


def test_the_address_in_the_environment_counts_where_the_config_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    with pytest.raises(ScorerError, match="No connection to Ray at nonsense"), connected(None):
        pass


@pytest.mark.parametrize("error", [Exception("The current node timed out.\n\nMore."), OSError()])
def test_a_ray_that_does_not_start_is_one_sentence(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**settings: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "init", init)
    message = r"^Ray could not be started here: .*again\.$"
    with pytest.raises(ScorerError, match=message) as caught, connected(None):
        pass
    assert len(str(caught.value).splitlines()) == 1


def test_bad_data_and_a_used_run_directory_are_refused_before_ray_is_started(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    phases = Phases()
    with pytest.raises(TaskError):
        search(cluster_search(model_dir, tmp_path / "nothing", tmp_path / "run"), phases)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "config.yaml").touch()
    with pytest.raises(RunError, match="not empty"):
        search(cluster_search(model_dir, task_dir, tmp_path / "used"), phases)
    assert phases.messages == []


def test_a_ray_of_our_own_has_a_private_token_and_ends_with_its_use(home: Path) -> None:
    here = Path.cwd()
    token = home / ".ray" / "auth_token"
    if token.exists():
        token.chmod(0o644)  # as Ray leaves it
    foreseen = nodes.free_memory()
    with pytest.raises(ZeroDivisionError), connected(None) as own:
        assert own
        assert ray.is_initialized()
        assert token.stat().st_mode & 0o777 == 0o600
        assert len(nodes.present()) == 1
        assert nodes.present()[0].cpus >= 1
        assert 0.5 < nodes.present()[0].memory / foreseen < 2
        _ = 1 // 0
    assert not ray.is_initialized()
    assert Path.cwd() == here


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A running cluster of two machines, the second with a GPU that is none."""
    small: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    head = {**small, "include_dashboard": False}
    cluster: Any = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_gpus=1, **small)
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


def test_a_search_runs_on_two_actors_of_a_running_cluster_and_leaves_it_running(
    model_dir: Path, task_dir: Path, tmp_path: Path, address: str
) -> None:
    phases = Phases()
    tree = tiny.tree(
        model_dir,
        task_dir,
        tmp_path / "run",
        search={"calibrate": True},
        cluster={"address": address, "actors": 2},
    )
    result = search(validate(ClusterSearch, tree), phases)
    assert [row.name for row in result.table] == [MANUAL, CALIBRATED, TUNED, ENSEMBLE]
    del tree["cluster"]
    cliptune.search({**tree, "run_dir": str(tmp_path / "here")})
    assert journal_bytes(tmp_path / "run") == journal_bytes(tmp_path / "here")
    assert (tmp_path / "run" / "result.json").is_file()
    assert phases.messages[:2] == ["Starting Ray", f"Loading {model_dir} on 2 actors"]
    assert not ray.is_initialized()
    with connected(address) as own:
        assert not own
        assert sorted((node.cpus, node.gpus) for node in nodes.present()) == [(1, 0), (1, 1)]


def test_a_search_runs_on_the_machine_with_the_gpu_that_it_asks_for(
    model_dir: Path,
    task_dir: Path,
    tmp_path: Path,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class FreeGpus(Observer):
        def generation(self, progress: Progress) -> None:
            free.append(resources().get("GPU", 0.0))

    free: list[float] = []
    resources: Any = ray.available_resources
    monkeypatch.setenv("RAY_ADDRESS", address)
    search(cluster_search(model_dir, task_dir, tmp_path / "run", gpus_per_actor=1), FreeGpus())
    assert free == [0.0] * 3
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))
    assert written["cluster"]["actors"] == written["cluster"]["gpus_per_actor"] == 1
    assert written["model"]["device"] == "cpu"
    assert validate(ClusterSearch, written).cluster.actors == 1


def test_a_connection_that_is_there_is_used_and_kept(address: str) -> None:
    with connected(address):
        job = ray.get_runtime_context().get_job_id()
        with connected("nonsense"):
            assert ray.get_runtime_context().get_job_id() == job
        assert ray.is_initialized()
    assert not ray.is_initialized()
