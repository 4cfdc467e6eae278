"""Ray's memory monitor, which ends actors where a machine runs short: on a real Ray."""

from pathlib import Path

import pytest
import tiny
from clusters import make_pool, one_machine
from failing_actors import NeverLoads

from cliptune.errors import ScorerError


@pytest.mark.slow
@pytest.mark.timeout(200, method="thread")
def test_actors_that_are_ended_for_want_of_memory_end_the_search_in_one_sentence(
    home: Path, task_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")  # more than that is always in use
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    config = tiny.config(tmp_path / "model", task_dir, tmp_path / "run")
    with one_machine(cpus=1), pytest.raises(ScorerError) as caught:
        make_pool(config, 1, NeverLoads, failures=2)
    message = str(caught.value)
    assert message.startswith("2 starts of actors failed in a row (cluster.failures). ")
    assert "was ended by Ray, as its machine ran short of memory (fewer actors" in message
    assert len(message.splitlines()) == 1
