"""The size of a network against counts by hand."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from baselines.build import build_model
from baselines.decoders.discrete import CategoricalDecoder
from baselines.decoders.gaussian import SharedGaussian, UnitGaussian
from baselines.models.conv_vae import ConvVae
from baselines.models.hierarchical import Hierarchical
from baselines.models.svg import Svg
from baselines.options import MODELS
from baselines.vae import Vae
from bench.evaluation.network_size import network_size
from tests.specs import model_spec


def test_a_convolutional_vae_costs_what_its_layers_do() -> None:
    """35.8 GFLOP a step of 128 images, a multiply-add being two and a backward pass two forward."""
    size = network_size(Vae(ConvVae(channels=1, resolution=28, width=32), UnitGaussian()), {})
    assert size["latents"] == 20
    assert 128 * 6 * size["multiply_adds"] == pytest.approx(35.8e9, rel=0.01)


@pytest.mark.parametrize("outputs", [1, 256])
def test_parameters_are_those_of_model_and_decoder(outputs: int) -> None:
    decoder = SharedGaussian() if outputs == 1 else CategoricalDecoder()
    vae = Vae(ConvVae(channels=1, resolution=28, width=4, outputs=outputs), decoder)
    counted = network_size(vae, vae.initial_state())
    assert counted["parameters"] == sum(p.numel() for p in vae.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_the_arithmetic_is_what_torchs_counter_finds(name: str) -> None:
    spec = model_spec(name)
    model = build_model(spec, channels=3, resolution=min(spec.resolutions, default=28))
    vae = Vae(model, UnitGaussian())
    state = vae.initial_state()
    images, noise = torch.zeros(1, *model.data_shape), torch.zeros(1, model.noise_size)
    with FlopCounterMode(display=False) as counter:
        context, _ = model.encode(images, state, training=False)
        model.draw(context, noise, state, training=False)
    assert network_size(vae, state)["multiply_adds"] == counter.get_total_flops() // 2


@pytest.mark.parametrize(("resolution", "expected"), [(28, 0.09e9), (32, 0.13e9)])
def test_a_hierarchy_is_counted_whole(resolution: int, expected: float) -> None:
    """Forward and backward of an image, three times forward, a multiply-add being two."""
    channels = 1 if resolution == 28 else 3
    whole = "1@below 1@full"
    model = Hierarchical(channels=channels, resolution=resolution, encoder=whole, output_blocks=1)
    size = network_size(Vae(model, UnitGaussian()), {})
    assert size["latents"] == sum(model.parts.values())
    assert "latent_shape" not in size
    assert 6 * size["multiply_adds"] == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("size", "shape", "compression"), [("kl_f4", [3, 4, 4], 16), ("kl_f8", [4, 2, 2], 48)]
)
def test_the_published_autoencoders_compress_16_and_48_times(
    size: str, shape: list[int], compression: int
) -> None:
    """256x256x3 to 64x64x3 and to 32x32x4 (Rombach et al. 2022), here from 16x16 pixels."""
    spec = model_spec("residual_vae", size=size, width=4, norm_groups=2)
    model = build_model(spec, channels=3, resolution=16)
    counted = network_size(Vae(model, UnitGaussian()), {})
    assert (counted["latent_shape"], counted["compression"]) == (shape, compression)


def test_of_a_video_the_predicted_frames_count() -> None:
    """Three of four: the first is given."""
    model = Svg(
        channels=1, resolution=32, width=2, features=4, hidden=4, latent=8, past=2, future=2
    )
    size = network_size(Vae(model, UnitGaussian()), model.initial_state())
    assert size["compression"] == 3 * 32 * 32 / (3 * 8)


def test_counting_leaves_nothing_behind() -> None:
    vae = Vae(ConvVae(channels=1, resolution=28, width=4), SharedGaussian()).train()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    torch.manual_seed(3)
    random = torch.random.get_rng_state()
    network_size(vae, vae.initial_state())
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert all(parameter.grad is None for parameter in vae.parameters())
