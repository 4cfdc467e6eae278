"""Spreading and quantising a model: what from_pretrained is given, and what it comes to here."""

import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import families
import numpy as np
import pytest
import tiny
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from cliptune.config import ModelConfig
from cliptune.errors import ConfigError, OutOfMemoryError
from cliptune.local import LocalScorer
from cliptune.models import large, load
from cliptune.models.causal_lm import CausalLM
from cliptune.probe import thinned_bytes, weight_bytes
from cliptune.task import load_task

TASK = {"template": "{text} . it was {mask}"}


def model(**settings: Any) -> ModelConfig:
    return ModelConfig(**{"dtype": "bfloat16", "device": "cuda", **settings})


def have(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Only these of the packages that it takes."""
    monkeypatch.setattr(large, "find_spec", lambda name: name if name in packages else None)


@pytest.mark.parametrize(("device", "gpus"), [("cuda", 0), ("cuda", 1), ("cpu", 1), ("cpu", 4)])
def test_a_model_on_one_device_needs_nothing(
    device: str, gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(monkeypatch)
    assert large.placement(model(device=device), gpus) == {}


def test_several_gpus_share_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, "accelerate")
    assert large.placement(model(), 2) == {"device_map": "balanced"}


@pytest.mark.parametrize(("gpus", "place"), [(1, {"": "cuda"}), (3, "balanced")])
@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_quantised_weights_are_asked_for(
    bits: str, gpus: int, place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(monkeypatch, "accelerate", "bitsandbytes")
    given = large.placement(model(quantize=bits), gpus)
    assert given["device_map"] == place
    asked = given["quantization_config"]
    assert (asked.load_in_8bit, asked.load_in_4bit) == (bits == "8bit", bits == "4bit")
    assert asked.bnb_4bit_compute_dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("settings", "there", "message"),
    [
        ({}, (), r"2 GPUs an actor needs accelerate, .* pip install 'cliptune\[large\]'"),
        ({"quantize": "4bit"}, ("accelerate",), "model.quantize=4bit needs bitsandbytes"),
    ],
)
def test_what_is_not_installed_is_named(
    settings: dict[str, Any],
    there: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have(monkeypatch, *there)
    with pytest.raises(ConfigError, match=message):
        large.placement(model(**settings), 2)


def test_a_model_is_placed_as_asked_and_not_moved_again(
    tmp_path: Path, task_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = families.save("Llama", tmp_path)
    config = tiny.config(folder, task_dir, task=TASK)
    given: dict[str, Any] = {}

    class Auto(AutoModelForCausalLM):  # type: ignore[misc]
        @classmethod
        def from_pretrained(cls, source: str, **named: Any) -> Any:
            given.update(named, placed=named.pop("device_map"))
            module, report = AutoModelForCausalLM.from_pretrained(source, **named)
            module.to = None  # what spread a model refuses to do
            return module, report

    monkeypatch.setattr(CausalLM, "auto", Auto)
    monkeypatch.setattr(load, "placement", lambda config, gpus: {"device_map": f"over {gpus}"})
    LocalScorer(config, load_task(config.task), gpus=2)
    assert given["placed"] == "over 2"


@pytest.mark.parametrize("place", ["cpu", "disk"])
def test_a_model_that_the_gpus_do_not_hold_is_refused(place: str) -> None:
    module = SimpleNamespace(hf_device_map={"model.layers.0": 0, "model.layers.1": place})
    with pytest.raises(OutOfMemoryError, match="does not fit into the memory of an actor's GPUs"):
        large.refuse_offloaded(module, model(name="big"))
    large.refuse_offloaded(module, model(name="big", device="cpu"))
    large.refuse_offloaded(SimpleNamespace(hf_device_map={"": 1}), model(name="big"))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose layers are as wide as bitsandbytes' blocks, where that is installed."""
    for package in ("accelerate", "bitsandbytes"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'cliptune[large]'")
    torch.manual_seed(0)
    folder = families.save("Qwen2", tmp_path_factory.mktemp("wide"))
    shape = {"hidden_size": 128, "intermediate_size": 256}
    config = AutoConfig.from_pretrained(folder, **shape)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_what_quantised_weights_take_is_known_without_them(
    bits: str,
    tied: bool,
    wide: Path,
    tmp_path: Path,
    task_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # bitsandbytes puts the scales elsewhere in the first forward pass, which would be the trial's
    monkeypatch.setattr(load, "make_exact", lambda *_: None)
    folder = shutil.copytree(wide, tmp_path / "model")
    config = AutoConfig.from_pretrained(folder, tie_word_embeddings=tied)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    settings = tiny.config(folder, task_dir, task=TASK, model={"quantize": bits})
    task = load_task(settings.task)
    structure = load.load_structure(settings, task).module
    module = load.load_plain(settings.model).module
    held = sum(weight.nbytes for weight in [*module.parameters(), *module.buffers()])
    for layer in module.modules():
        weight = getattr(layer, "weight", None)
        if (state := getattr(weight, "quant_state", None)) is not None:
            held += state.absmax.nbytes
        elif (scales := getattr(weight, "SCB", None)) is not None:
            held += scales.nbytes
    assert weight_bytes(structure, torch.float32, bits) == held
    assert held < weight_bytes(structure, torch.float32)
    assert thinned_bytes(structure, torch.float32, settings.ensemble, bits) == 0


def layer(inputs: int, outputs: int, packs: bool = True) -> nn.Module:
    """As bitsandbytes makes one, as far as it is looked at."""
    made = nn.Linear(inputs, outputs, device="meta")
    made.support_avx512bf16_for_cpu = packs
    return made


@pytest.mark.parametrize(("inputs", "outputs"), [(32, 64), (96, 64), (64, 100)])
def test_widths_that_four_bits_on_a_cpu_cannot_have_are_refused(inputs: int, outputs: int) -> None:
    here = model(name="tiny", device="cpu", quantize="4bit")
    module = nn.ModuleDict({"good": layer(128, 192), "narrow": layer(inputs, outputs)})
    said = f"multiple of 64 inputs and of 32 outputs; narrow of tiny has {inputs} and {outputs}"
    with pytest.raises(ConfigError, match=said):
        large.refuse_widths(module, here)
    for other in ({"device": "cuda"}, {"quantize": "8bit"}, {"quantize": None}):
        large.refuse_widths(module, here.model_copy(update=other))
    large.refuse_widths(nn.ModuleDict({"slow": layer(inputs, outputs, packs=False)}), here)


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_a_quantised_model_is_searched(bits: str, wide: Path, task_dir: Path) -> None:
    scored = []
    for quantize in (None, bits):
        settings = tiny.config(wide, task_dir, task=TASK, model={"quantize": quantize})
        scorer = LocalScorer(settings, load_task(settings.task))
        weights = scorer.model.module.model.layers[0].mlp.down_proj.weight
        assert weights.is_floating_point() == (quantize is None)
        scored.append(scorer.score(np.random.default_rng(0).standard_normal((4, 5))))
    np.testing.assert_allclose(*scored, atol=0.05)
    assert not np.array_equal(*scored)
