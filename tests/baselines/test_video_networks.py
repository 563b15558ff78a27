"""The networks of SVG's frames against torch's own layers in the release's order."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.layers import FusedBatchNorm
from baselines.video_networks import (
    FrameDecoder,
    FrameEncoder,
    Network,
    Normalised,
    initial_state,
    initialise,
    stage_widths,
)


def parts(network: Network, side: int) -> tuple[FrameEncoder, FrameDecoder]:
    torch.manual_seed(0)
    widths = stage_widths(3, side)
    encoder = FrameEncoder(network, 2, widths, 5, decay=0.9)
    decoder = FrameDecoder(network, 2, widths, 5, decay=0.9)
    for parameter in (*encoder.parameters(), *decoder.parameters()):
        nn.init.normal_(parameter, 0.1, 0.3)
    return encoder, decoder


def normalised(layer: Normalised, value: Tensor) -> Tensor:
    """What follows the convolution of a layer, by torch."""
    norm = layer.norm
    value = F.batch_norm(value, None, None, norm.weight, norm.bias, training=True, eps=norm.epsilon)
    return F.leaky_relu(value, 0.2)


def layers_of(stage: nn.Module) -> list[Normalised]:
    return [layer for layer in stage.modules() if isinstance(layer, Normalised)]


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("network", ["dcgan", "vgg"])
@torch.no_grad()
def test_the_encoder_is_the_releases(network: Network, side: int) -> None:
    encoder, _ = parts(network, side)
    frames = torch.rand(4, 2, side, side)
    vectors, maps, changed = encoder(frames, initial_state(encoder), training=True)
    assert changed.keys() == initial_state(encoder).keys()
    value = frames
    expected: list[Tensor] = []
    for stage in encoder.stages:
        if network == "vgg" and expected:
            value = nn.MaxPool2d(2)(value)
        for layer in layers_of(stage):
            weight = layer.convolution.weight
            stride = 2 if network == "dcgan" else 1
            value = normalised(layer, F.conv2d(value, weight, stride=stride, padding=1))
        expected.insert(0, value)
    value = nn.MaxPool2d(2)(value) if network == "vgg" else value
    assert value.shape[-1] == 4
    top, norm = encoder.top.convolution, encoder.top.norm
    value = F.batch_norm(
        F.conv2d(value, top.weight), None, None, norm.weight, norm.bias, training=True,
        eps=norm.epsilon,
    ).tanh()  # fmt: skip
    torch.testing.assert_close(vectors, value.flatten(1), rtol=1e-4, atol=1e-5)
    for one, other in zip(maps, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("network", ["dcgan", "vgg"])
@torch.no_grad()
def test_maps_and_skips_are_side_by_side_as_in_the_release(network: Network, side: int) -> None:
    """The release concatenates them; one convolution of both has our two kernels side by side."""
    encoder, decoder = parts(network, side)
    vectors, maps, _ = encoder(torch.rand(4, 2, side, side), initial_state(encoder), training=True)
    state = initial_state(decoder)
    found, changed = decoder(vectors, decoder.joined(maps), state, training=True)
    assert changed.keys() == state.keys()
    root = decoder.root
    value = F.conv_transpose2d(vectors[:, :, None, None], root.convolution.weight)
    value = normalised(root, value)
    for stage, skip, one in zip(decoder.stages, decoder.skips, maps, strict=False):
        for place, layer in enumerate(layers_of(stage)):
            weight = layer.convolution.weight
            if network == "vgg":
                value = nn.UpsamplingNearest2d(scale_factor=2)(value) if place == 0 else value
            if place == 0:
                assert isinstance(skip, nn.Conv2d | nn.ConvTranspose2d)
                across = 1 if network == "vgg" else 0
                value = torch.cat([value, one], dim=1)
                weight = torch.cat([weight, skip.weight], dim=across)
            convolved = (
                F.conv2d(value, weight, padding=1)
                if network == "vgg"
                else F.conv_transpose2d(value, weight, stride=2, padding=1)
            )
            value = normalised(layer, convolved)
    output = decoder.output.output
    weight, bias = output.get_parameter("weight"), output.get_parameter("bias")
    if network == "vgg":
        expected = F.conv_transpose2d(value, weight, bias, padding=1)
    else:
        value = torch.cat([value, maps[-1]], dim=1)
        weight = torch.cat([weight, decoder.skips[-1].get_parameter("output.weight")])
        expected = F.conv_transpose2d(value, weight, bias, stride=2, padding=1)
    assert found.shape == (4, 2, side, side)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_it_begins_as_the_release() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(64, 64, 4), nn.ConvTranspose2d(64, 64, 4), nn.Linear(256, 256),
        FusedBatchNorm("norm", 4096, 0.9),
    ).apply(initialise)  # fmt: skip
    for layer, mean in zip(network, (0.0, 0.0, 0.0, 1.0), strict=True):
        weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
        assert weight.mean().item() == pytest.approx(mean, abs=4 * 0.02 / weight.numel() ** 0.5)
        assert weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert torch.equal(bias, torch.zeros_like(bias))
