"""Models come from folders, the hub or the demo package; only whole and safe ones are taken."""

import shutil
from pathlib import Path
from typing import Any

import families
import pytest
import tiny
import torch
import transformers as hf
from transformers import AutoModel, CLIPConfig

from cliptune import weights
from cliptune.config import ModelConfig
from cliptune.errors import ModelError, TaskError
from cliptune.models import load, load_model
from cliptune.models.encoder import Encoder
from cliptune.models.load import load_structure
from cliptune.models.masked_lm import MaskedLM
from cliptune.task import load_task


def test_the_architecture_decides_the_read_out(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    config = tiny.config(model_dir, task_dir)
    task = load_task(config.task)
    assert isinstance(load_model(config, task), MaskedLM)
    AutoModel.from_pretrained(model_dir).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    assert isinstance(load_model(tiny.config(tmp_path, task_dir), task), Encoder)


@pytest.mark.parametrize(
    ("name", "readout", "message"),
    [
        ("T5", "encoder", r"is an encoder with a decoder \(t5\). Leave it on auto, or .* seq2seq"),
        ("BART", "masked-lm", "is an encoder with a decoder"),
        ("Llama", "seq2seq", "is no encoder with a decoder .* or choose masked-lm, causal-lm or"),
    ],
)
def test_a_read_out_that_does_not_go_with_the_model_is_refused(
    name: str, readout: Any, message: str, tmp_path: Path
) -> None:
    families.save(name, tmp_path)
    with pytest.raises(ModelError, match=f"model.readout {readout} does not go with .*{message}"):
        load._family(str(tmp_path), ModelConfig(readout=readout))


def test_a_model_that_is_not_of_text_alone_is_refused(tmp_path: Path) -> None:
    CLIPConfig().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"is no language model of text alone .* says clip"):
        load._family(str(tmp_path), ModelConfig())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (hf.ViTConfig(), "says vit, which is fed pixel_values"),
        (hf.Wav2Vec2Config(), "says wav2vec2, which is fed input_values"),
        (hf.WhisperConfig(), "says whisper, which is none that transformers reads out as seq2seq"),
        (hf.Gemma3Config(), "part for text among others. Choose a model that is that part alone"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_a_model_of_pictures_or_sound_is_refused(config: Any, message: str, tmp_path: Path) -> None:
    config.architectures = ["Some" + type(config).__name__.replace("Config", "Model")]
    config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=f"is no language model of text alone .*{message}"):
        load._family(str(tmp_path), ModelConfig())


@pytest.mark.parametrize(
    ("config", "architecture", "readout"),
    [
        (hf.BertConfig(), "BertForPreTraining", "masked-lm"),
        (hf.BertConfig(), "BertLMHeadModel", "causal-lm"),
        (hf.XLMConfig(), "XLMWithLMHeadModel", "masked-lm"),
        (hf.FlaubertConfig(), "FlaubertWithLMHeadModel", "masked-lm"),
        (hf.ElectraConfig(), "ElectraForPreTraining", "encoder"),
        (hf.BertConfig(), "BertForSequenceClassification", "encoder"),
    ],
)
def test_heads_of_other_names_have_their_read_out(
    config: Any, architecture: str, readout: str, tmp_path: Path
) -> None:
    config.architectures = [architecture]
    config.save_pretrained(tmp_path)
    assert load._family(str(tmp_path), ModelConfig()).readout == readout


def test_without_an_architecture_the_read_out_is_the_users_to_choose(tmp_path: Path) -> None:
    hf.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"names no architectures.* Set model\.readout to masked"):
        load._family(str(tmp_path), ModelConfig())
    found = load._family(str(tmp_path), ModelConfig(readout="masked-lm"))
    assert found is MaskedLM


def test_an_encoder_without_its_decoder_is_refused(tmp_path: Path) -> None:
    config = hf.T5Config(architectures=["T5EncoderModel"])
    config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"an encoder without its decoder \(T5EncoderModel\)"):
        load._family(str(tmp_path), ModelConfig(readout="auto"))


def test_the_model_is_frozen_in_evaluation_mode_and_of_the_dtype_asked_for(
    model_dir: Path, task_dir: Path
) -> None:
    config = tiny.config(model_dir, task_dir, model={"dtype": "bfloat16"})
    module = load_model(config, load_task(config.task)).module
    assert not module.training
    assert not any(p.requires_grad for p in module.parameters())
    assert {p.dtype for p in module.base_model.parameters()} == {torch.bfloat16}


def test_a_model_without_the_head_is_refused(
    model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    AutoModel.from_pretrained(model_dir).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    config = tiny.config(tmp_path, task_dir, model={"readout": "masked-lm"})
    with pytest.raises(ModelError, match="has no weights for cls"):
        load_model(config, load_task(config.task))


def test_pickled_weights_are_refused(model_dir: Path, task_dir: Path, tmp_path: Path) -> None:
    folder = tiny.save_model(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    config = tiny.config(folder, task_dir)
    with pytest.raises(ModelError, match="safetensors"):
        load_model(config, load_task(config.task))


def test_a_model_that_is_not_there_is_named(task_dir: Path, tmp_path: Path) -> None:
    config = tiny.config(tmp_path / "nowhere", task_dir)
    with pytest.raises(ModelError, match="nowhere cannot be loaded"):
        load_model(config, load_task(config.task))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_download_that_ended_early_is_refused(
    name: str, share: float, model_dir: Path, task_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(model_dir, tmp_path / "model")
    file = tmp_path / "model" / name
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    config = tiny.config(tmp_path / "model", task_dir)
    with pytest.raises(ModelError, match="model cannot be loaded as a model with safetensors"):
        load_model(config, load_task(config.task))


def test_a_demo_model_with_another_checksum_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task_dir: Path
) -> None:
    package = tmp_path / "broken_demo_package"
    tiny.save_model(package / "model")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(weights, "MINILM_PACKAGE", "broken_demo_package")
    config = tiny.config(Path("minilm"), task_dir)
    with pytest.raises(ModelError, match=r"expected SHA-256 53aa5117.*found.*Reinstall"):
        load_model(config, load_task(config.task))


@pytest.mark.parametrize(
    "preset", ["sst2", "yelp_polarity", "agnews", "dbpedia", "mrpc", "rte", "snli"]
)
def test_every_preset_fits_the_real_masked_language_model(preset: str, shared: Path) -> None:
    """Label words are single tokens, the template keeps its mask, real data is read."""
    from cliptune.config import Config, validate

    config = validate(
        Config,
        {
            "task": {"name": preset, "data": str(shared / "data" / preset / "16-42")},
            "model": {
                "name": str(shared / "models/minilm-mlm"),
                "dtype": "float32",
                "device": "cpu",
            },
            "prompt": {"length": 5},
        },
    )
    config = config.model_copy(update={"model": config.model.model_copy(update={"device": "cpu"})})
    task = load_task(config.task)
    model = load_model(config, task)
    encoded = model.encode(task["validation"], 5)
    scores = model.class_scores(None, model.batch(encoded, range(4)))
    assert scores.shape == (1, 4, len(config.task.label_words))
    mask = model.tokenizer.mask_token_id
    assert all(ids[at] == mask for ids, at in zip(encoded.ids, encoded.mask_positions, strict=True))
    with pytest.raises(TaskError):
        load_task(config.task.model_copy(update={"k": 17}))


@pytest.mark.parametrize(("family", "readout"), [("bert", "masked-lm"), ("roberta", "encoder")])
def test_a_model_without_its_weights_tokenises_and_measures_like_the_whole_one(
    family: str, readout: str, tmp_path: Path, task_dir: Path
) -> None:
    folder = tiny.save_model(tmp_path, family)
    config = tiny.config(folder, task_dir, model={"readout": readout}, task={"max_tokens": 14})
    task = load_task(config.task)
    whole = load_model(config, task)
    (folder / "model.safetensors").unlink()
    structure = load_structure(config, task)
    assert type(structure) is type(whole)
    assert {p.device.type for p in structure.module.parameters()} == {"meta"}
    for model in (whole, structure):
        model.tokenizer.model_max_length = 10_000
    for name in ("width", "max_positions", "max_input", "prompt_offset"):
        assert getattr(structure, name) == getattr(whole, name)
    assert structure.encode(task["train"], 3) == whole.encode(task["train"], 3)


def test_a_structure_that_is_not_there_is_named(task_dir: Path, tmp_path: Path) -> None:
    config = tiny.config(tmp_path / "nowhere", task_dir)
    with pytest.raises(ModelError, match="nowhere cannot be loaded"):
        load_structure(config, load_task(config.task))
