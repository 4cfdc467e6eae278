"""The files that start clusters: Ray's own validation, and what the project promises of them.

KubeRay's CRD is not at hand offline, so the manifests are held against its fields by name.
"""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[1]
LAUNCHER = ROOT / "ray_config.yaml"
MANIFESTS = sorted((ROOT / "kubernetes").glob("*.yaml"))
SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}|-----BEGIN|[0-9a-f]{32}|(?:password|secret|auth_token|access_key)\s*[:=]\s*\w",
    re.IGNORECASE,
)

JOB_FIELDS = (
    "entrypoint runtimeEnvYAML submissionMode backoffLimit shutdownAfterJobFinishes "
    "ttlSecondsAfterFinished rayClusterSpec"
).split()
CLUSTER_FIELDS = (
    "rayVersion authOptions enableInTreeAutoscaling autoscalerOptions headGroupSpec "
    "workerGroupSpecs"
).split()
HEAD_FIELDS = "serviceType rayStartParams template".split()
WORKER_FIELDS = "groupName replicas minReplicas maxReplicas rayStartParams template".split()


def text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@pytest.fixture
def launcher() -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load(text(LAUNCHER))
    return tree


def manifest(kind: str) -> dict[str, Any]:
    (found,) = [
        document
        for file in MANIFESTS
        for document in yaml.safe_load_all(text(file))
        if document["kind"] == kind
    ]
    return dict(found)


# The launcher's file


def test_ray_takes_the_file(launcher: dict[str, Any]) -> None:
    prepared = prepare_config(copy.deepcopy(launcher))
    validate_config(prepared)
    assert set(prepared["available_node_types"]) == set(launcher["available_node_types"])


def test_ray_would_refuse_a_misspelt_key(launcher: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="idle_timeout_minute"):
        validate_config(prepare_config({**launcher, "idle_timeout_minute": 1}))


def test_nothing_is_placed_on_the_head(launcher: dict[str, Any]) -> None:
    head = launcher["available_node_types"][launcher["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert "--num-cpus=0" in launcher["head_start_ray_commands"][-1]


def test_workers_are_between_their_bounds_and_on_spot_unless_asked_otherwise(
    launcher: dict[str, Any],
) -> None:
    kinds = dict(launcher["available_node_types"])
    del kinds[launcher["head_node_type"]]
    for kind in kinds.values():
        assert 0 <= kind["min_workers"] <= kind["max_workers"] <= launcher["max_workers"]
    markets = {
        name: kind["node_config"].get("InstanceMarketOptions", {}).get("MarketType")
        for name, kind in kinds.items()
    }
    assert markets == {"gpu-on-demand": None, "gpu-spot": "spot"}
    assert kinds["gpu-on-demand"]["max_workers"] == 0
    machines = {kind["node_config"]["InstanceType"] for kind in kinds.values()}
    assert len(machines) == 1, "rewards are rounded alike on machines of one kind only"


def test_every_ray_is_started_with_the_token(launcher: dict[str, Any]) -> None:
    place = "~/.ray/auth_token"
    assert launcher["file_mounts"][place] == place
    starts = [
        command
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in launcher[key]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert any("RAY_AUTH_MODE=token" in command for command in launcher["setup_commands"])


def test_the_dashboard_is_on_the_heads_loopback(launcher: dict[str, Any]) -> None:
    assert "--dashboard-host=127.0.0.1" in launcher["head_start_ray_commands"][-1]
    assert "0.0.0.0" not in text(LAUNCHER)  # noqa: S104 - that nothing is bound to it


def test_what_is_installed_on_the_machines_is_sent_to_them(launcher: dict[str, Any]) -> None:
    mounts = launcher["file_mounts"]
    here = [Path(path) for path in mounts.values() if not path.startswith("~")]
    assert all((ROOT / path).exists() for path in here)
    (install,) = [command for command in launcher["setup_commands"] if "pip install" in command]
    assert "-c constraints.txt" in install
    project = yaml.safe_load(text(ROOT / "pyproject.toml").split("packages = ")[1].splitlines()[0])
    assert {name.partition(".")[0] for name in project} <= {path.name for path in here}


def test_every_choice_has_a_comment() -> None:
    lines = text(LAUNCHER).splitlines()
    for number, line in enumerate(lines):
        if re.match(r"\w", line):
            assert lines[number - 1].startswith("# "), f"nothing says why: {line}"


# Kubernetes


@pytest.mark.parametrize("file", [LAUNCHER, *MANIFESTS], ids=lambda file: file.name)
def test_no_secret_stands_in_it(file: Path) -> None:
    assert not SECRET.search(text(file))


def test_a_secret_would_be_found() -> None:
    for line in ("password: hunter2", "auth_token: abc", "k: " + "0123abcd" * 4):
        assert SECRET.search(line)


def test_a_job_ends_its_cluster_and_is_tried_again_from_where_it_stood() -> None:
    job = manifest("RayJob")
    assert job["apiVersion"] == "ray.io/v1"
    spec = job["spec"]
    assert set(spec) == set(JOB_FIELDS)
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["backoffLimit"] >= 1
    assert "--continue" in spec["entrypoint"], "a retry is the same command on a new cluster"
    assert "run_dir=/runs/" in spec["entrypoint"]
    assert yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]


def test_the_entry_point_is_a_search_that_cliptune_takes(tmp_path: Path) -> None:
    from jobs.config import read_or_continue

    _, verb, *words = manifest("RayJob")["spec"]["entrypoint"].split()
    assert verb == "search"
    config, begun = read_or_continue([word for word in words if not word.startswith("--")])
    assert (config.run_dir, begun) == ("/runs/first", False)


def test_the_cluster_of_a_job_is_the_one_that_stays() -> None:
    cluster = manifest("RayCluster")
    assert cluster["apiVersion"] == "ray.io/v1"
    assert cluster["spec"] == manifest("RayJob")["spec"]["rayClusterSpec"]


def test_a_cluster_asks_for_its_token_and_is_reached_from_within_only() -> None:
    spec = manifest("RayCluster")["spec"]
    assert set(spec) == set(CLUSTER_FIELDS)
    assert set(spec["headGroupSpec"]) == set(HEAD_FIELDS)
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    for file in MANIFESTS:
        for word in ("LoadBalancer", "NodePort", "Ingress", "hostPort", "hostNetwork"):
            assert word not in text(file)


def test_pods_of_a_cluster_are_what_its_searches_need() -> None:
    spec = manifest("RayCluster")["spec"]
    head, (workers,) = spec["headGroupSpec"], spec["workerGroupSpecs"]
    assert set(workers) == set(WORKER_FIELDS)
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    (container,) = workers["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert spec["enableInTreeAutoscaling"]
    assert spec["autoscalerOptions"]["version"] == "v2"
    for group in (head, workers):
        assert group["template"]["spec"]["restartPolicy"] == "Never"


def test_runs_are_on_a_volume_that_no_manifest_of_a_cluster_deletes() -> None:
    claim = manifest("PersistentVolumeClaim")["metadata"]["name"]
    pod = manifest("RayCluster")["spec"]["headGroupSpec"]["template"]["spec"]
    (volume,) = pod["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim
    (mount,) = pod["containers"][0]["volumeMounts"]
    assert (mount["name"], mount["mountPath"]) == (volume["name"], "/runs")
    (file,) = [file for file in MANIFESTS if "PersistentVolumeClaim" in text(file)]
    assert len(list(yaml.safe_load_all(text(file)))) == 1


def test_ray_is_of_one_version_everywhere() -> None:
    (pinned,) = re.findall(r"^ray==(.+)$", text(ROOT / "constraints.txt"), re.MULTILINE)
    assert manifest("RayCluster")["spec"]["rayVersion"] == pinned
    assert f"rayproject/ray:{pinned}-" in text(ROOT / "kubernetes" / "Dockerfile")
