"""How near reconstructions are to their images: PSNR and SSIM.

A reconstruction is the decoder mean of one posterior draw, clipped and rounded to 8 bits.
"""

import math
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from bench.evaluation.calibration import MIN_VARIANCE
from bench.evaluation.context import Evaluated, EvaluationContext, Scores, means
from bench.evaluation.scorer import Measure, PosteriorSample, eight_bit
from bench.training.step import scaled

WINDOW = 11
"""Rows and columns of SSIM's Gaussian window."""

SIGMA = 1.5
"""The window's standard deviation, in pixels."""

LUMINANCE, CONTRAST = 0.01**2, 0.03**2
"""C1 and C2 of Wang et al. for data in [0, 1]: they keep the quotients of flat regions finite."""

BEST_PSNR = -10 * math.log10(MIN_VARIANCE)
"""58.9 dB, where the squared error is that of rounding to 8 bits."""

Quality = Callable[[Tensor, Tensor], Tensor]
"""A measure of images (B, C, H, W) in [0, 1] beside others, (B,)."""


def measures(context: EvaluationContext) -> dict[str, Measure]:
    """PSNR of each image, and SSIM where an image is no smaller than its window."""
    drawn = {"psnr": drawn_psnr, "ssim": drawn_ssim}
    return {name: drawn[name] for name in qualities(context.images.shape)}


def summarise(context: EvaluationContext, scores: Scores) -> Evaluated:
    """`psnr` and `ssim`, means over the images."""
    found = {name: scores[name] for name in ("psnr", "ssim") if name in scores}
    protocol = {
        "of": "decoder mean of one posterior draw, clipped and rounded to 8 bits",
        "data_range": 1,
        "psnr": "mean of the decibels of each image",
        "best_psnr": BEST_PSNR,
        "ssim": how_ssim(scores),
        "images": len(scores["psnr"]),
        "standard_error": "over images",
        "seed": context.run.seed,
    }
    return Evaluated(means(found), {"reconstruction": protocol}, {})


def qualities(shape: Sequence[int]) -> dict[str, Quality]:
    """What images (..., H, W) have: PSNR, and SSIM where they are no smaller than its window.

    >>> list(qualities((1, 28, 28))), list(qualities((1, 8, 8)))
    (['psnr', 'ssim'], ['psnr'])
    """
    return {"psnr": psnr, **({"ssim": ssim} if min(shape[-2:]) >= WINDOW else {})}


def how_ssim(found: Collection[str]) -> str:
    """What a protocol says of SSIM, which is among the measures found or is absent."""
    size = f"{WINDOW}x{WINDOW}"
    if "ssim" not in found:
        return f"absent: the images are smaller than its window of {size}"
    return f"{size} Gaussian window, σ {SIGMA}, whole windows only; mean over channels"


def drawn_psnr(drawn: PosteriorSample) -> Tensor:
    return _of_images(psnr, drawn)


def drawn_ssim(drawn: PosteriorSample) -> Tensor:
    return _of_images(ssim, drawn)


def _of_images(measure: Quality, drawn: PosteriorSample) -> Tensor:
    """A measure of each image, or the mean over a sequence's frames, (B,)."""
    clean = eight_bit(drawn.images)  # without what dequantised it
    return by_frame(measure, clean, drawn.mean).view(len(clean), -1).mean(1)


def by_frame(measure: Quality, images: Tensor, means: Tensor) -> Tensor:
    """A measure of each 8-bit image of (..., C, H, W) beside a decoder mean, (...), float64.

    The means in [0, 1] are clipped and rounded to 8 bits.
    """
    pair = scaled(images).double(), eight_bit(means).double() / 255
    found = measure(*(of.flatten(0, -4) for of in pair))
    return found.view(images.shape[:-3])


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """The peak signal-to-noise ratio, -10 log10 of the mean squared error, dB, (B,).

    A perfect reconstruction would be infinite. The images themselves are rounded, so the error is
    taken to be at least that of rounding to 8 bits, 1/12 of a squared level: the most is
    `BEST_PSNR`.

    Arguments:
        images: (B, …) in [0, 1]; `others` alike.
    """
    error = (images - others).square().flatten(1).mean(1)
    return -10 * error.clamp_min(MIN_VARIANCE).log10()


def ssim(images: Tensor, others: Tensor) -> Tensor:
    """The mean structural similarity, (B,), 1 for equal images (Wang et al. 2004, Eq. 13).

    Means, variances and the covariance are those of an 11x11 Gaussian window with σ = 1.5 around
    each pixel that has a whole window, in each channel. The same as scikit-image's
    `structural_similarity` with `gaussian_weights`, `use_sample_covariance=False` and σ = 1.5.

    Arguments:
        images: (B, …, H, W), float64 in [0, 1], H and W at least 11; `others` alike.
    """
    rows, columns = (_window(side, images.device) for side in images.shape[-2:])

    def local(values: Tensor) -> Tensor:
        return rows @ values @ columns.T

    mean, other = local(images), local(others)
    product, squares = mean * other, mean.square() + other.square()
    covariance = local(images * others) - product
    variances = local(images.square() + others.square()) - squares
    similarity = (2 * product + LUMINANCE) * (2 * covariance + CONTRAST)
    similarity /= (squares + LUMINANCE) * (variances + CONTRAST)
    return similarity.flatten(1).mean(1)


def _window(side: int, device: torch.device) -> Tensor:
    """The Gaussian window along one axis as a matrix, (side - 10, side), float64."""
    # The window is separable. Two matrix products are many times faster than a convolution in
    # float64, and TF32, in which a GPU may convolve, would lose a variance near zero.
    places = torch.arange(side, device=device)
    offsets = places - places[: side - WINDOW + 1, None] - WINDOW // 2
    weights = torch.exp(-0.5 * (offsets.double() / SIGMA).square())
    weights[offsets.abs() > WINDOW // 2] = 0
    return weights / weights.sum(1, keepdim=True)
