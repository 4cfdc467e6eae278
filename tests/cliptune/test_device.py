"""Resolving `auto`: from the hardware once, and never over the user's word."""

from pathlib import Path
from typing import Any

import pytest

from cliptune import device
from cliptune.config import Config, ModelConfig, validate


def resolved(cuda: bool, **model: Any) -> ModelConfig:
    config = validate(Config, {"model": model, "prompt": {"length": 50}})
    return device.resolve(config, cuda=cuda).model


@pytest.mark.parametrize("cuda", [False, True])
def test_nothing_stays_on_auto(cuda: bool) -> None:
    settings = resolved(cuda).model_dump(include={"device", "dtype", "micro_batch"})
    assert "auto" not in settings.values()


def test_a_gpu_means_cuda_bfloat16_and_a_larger_micro_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device, "bfloat16_unit", lambda: None)
    model = resolved(cuda=True)
    assert (model.device, model.dtype, model.micro_batch) == ("cuda", "bfloat16", 51)


@pytest.mark.parametrize(("unit", "dtype"), [("AMX", "bfloat16"), (None, "float32")])
def test_a_cpu_computes_in_bfloat16_only_where_it_is_fast(
    unit: str | None, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "bfloat16_unit", lambda: unit)
    model = resolved(cuda=False)
    assert (model.device, model.dtype, model.micro_batch) == ("cpu", dtype, 25)


@pytest.mark.parametrize(
    ("flags", "unit"),
    [
        ("avx2 avx512f", None),
        ("avx512_bf16 amx_bf16 amx_tile", "AMX"),
        ("avx512f avx512_bf16 avx512_vnni", "AVX-512 BF16"),
        ("avx512_bf16_of_tomorrow", None),
    ],
)
def test_a_processor_says_what_multiplies_bfloat16(
    flags: str, unit: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n\n", "ascii")
    monkeypatch.setattr(device, "CPU_INFO", info)
    assert device.bfloat16_unit() == unit


def test_a_processor_that_says_nothing_computes_in_float32(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(device, "CPU_INFO", tmp_path / "none")
    assert device.bfloat16_unit() is None


@pytest.mark.parametrize(("length", "rows"), [(1, 66), (10, 51), (50, 25), (100, 15), (9000, 1)])
def test_the_longer_the_prompt_the_fewer_rows_a_micro_batch(length: int, rows: int) -> None:
    config = validate(Config, {"prompt": {"length": length}})
    assert device.resolve(config, cuda=False).model.micro_batch == rows


def test_what_the_user_chose_stays() -> None:
    chosen = {"device": "cpu", "dtype": "float16", "micro_batch": 7}
    assert resolved(cuda=True, **chosen).model_dump(include=set(chosen)) == chosen


def test_a_cpu_chosen_beside_a_gpu_has_the_cpus_micro_batch() -> None:
    assert resolved(cuda=True, device="cpu").micro_batch == 25


def test_a_resolved_config_stays_as_it_is_on_other_hardware() -> None:
    config = device.resolve(validate(Config, {}), cuda=False)
    assert device.resolve(config, cuda=True) == config


def test_nothing_but_the_model_changes_and_the_kind_of_config_stays() -> None:
    class Wider(Config):
        extra: int = 1

    config = validate(Wider, {"extra": 2, "search": {"seed": 3}})
    after = device.resolve(config, cuda=False)
    assert isinstance(after, Wider)
    assert after.model_dump(exclude={"model"}) == config.model_dump(exclude={"model"})
    assert config.model.device == "auto"  # the given one is left alone
