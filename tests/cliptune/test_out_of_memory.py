"""Where memory runs out, a search goes on with smaller micro-batches, and writes that down."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tiny
import torch
from runs import Listener, journal_bytes, run
from transformers import AttentionInterface, AutoModelForMaskedLM

from cliptune.config import Config
from cliptune.errors import OutOfMemoryError
from cliptune.journal import MICRO_BATCH
from cliptune.local import LocalScorer
from cliptune.models import attention
from cliptune.task import load_task
from cliptune.thinning import Thinner

GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")


class Small(LocalScorer):
    """Of a device that holds some rows only, once some passes were made."""

    def __init__(self, config: Config, room: int, after: int = 0, error: Exception = GPU) -> None:
        super().__init__(config, load_task(config.task))
        compute = self.model.class_scores
        self.rows: list[int] = []

        def limited(prompts: Any, batch: Any) -> Any:
            rows = len(batch.ids) * (1 if prompts is None else len(prompts))
            self.rows.append(rows)
            if rows > room and len(self.rows) > after:
                raise error
            return compute(prompts, batch)

        vars(self.model)["class_scores"] = limited


@pytest.fixture
def config(model_dir: Path, task_dir: Path, tmp_path: Path) -> Config:
    search = {"population": 6, "budget": 24}
    return tiny.config(
        model_dir, task_dir, model={"micro_batch": 8}, search=search, run_dir=str(tmp_path / "run")
    )


def latents(config: Config) -> Any:
    return np.random.default_rng(0).standard_normal((6, config.prompt.dimension))


@pytest.mark.parametrize("error", [GPU, CPU])
def test_all_rewards_are_of_the_micro_batch_that_fits(config: Config, error: Exception) -> None:
    scorer = Small(config, room=2, after=3, error=error)
    found = scorer.score(latents(config))
    assert scorer.micro_batch == 2
    fits = config.model_copy(update={"model": config.model.model_copy(update={"micro_batch": 2})})
    assert np.array_equal(found, LocalScorer(fits, scorer.task).score(latents(config)))


def test_a_single_row_that_does_not_fit_is_one_sentence(config: Config) -> None:
    scorer = Small(config, room=0)
    with pytest.raises(OutOfMemoryError, match="of 1 rows does not fit into the memory of cpu"):
        scorer.score(latents(config))


def test_other_errors_are_not_taken_for_it(config: Config) -> None:
    scorer = Small(config, room=2, error=RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        scorer.score(latents(config))
    assert scorer.micro_batch == 8


def test_memory_that_runs_out_while_a_subnetwork_is_made_leaves_the_model_whole(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = LocalScorer(config, load_task(config.task)).score(latents(config))
    scorer = LocalScorer(config, load_task(config.task))
    put, calls = Thinner._put, itertools.count()

    def failing(self: Thinner, *arguments: Any) -> None:
        if next(calls) == 6:
            raise GPU
        put(self, *arguments)

    monkeypatch.setattr(Thinner, "_put", failing)
    np.testing.assert_allclose(scorer.score(latents(config)), calm, rtol=1e-6)
    assert next(calls) > 6
    assert scorer.micro_batch == 4


@pytest.mark.parametrize("error", [GPU, CPU, RuntimeError("std::bad_alloc")])
def test_a_model_that_does_not_fit_is_one_sentence(
    config: Config, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is not taken for one that cannot be made faster."""

    def full(*arguments: Any, **named: Any) -> None:
        raise error

    monkeypatch.setattr(attention, "attend", full)
    monkeypatch.setitem(AttentionInterface._global_mapping, attention.ATTENTION, full)
    with pytest.raises(OutOfMemoryError, match="does not fit into the memory of cpu"):
        LocalScorer(config, load_task(config.task))


@pytest.mark.parametrize("error", [GPU, CPU, MemoryError()])
def test_memory_that_runs_out_while_weights_are_read_is_no_fault_of_their_files(
    config: Config, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **named: Any) -> None:
        raise error

    monkeypatch.setattr(AutoModelForMaskedLM, "from_pretrained", full)
    with pytest.raises(OutOfMemoryError, match="does not fit into the memory of cpu"):
        LocalScorer(config, load_task(config.task))


def micro_batches(config: Config) -> list[int | None]:
    """Of each generation, as journalled."""
    found = []
    for content in journal_bytes(str(config.run_dir)).values():
        metadata = pa.ipc.open_file(content).schema.metadata
        found.append(int(metadata[MICRO_BATCH]) if MICRO_BATCH in metadata else None)
    return found


def test_the_smaller_micro_batch_is_journalled_and_used_from_there_on(config: Config) -> None:
    listener = Listener()
    run(Small(config, room=4, after=40), listener)
    found = micro_batches(config)
    changed = found.index(4)
    assert 0 < changed < 3
    assert found == [None] * changed + [4] * (4 - changed)
    assert listener.warnings == [
        f"Memory ran out: micro-batches have 4 rows from generation {changed + 1} on."
    ]


def test_a_resumed_search_begins_with_the_micro_batch_of_its_journal(config: Config) -> None:
    folder = Path(str(config.run_dir))
    run(Small(config, room=4))
    whole = journal_bytes(folder)
    for name in list(whole)[2:]:
        (folder / "journal" / name).unlink()
    scorer = Small(config, room=4)
    run(scorer, resume=True)
    assert journal_bytes(folder) == whole
    assert micro_batches(config) == [4] * 4
    assert [rows for rows in scorer.rows if rows > 4] == [6]  # the canary's, as where it began


def test_memory_that_runs_out_in_a_validation_has_the_generation_scored_again(
    config: Config,
) -> None:
    """Though the candidates' own micro-batches fitted: a generation has those of one size."""
    scorer, narrow = Small(config, room=8), Small(config, room=4)
    compute = scorer.model.class_scores

    def limited(prompts: Any, batch: Any) -> Any:
        if prompts is not None and len(prompts) == 1 and scorer.micro_batch == 8:
            raise GPU
        return compute(prompts, batch)

    vars(scorer.model)["class_scores"] = limited
    run(scorer)
    found = journal_bytes(str(config.run_dir))
    other = config.model_copy(update={"run_dir": f"{config.run_dir}-narrow"})
    narrow.config = other
    run(narrow)
    assert found == journal_bytes(str(other.run_dir))
