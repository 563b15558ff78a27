"""Sizes of SVG: the release's, and what is refused."""

import pytest
import torch

from baselines.build import build_model
from baselines.layers import FusedBatchNorm
from baselines.levels import misfit
from baselines.models.svg import Svg
from tests.specs import model_spec

NETWORKS = ("encoder", "decoder", "predictor", "posterior", "learned_prior")


@pytest.mark.parametrize(
    ("size", "channels", "millions", "total"),
    [
        ("smmnist", 1, ["3.81", "6.56", "1.12", "0.56", "0.56"], "12.6"),
        ("bair", 3, ["8.69", "11.82", "1.13", "0.59", "0.59"], "22.8"),
        ("kth", 1, ["8.69", "11.82", "1.12", "0.57"], "22.2"),
    ],
)
def test_the_releases_sizes_have_its_parameters(
    size: str, channels: int, millions: list[str], total: str
) -> None:
    """Its convolutions have a bias in front of the batch norm, which ours do without."""
    with torch.device("meta"):
        model = build_model(model_spec("svg", size=size), channels=channels, resolution=64)
    counts = [
        sum(parameter.numel() for parameter in network.parameters())
        + sum(norm.channels for norm in network.modules() if isinstance(norm, FusedBatchNorm))
        for network in (getattr(model, name, None) for name in NETWORKS)
        if network is not None
    ]
    assert [f"{count / 1e6:.2f}" for count in counts] == millions
    assert f"{sum(counts) / 1e6:.1f}" == total


@pytest.mark.parametrize(
    ("size", "frames", "predicted", "latents"),
    [("tiny", 10, 5, 8), ("smmnist", 15, 25, 10), ("bair", 12, 28, 64), ("kth", 20, 30, 24)],
)
def test_the_frames_of_each_size(size: str, frames: int, predicted: int, latents: int) -> None:
    with torch.device("meta"):
        model = build_model(model_spec("svg", size=size), channels=1, resolution=64)
    assert isinstance(model, Svg)
    assert model.data_shape == (frames, 1, 64, 64)
    assert (model.predicted, model.latent) == (predicted, latents)
    assert model.noise_size == (frames - 1) * latents
    # The release's n_eval: 30 frames, and 40 of KTH.
    if size != "tiny":
        assert model.past + model.predicted == {"kth": 40}.get(size, 30)


def test_a_spec_holds_what_a_size_stands_for() -> None:
    spec = model_spec("svg", size="bair", skip="svg")
    assert spec.options["network"] == "vgg"
    assert spec.changed == {"size": "bair", "skip": "svg"}
    assert model_spec("svg", size="tiny") == model_spec("svg")
    assert spec.is_sequence


@pytest.mark.parametrize("resolution", [16, 28, 48, 128])
def test_frames_of_another_size_are_one_line(resolution: int) -> None:
    fault = misfit(model_spec("svg"), resolution)
    size = f"{resolution}x{resolution}"
    assert fault == (
        f"it takes images of 32x32 or 64x64, not of {size}: resize them, as in NAME@32"
    )
    with pytest.raises(ValueError, match=f"Svg: it takes images of 32x32 or 64x64, not of {size}"):
        Svg(channels=1, resolution=resolution)
    assert not misfit(model_spec("svg"), 64)
    assert not misfit(model_spec("conv_vae"), 28)
