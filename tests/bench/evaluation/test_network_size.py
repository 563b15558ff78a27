"""The size of a network against counts by hand."""

import pytest
import torch

from baselines.decoders.discrete import CategoricalDecoder
from baselines.decoders.gaussian import SharedGaussian, UnitGaussian
from baselines.models.conv_vae import ConvVae
from baselines.models.hierarchical import Hierarchical
from baselines.vae import Vae
from bench.evaluation.network_size import network_size


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


@pytest.mark.parametrize(("resolution", "expected"), [(28, 0.09e9), (32, 0.13e9)])
def test_a_hierarchy_is_counted_whole(resolution: int, expected: float) -> None:
    """Forward and backward of an image, three times forward, a multiply-add being two."""
    channels = 1 if resolution == 28 else 3
    whole = "1@below 1@full"
    model = Hierarchical(channels=channels, resolution=resolution, encoder=whole, output_blocks=1)
    size = network_size(Vae(model, UnitGaussian()), {})
    assert size["latents"] == sum(model.parts.values())
    assert 6 * size["multiply_adds"] == pytest.approx(expected, rel=0.05)


def test_counting_leaves_nothing_behind() -> None:
    vae = Vae(ConvVae(channels=1, resolution=28, width=4), SharedGaussian()).train()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    torch.manual_seed(3)
    random = torch.random.get_rng_state()
    network_size(vae, vae.initial_state())
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert all(parameter.grad is None for parameter in vae.parameters())
