"""Chunks follow the size of what is decoded, and the pictures do not follow the chunks."""

from dataclasses import replace

import pytest
import torch

from baselines.build import build_decoder, build_model
from baselines.vae import Vae
from bench.evaluation.scorer import CHUNK_VALUES, Scorer, eight_bit
from bench.rng import seeded
from tests.specs import decoder_spec, model_spec


def scorer(decoder: str, channels: int = 1) -> Scorer:
    made = build_decoder(decoder_spec(decoder))
    model = build_model(
        model_spec("linear_vae", latent=2), channels=channels, resolution=28, outputs=made.outputs
    )
    vae = Vae(model, made)
    return Scorer(vae, vae.initial_state(), torch.float32)


@pytest.mark.parametrize("channels", [1, 3])
def test_256_logits_a_value_are_decoded_few_at_a_time(channels: int) -> None:
    assert scorer("per_pixel", channels).chunk == 512
    many = scorer("categorical", channels)
    values = 256 * channels * 28 * 28
    assert many.chunk * values <= CHUNK_VALUES < (many.chunk + 1) * values


def test_pictures_do_not_follow_the_chunks() -> None:
    torch.manual_seed(0)
    of, noise = scorer("gaussian"), torch.randn(20, 2)
    images = torch.randint(0, 256, (20, 1, 28, 28), dtype=torch.uint8)
    generated, again = of.generate(noise), of.reconstruct(images, noise)
    with seeded(0, "test", device="cpu"):
        sampled = of.sample(noise)
    assert sampled.shape == generated.shape == images.shape
    # A unit Gaussian's draws are its means and unit noise.
    assert (sampled - generated).std().item() == pytest.approx(1, abs=0.02)
    of = replace(of, most=7)
    torch.testing.assert_close(of.generate(noise), generated)
    torch.testing.assert_close(of.reconstruct(images, noise), again)


def test_eight_bits_clip_and_round() -> None:
    values = torch.tensor([-0.5, 0.0, 0.4 / 255, 0.6 / 255, 1.0, 7.0])
    assert eight_bit(values).tolist() == [0, 0, 0, 1, 255, 255]
