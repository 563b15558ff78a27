"""PSNR and SSIM against scikit-image on real images, and where they are known beforehand."""

import math
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torch.distributions import Independent, Normal

from bench.data import load
from bench.evaluation.context import EvaluationContext
from bench.evaluation.reconstruction import (
    BEST_PSNR,
    drawn_psnr,
    drawn_ssim,
    measures,
    psnr,
    ssim,
    summarise,
)
from bench.evaluation.scorer import PosteriorSample, eight_bit


def drawn(images: Tensor, mean: Tensor) -> PosteriorSample:
    return PosteriorSample(images, Independent(Normal(mean, 0.1), 3), torch.zeros(len(images)), ())


def spoiled(name: str, noise: float) -> tuple[Tensor, Tensor]:
    """50 test images in [0, 1], and means that are worse by blur and noise, some beyond [0, 1]."""
    images = load(name).test[:50].float() / 255
    rng = torch.Generator().manual_seed(0)
    blurred = (images + images.roll(1, -1) + images.roll(1, -2)) / 3
    return images, blurred + noise * torch.randn(images.shape, generator=rng)


@pytest.mark.parametrize("name", ["photos", "mnist5k", "photos@64[:500]"])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.3])
def test_both_are_scikit_images(name: str, noise: float) -> None:
    images, means = spoiled(name, noise)
    found = drawn(images, means)
    ratios, similarities = [], []
    for image, mean in zip(images.double().numpy(), eight_bit(means).numpy() / 255, strict=True):
        with np.errstate(divide="ignore"):
            ratio = peak_signal_noise_ratio(image, mean, data_range=1)
        # A black tile may come out perfectly, with an infinite ratio.
        ratios.append(min(ratio, BEST_PSNR))
        options = {"gaussian_weights": True, "use_sample_covariance": False, "win_size": 11}
        similarities.append(
            structural_similarity(image, mean, channel_axis=0, data_range=1, sigma=1.5, **options)
        )
    assert drawn_psnr(found).numpy() == pytest.approx(ratios, abs=1e-4)
    assert drawn_ssim(found).numpy() == pytest.approx(similarities, abs=1e-4)


def test_a_perfect_reconstruction_has_the_error_of_rounding() -> None:
    images, _ = spoiled("photos", 0)
    # Within half a level the 8-bit image is the same.
    found = drawn(images, images + 0.4 / 255)
    assert drawn_psnr(found).tolist() == pytest.approx([BEST_PSNR] * len(images))
    assert pytest.approx(20 * math.log10(255) + 10 * math.log10(12)) == BEST_PSNR
    assert drawn_ssim(found).tolist() == pytest.approx([1] * len(images), abs=1e-6)


@pytest.mark.parametrize("levels", [1, 10, 100])
def test_a_constant_error_has_its_decibels(levels: int) -> None:
    images = torch.full((2, 3, 16, 16), 0.2, dtype=torch.float64)
    expected = 20 * math.log10(255 / levels)
    assert psnr(images, images + levels / 255).tolist() == pytest.approx([expected] * 2)


@given(first=st.floats(0, 1), second=st.floats(0, 1))
def test_flat_images_differ_in_luminance_alone(first: float, second: float) -> None:
    """The closed form of Wang et al., Eq. 6, with no variance."""
    one, other = (torch.full((1, 1, 12, 13), value).double() for value in (first, second))
    expected = (2 * first * second + 1e-4) / (first**2 + second**2 + 1e-4)
    assert ssim(one, other).item() == pytest.approx(expected, abs=1e-6)


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), height=st.integers(11, 20), width=st.integers(11, 20))
def test_similarity_is_symmetric_bounded_and_one_by_one(seed: int, height: int, width: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    one, other = torch.rand(2, 3, 2, height, width, generator=rng, dtype=torch.float64)
    found = ssim(one, other)
    assert (found.abs() <= 1).all()
    torch.testing.assert_close(found, ssim(other, one))
    torch.testing.assert_close(found, ssim(one.mT, other.mT))
    torch.testing.assert_close(found[1:2], ssim(one[1:2], other[1:2]))
    by_channel = torch.stack([ssim(one[:, [c]], other[:, [c]]) for c in range(2)])
    torch.testing.assert_close(found, by_channel.mean(0))
    torch.testing.assert_close(found, ssim(one.unsqueeze(1), other.unsqueeze(1)))


def test_images_smaller_than_the_window_have_no_similarity() -> None:
    images = torch.zeros(3, 1, 10, 16, dtype=torch.uint8)
    context = cast(EvaluationContext, SimpleNamespace(images=images, run=SimpleNamespace(seed=0)))
    assert measures(context).keys() == {"psnr"}
    found = summarise(context, {"psnr": torch.tensor([20.0, 30.0, 40.0]).double()})
    assert found.metrics == {"psnr": 30, "psnr_se": pytest.approx(10 / math.sqrt(3))}
    assert "11x11" in found.protocol["reconstruction"]["ssim"]
