"""The settings of the machines: defaults, what is refused, and how it is said."""

from typing import Any

import pytest
from pydantic import ValidationError

from cliptune.config import Config, validate
from cliptune.errors import ConfigError
from cluster.config import ClusterConfig, ClusterSearch


def refusal(**cluster: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(ClusterSearch, {"cluster": cluster})
    return str(caught.value)


def test_defaults_start_a_local_ray_and_leave_the_rest_to_the_machine() -> None:
    config = ClusterConfig()
    assert config.address is None
    assert config.actors == config.gpus_per_actor == "auto"
    assert (config.threads_per_actor, config.start_timeout, config.failures) == (1, 600, 3)


def test_a_search_needs_no_cluster_section() -> None:
    assert validate(ClusterSearch, {}).cluster == ClusterConfig()


def test_a_search_with_machines_is_a_search_with_its_preset() -> None:
    search = validate(ClusterSearch, {"task": {"name": "sst2"}, "cluster": {"actors": 3}})
    assert search.cluster.actors == 3
    assert search.task.label_words == validate(Config, {"task": {"name": "sst2"}}).task.label_words


def test_the_machines_do_not_decide_results() -> None:
    one, other = (validate(ClusterSearch, {"cluster": {"actors": n}}) for n in (1, 64))
    assert one.identity() == other.identity() == validate(Config, {}).identity()


@pytest.mark.parametrize("setting", ["actors", "gpus_per_actor"])
def test_auto_can_be_written_out(setting: str) -> None:
    search = validate(ClusterSearch, {"cluster": {setting: "auto"}})
    assert getattr(search.cluster, setting) == "auto"


def test_what_is_written_down_can_be_read_again() -> None:
    search = validate(ClusterSearch, {"cluster": {"actors": 2}})
    assert validate(ClusterSearch, search.model_dump(mode="json")) == search


@pytest.mark.parametrize("gpus", [0, 0.25, 1, 2])
def test_gpus_are_none_a_fraction_or_several(gpus: float) -> None:
    assert (
        validate(ClusterSearch, {"cluster": {"gpus_per_actor": gpus}}).cluster.gpus_per_actor
        == gpus
    )


def test_more_than_one_gpu_must_be_a_whole_number() -> None:
    """Ray refuses 1.5 GPUs, in words of its own and only when the actor is made."""
    assert "cluster.gpus_per_actor" in refusal(gpus_per_actor=1.5)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("actors", 0),
        ("actors", -1),
        ("actors", 1.5),
        ("actors", "all"),
        ("threads_per_actor", 0),
        ("threads_per_actor", "auto"),
        ("threads_per_actor", None),
        ("gpus_per_actor", -0.5),
        ("gpus_per_actor", float("nan")),
        ("gpus_per_actor", "all"),
        ("start_timeout", 0),
        ("unit_timeout", 0),
        ("wait_timeout", 0),
        ("mixed_hardware", "perhaps"),
        ("failures", 0),
        ("address", ["127.0.0.1", 6379]),
    ],
)
def test_a_bad_value_is_refused_by_name_with_what_was_found(setting: str, value: Any) -> None:
    message = refusal(**{setting: value})
    assert f"cluster.{setting}" in message
    assert f"found {value!r}" in message


@pytest.mark.parametrize("value", [0, "all"])
def test_a_refusal_names_the_setting_as_the_user_wrote_it(value: Any) -> None:
    for line in refusal(actors=value).splitlines():
        assert line.startswith("cluster.actors: ")


def bounds(actors: Any) -> tuple[int, int, int]:
    cluster = ClusterConfig(actors=actors)
    return cluster.to_begin, cluster.least, cluster.most


def test_a_number_of_actors_is_needed_to_begin_and_goes_on_with_any_that_live() -> None:
    assert bounds(4) == (4, 1, 4)


def test_a_range_of_actors_is_two_bounds() -> None:
    assert bounds({"min": 2, "max": 8}) == (2, 2, 8)
    assert bounds({"max": 8}) == (1, 1, 8)


@pytest.mark.parametrize(
    ("actors", "message"),
    [
        ({"min": 3, "max": 2}, "min must not be above max; found 3 and 2"),
        ({"min": 0, "max": 2}, "cluster.actors.min: Input should be greater than or equal to 1"),
        ({"min": 2}, "cluster.actors.max: Field required."),
        ({"max": 2, "mim": 1}, "cluster.actors.mim (did you mean cluster.actors.min?)"),
    ],
)
def test_a_range_that_is_none_is_refused_by_name(actors: Any, message: str) -> None:
    assert message in refusal(actors=actors)


def test_an_unknown_setting_is_refused_with_the_nearest() -> None:
    message = refusal(threds_per_actor=2)
    assert message == (
        "Unknown setting cluster.threds_per_actor (did you mean cluster.threads_per_actor?)."
    )


def test_settings_never_change() -> None:
    config = ClusterConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.actors = 2  # type: ignore[misc]
