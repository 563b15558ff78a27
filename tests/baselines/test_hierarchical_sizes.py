"""Sizes of the hierarchical VAE: what an option's words stand for, and what is refused."""

import pytest
import torch
from pydantic import ValidationError

from baselines.build import build_model
from baselines.models.hierarchical import Hierarchical
from tests.specs import model_spec


@pytest.mark.parametrize(
    ("options", "channels", "resolution", "millions", "groups", "latents"),
    [
        ({}, 1, 28, "0.09", 3, 1_968),
        ({"encoder": "1@full 1@below", "output_blocks": 1}, 1, 28, "0.10", 3, 1_968),
        ({"encoder": "1@full 1@below", "output_blocks": 1}, 3, 32, "0.13", 4, 2_696),
        ({"size": "small"}, 3, 32, "1.41", 15, 37_392),
        ({"size": "stand_in"}, 3, 32, "22.43", 15, 74_784),
        # VDVAE's 39 million (Child 2021, table 2) and the 43 blocks of its release.
        ({"size": "vdvae"}, 3, 32, "39.12", 43, 412_432),
    ],
)
def test_parameters_and_latents_of_each_size(
    options: dict[str, object],
    channels: int,
    resolution: int,
    millions: str,
    groups: int,
    latents: int,
) -> None:
    spec = model_spec("hierarchical", **options)
    with torch.device("meta"):
        model = build_model(spec, channels=channels, resolution=resolution)
    assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}" == millions
    assert len(model.parts) == groups
    assert model.noise_size == latents


def test_a_spec_holds_what_a_size_stands_for() -> None:
    spec = model_spec("hierarchical", size="small", latent=4)
    assert spec.options == {
        "latent": 4, "width": 64, "middle": 32, "groups": "1@1 2@4 4@8 8@16",
        "encoder": "1@1 2@4 3@8 4@16 2@32", "output_blocks": 2,
    }  # fmt: skip
    assert spec.changed == {"size": "small", "latent": 4}
    assert spec == type(spec)(**spec.options) == type(spec)(**spec.changed)
    assert model_spec("hierarchical", size="tiny") == model_spec("hierarchical")
    assert model_spec("hierarchical", width=8).changed == {"width": 8}
    assert Hierarchical(channels=1, resolution=32, size="small", middle=2, width=2).latent == 16  # type: ignore[call-arg]


def test_a_string_is_one_however_it_is_written() -> None:
    spec = model_spec("hierarchical", groups=" 2@08  1@below 1@1", encoder="1@full 0@1")
    assert spec.options["groups"] == "1@1 2@8 1@below"
    assert spec == model_spec("hierarchical", groups="1@1 2@8 1@below", encoder="0@1 1@full")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": "1@1 2x4"}, r"expected COUNT@RESOLUTION as in .* \('2x4' is none\)"),
        ({"groups": ""}, "expected COUNT@RESOLUTION"),
        ({"groups": "1000000@1"}, r"\('1000000@1' is none\)"),
        ({"encoder": "1@4 2@4"}, "'2@4' repeats a resolution"),
        ({"size": "huge"}, "size: expected tiny or small or stand_in or vdvae, not 'huge'"),
        ({"size": 3}, "size: expected tiny or small or stand_in or vdvae, not 3"),
    ],
)
def test_bad_options_are_refused_before_there_are_data(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message.removeprefix("size: ").partition(",")[0]):
        model_spec("hierarchical", **options)
    with pytest.raises(ValueError, match=message) as caught:
        Hierarchical(channels=1, resolution=28, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "resolution", "message"),
    [
        ({"groups": "1@1 1@4"}, 28, "groups: '1@4': images of 28x28 have no feature maps of 4x4; "
         "possible: 1, 7, 14, 28"),
        ({"encoder": "1@3"}, 32, "encoder: '1@3': images of 32x32 .* possible: 1, 4, 8, 16, 32"),
        ({"groups": "1@4 1@8"}, 32, "groups: '1@4 1@8' has none at resolution 1, where the top is"),
        ({}, 31, "resolution 31 is not an even number from 16 to 64"),
        ({}, 128, "resolution 128 is not an even number from 16 to 64"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_images_is_one_line(
    options: dict[str, str], resolution: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build_model(model_spec("hierarchical", **options), channels=1, resolution=resolution)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("resolution", range(16, 65, 2))
def test_it_takes_images_of_every_even_side(resolution: int) -> None:
    model = Hierarchical(channels=3, resolution=resolution, width=2, middle=1, latent=1)
    assert model.generate(torch.randn(2, model.noise_size), {}).shape == (2, *model.image_shape)
    images = torch.rand(2, *model.image_shape)
    assert len(model.encode(images, {}, training=False)[0]) == 2 + len(model.parts)
