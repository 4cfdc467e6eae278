"""The soft prompt P(z) = P0 + A z: its shapes, its scale and where P0 comes from."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cliptune.config import PromptConfig
from cliptune.errors import ConfigError
from cliptune.prompt import SoftPrompt, build_prompt, projection_std

WIDTH = 16
SPECIAL = {0, 1, 7}
EMBEDDINGS = torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(0)) * 0.3


def build(sigma: float = 1.0, embeddings: Tensor = EMBEDDINGS, **settings: Any) -> SoftPrompt:
    config = PromptConfig(**{"length": 5, "dimension": 8, **settings})
    return build_prompt(
        config, sigma, embeddings, SPECIAL, lambda t: [len(word) for word in t.split()], spreads
    )


def spreads(initial: Tensor) -> list[float]:
    """Of two deeper layers."""
    return [0.5, 2.0]


def matrix(prompt: SoftPrompt, dimension: int = 8) -> Tensor:
    """A, `(length * width, d)`, seen from outside: what each unit latent adds."""
    return (prompt(np.eye(dimension)) - prompt.initial).flatten(1).T


def latents(candidates: int, dimension: int = 8, sigma: float = 1.0) -> np.ndarray[Any, Any]:
    return sigma * np.random.default_rng(3).standard_normal((candidates, dimension))


def test_a_prompt_for_every_candidate() -> None:
    prompts = build()(latents(3))
    assert prompts.shape == (3, 5, WIDTH)
    assert prompts.dtype == torch.float32


def test_a_zero_latent_gives_the_initial_prompt() -> None:
    prompt = build()
    assert torch.equal(prompt(np.zeros((1, 8)))[0], prompt.initial)


def test_the_prompt_is_the_initial_one_plus_a_times_the_latent() -> None:
    prompt, z = build(), latents(4)
    expected = prompt.initial.flatten() + torch.tensor(z).float() @ matrix(prompt).T
    torch.testing.assert_close(prompt(z).flatten(1), expected, rtol=0, atol=1e-5)


def test_read_only_latents_are_taken() -> None:
    z = latents(2)
    z.setflags(write=False)
    assert torch.equal(build()(z), build()(latents(2)))


@pytest.mark.parametrize(("alpha", "sigma", "d"), [(1, 1, 50), (2, 1, 50), (1, 4, 50), (1, 1, 200)])
def test_entries_of_a_follow_the_scale_formula(alpha: float, sigma: float, d: int) -> None:
    expected = alpha * float(EMBEDDINGS.std()) / (math.sqrt(d) * sigma)
    assert projection_std(float(EMBEDDINGS.std()), d, alpha, sigma) == pytest.approx(
        expected, rel=1e-6
    )
    found = matrix(build(sigma, length=100, dimension=d, scale=alpha), d)
    assert float(found.std()) == pytest.approx(expected, rel=0.02)
    assert abs(float(found.mean())) < 0.02 * expected


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
def test_sampled_prompts_spread_alpha_times_as_far_as_the_embeddings(sigma: float) -> None:
    prompt = build(sigma, length=100, dimension=50, scale=2)
    offsets = prompt(latents(50, 50, sigma)) - prompt.initial
    assert float(offsets.std()) == pytest.approx(2 * float(EMBEDDINGS.std()), rel=0.05)


def test_the_same_seed_gives_the_same_prompt_and_another_seed_another() -> None:
    z = latents(2)
    assert torch.equal(build(seed=4)(z), build(seed=4)(z))
    one, other = (matrix(build(seed=seed, init="zero")) for seed in (4, 5))
    assert not torch.isclose(one, other).all(dim=1).any()  # no row of A is shared
    assert not torch.equal(build(seed=4).initial, build(seed=5).initial)


def test_a_does_not_depend_on_the_initialisation() -> None:
    torch.testing.assert_close(matrix(build(init="zero")), matrix(build()), rtol=0, atol=1e-6)


def test_half_precision_embeddings_still_give_float32_prompts() -> None:
    prompt = build(embeddings=EMBEDDINGS.bfloat16())
    assert prompt.initial.dtype == torch.float32
    assert prompt(latents(1)).dtype == torch.float32


def test_zero_starts_from_nothing() -> None:
    assert not build(init="zero").initial.any()


def test_vocabulary_draws_whole_embeddings_but_no_special_tokens() -> None:
    initial = build(length=400).initial
    drawn = (initial[:, None] == EMBEDDINGS).all(-1).nonzero()
    assert drawn[:, 0].tolist() == list(range(400))  # every row is some token's embedding
    assert set(drawn[:, 1].tolist()) == set(range(40)) - SPECIAL


def test_text_is_repeated_up_to_the_length() -> None:
    initial = build(init="text", text="a four to").initial
    assert torch.equal(initial, EMBEDDINGS[[1, 4, 2, 1, 4]])


def test_text_is_cut_to_the_length() -> None:
    initial = build(init="text", text="a four to", length=2).initial
    assert torch.equal(initial, EMBEDDINGS[[1, 4]])


def test_a_text_without_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"prompt.text holds no token; found ' '"):
        build(init="text", text=" ")


def test_the_embeddings_are_copied_not_shared() -> None:
    before = EMBEDDINGS.clone()
    build(init="text", text="a").initial.add_(1)
    assert torch.equal(EMBEDDINGS, before)


def test_a_file_gives_the_initial_prompt_back(tmp_path: Path) -> None:
    saved = build()(latents(1))[0]
    save_file({"prompt": saved.contiguous()}, tmp_path / "p.safetensors")
    assert torch.equal(build(init="file", file=tmp_path / "p.safetensors").initial, saved)


def test_a_file_in_half_precision_is_widened(tmp_path: Path) -> None:
    half = torch.ones(5, WIDTH, dtype=torch.float16)
    save_file({"prompt": half}, tmp_path / "p.safetensors")
    initial = build(init="file", file=tmp_path / "p.safetensors").initial
    assert initial.dtype == torch.float32
    assert torch.equal(initial, torch.ones(5, WIDTH))


def test_a_file_of_another_shape_names_both_shapes(tmp_path: Path) -> None:
    save_file({"prompt": torch.zeros(4, WIDTH)}, tmp_path / "p.safetensors")
    message = r"shape \(length, width\) = \(5, 16\); found \(4, 16\)"
    with pytest.raises(ConfigError, match=message):
        build(init="file", file=tmp_path / "p.safetensors")


def test_a_file_without_a_prompt_is_refused(tmp_path: Path) -> None:
    save_file({"other": torch.zeros(5, WIDTH)}, tmp_path / "p.safetensors")
    with pytest.raises(ConfigError, match=r"p.safetensors must hold `prompt` .*found None"):
        build(init="file", file=tmp_path / "p.safetensors")


def test_a_file_that_is_missing_or_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("not a tensor")
    for name in ("missing.safetensors", "text.safetensors"):
        with pytest.raises(ConfigError, match=rf"prompt.file: .*{name} cannot be read"):
            build(init="file", file=tmp_path / name)


# Several layers


def test_each_layer_has_its_own_part_of_the_latent() -> None:
    deep, shallow = build(layers=3), build()
    z = latents(4, 24)
    prompts = deep(z)
    assert prompts.shape == (4, 3, 5, WIDTH)
    assert torch.equal(prompts[:, 0], shallow(z[:, :8]))
    z[:, 8:16] = 0
    assert torch.equal(deep(z)[:, 1], torch.zeros(4, 5, WIDTH))
    assert torch.equal(deep(z)[:, [0, 2]], prompts[:, [0, 2]])


def test_deeper_layers_spread_as_far_as_what_they_are_added_to() -> None:
    prompts = build(layers=3, dimension=50)(latents(400, 150))
    assert float(prompts[:, 1].std()) == pytest.approx(0.5, rel=0.05)
    assert float(prompts[:, 2].std()) == pytest.approx(2.0, rel=0.05)


# Of words


def test_each_number_of_a_latent_moves_a_vector_along_a_word() -> None:
    prompt = build(projection="vocabulary")
    words = [i for i in range(len(EMBEDDINGS)) if i not in SPECIAL]
    centred = EMBEDDINGS[words] - EMBEDDINGS[words].mean(dim=0)
    directions = torch.nn.functional.normalize(centred, dim=1)
    moves = matrix(prompt).T.reshape(8 * 5, WIDTH)  # of every number and vector
    cosines = torch.nn.functional.normalize(moves, dim=1) @ directions.T
    assert torch.allclose(cosines.max(dim=1).values, torch.ones(40), atol=1e-5)
    assert len(set(cosines.argmax(dim=1).tolist())) > 15  # words of their own


def test_words_spread_as_far_as_normal_numbers() -> None:
    wide = {"length": 100, "dimension": 50, "scale": 0.7}
    found = matrix(build(2.0, projection="vocabulary", **wide), 50).std()
    assert float(found) == pytest.approx(float(matrix(build(2.0, **wide), 50).std()), rel=0.05)
    layers = build(projection="vocabulary", layers=3)(np.ones((1, 24)))
    assert layers.shape == (1, 3, 5, WIDTH)
    assert not torch.equal(layers[0, 1], layers[0, 2])


# No projection


def test_without_a_projection_the_latent_is_the_offset_in_the_embeddings_scale() -> None:
    prompt = build(sigma=0.5, projection="identity", dimension=5 * WIDTH, scale=2.0)
    offset = matrix(prompt, 5 * WIDTH)
    spread = float(EMBEDDINGS.std())
    assert torch.allclose(offset, torch.eye(5 * WIDTH) * 2.0 * spread / 0.5)


def test_without_a_projection_the_latent_has_the_prompts_size() -> None:
    with pytest.raises(ConfigError, match=r"prompt.dimension must be 5 vectors x width 16 = 80"):
        build(projection="identity", dimension=8)


@pytest.mark.parametrize("more", [{}, {"projection": "identity", "dimension": 5 * WIDTH}])
def test_a_gradient_goes_back_through_the_projection(more: dict[str, Any]) -> None:
    prompt = build(**more)
    gradient = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1))
    expected = matrix(prompt, more.get("dimension", 8)).T @ gradient.flatten()
    assert np.allclose(prompt.back(gradient), expected.numpy(), atol=1e-6)
