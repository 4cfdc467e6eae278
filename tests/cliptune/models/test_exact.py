"""Models that would be scored wrongly are refused when they are loaded, or made right."""

from pathlib import Path
from typing import Any

import families
import more_families
import pytest
import tiny
import torch
import transformers as hf
from more_families import More, masked, seq2seq

from cliptune.errors import ModelError
from cliptune.models import fast
from cliptune.models.exact import make_exact, scale_behind
from cliptune.models.load import load_plain


def load(family: More, folder: Path, **settings: Any) -> Any:
    return load_plain(tiny.config(family.save(folder), folder, model=settings).model)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (masked("FNet"), "FNetForMaskedLM scores an input otherwise beside longer ones: .*padding"),
        (masked("MobileBert"), "MobileBertForMaskedLM scores an input otherwise beside longer"),
        (masked("Esm"), "cannot be given a prompt: expected of word embeddings what their words"),
        (masked("IBert"), "trying it found AttributeError .*Choose a model of another family"),
        (masked("Xmod"), "trying it found ValueError Input language unknown"),
    ],
    ids=lambda value: value.model if isinstance(value, More) else "",
)
def test_a_family_that_would_be_scored_wrongly_is_refused(
    family: More, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        load(family, tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rounding_is_told_from_padding_that_leaks(dtype: str, tmp_path: Path) -> None:
    qwen2 = families.save("Qwen2", tmp_path / "a")
    load_plain(tiny.config(qwen2, tmp_path, model={"dtype": dtype}).model)
    with pytest.raises(ModelError, match="beside longer ones"):
        load(masked("ConvBert"), tmp_path / "b", dtype=dtype)


def test_a_model_whose_words_see_later_ones_is_not_causal(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is no causal language model: .*model\.readout masked"):
        load(masked("Bert"), tmp_path, readout="causal-lm")


def test_a_scale_that_only_ids_meet_becomes_the_embedding_layers(tmp_path: Path) -> None:
    module = load(more_families.MORE["Marian"], tmp_path).module
    assert scale_behind(module) == pytest.approx(32**0.5)
    plain = hf.MarianMTModel.from_pretrained(tmp_path).eval()
    ids, start = torch.tensor([[0, 40, 50, 2]]), torch.tensor([[2, 7]])
    with torch.inference_mode():
        embedded = module.get_input_embeddings()(ids)
        found = module(inputs_embeds=embedded, decoder_input_ids=start).logits
        torch.testing.assert_close(found, plain(input_ids=ids, decoder_input_ids=start).logits)


def test_a_family_that_scales_embeddings_as_well_is_left_as_it_is(tmp_path: Path) -> None:
    module = load(more_families.MORE["FSMT"], tmp_path).module
    assert module.model.encoder.embed_scale != 1
    assert scale_behind(module) == 1


def test_a_model_without_a_scale_of_its_own_is_left_as_it_is(tmp_path: Path) -> None:
    module = load(seq2seq("Pegasus", scale_embedding=False), tmp_path).module
    assert type(module.get_input_embeddings()) is torch.nn.Embedding


def test_it_takes_five_short_passes(model_dir: Path) -> None:
    module = hf.AutoModelForMaskedLM.from_pretrained(model_dir).eval()
    fast.with_linear_layers(module)
    shapes: list[tuple[int, ...]] = []
    module.base_model.encoder.layer[0].register_forward_pre_hook(
        lambda layer, inputs: shapes.append(tuple(inputs[0].shape[:2]))
    )
    make_exact(module, tiny.tokenizer(), "masked-lm")
    assert shapes == [(1, 9), (1, 5), (1, 9), (2, 9), (2, 9)]
