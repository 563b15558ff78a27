"""Calibration of p(x|z): coverage of its central intervals, its CRPS, the variance of (x-μ)/σ.

All are taken over all pixels and channels of the scored images, with z from the posterior.
Coverage and CRPS are those of the 8-bit law, whose bits `bits_per_dim` counts, for every decoder.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

from baselines.crps import crps
from baselines.probabilities import cumulative, pit
from bench.evaluation.context import Evaluated, EvaluationContext, Scores, mean_and_error, means
from bench.evaluation.likelihood import NO_LIKELIHOOD, has_mass
from bench.evaluation.scorer import Measure, PosteriorSample

CELLS = 200
"""Equal cells of [0, 1] in which PIT values are counted; each interval below is a union of some."""

BINS = 20
"""Bins of the reported PIT histogram."""

MIN_VARIANCE = 1 / (12 * 255**2)
"""The variance of rounding to 8 bits; smaller errors cannot be seen in the data."""


NO_CELLS = "single values of p(x|z) have no cumulative distribution"


def measures(context: EvaluationContext) -> dict[str, Measure]:
    """PIT values, the CRPS and the moments of (x-μ)/σ of each image."""
    if not has_mass(context):
        return {}
    randomised = context.generator("randomised PIT")
    kept: dict[str, Measure] = {
        "pit": partial(pit_counts, generator=randomised),
        "crps": mean_crps,
        "z": z_moments,
    }
    if not context.scorer.vae.decoder.is_discrete:
        kept["pit_density"] = density_counts
    return kept


def summarise(context: EvaluationContext, scores: Scores) -> Evaluated:
    """Coverage of the intervals of p(x|z), its CRPS, and the size of its errors.

    The curves are `coverage`, `nominal` and `observed` of central intervals, and `pit`, the
    histogram of PIT values as 20 densities; of continuous decoders `pit_density` too.
    """
    if "pit" not in scores:
        reason = NO_CELLS if context.scorer.vae.decoder.is_likelihood else NO_LIKELIHOOD
        return Evaluated({}, {"calibration": {"absent": reason}}, {})
    found = calibration(scores["pit"])
    metrics = {"calibration_error": found.error, "calibration_error_se": found.standard_error}
    metrics |= means({"crps": scores["crps"]})
    metrics["z_variance"], metrics["z_variance_se"] = z_variance(scores["z"])
    protocol = {
        "intervals": "central, of p(x|z) with one posterior draw",
        "law": "of the 8-bit value, bins as for bits_per_dim; randomised PIT",
        "levels": len(found.nominal),
        "min_sigma": math.sqrt(MIN_VARIANCE),
        "images": len(scores["pit"]),
        "standard_error": "over images",
        "seed": context.run.seed,
    }
    curves = {
        "coverage": {"nominal": found.nominal, "observed": found.observed},
        "pit": found.density,
    }
    if "pit_density" in scores:
        curves["pit_density"] = histogram(scores["pit_density"])
    return Evaluated(metrics, {"calibration": protocol}, curves)


def pit_counts(drawn: PosteriorSample, generator: Generator) -> Tensor:
    """The fractions of an image's PIT values in each of `CELLS` cells, (B, CELLS), float64.

    The probability integral transform of a calibrated law is uniform; that of a discrete one, such
    as the law of an 8-bit value, once it is randomised (Czado et al. 2009). `generator` is on the
    CPU, whose numbers follow one another, so the size of a chunk changes none of them.
    """
    images = drawn.images
    uniform = torch.rand(images.shape, generator=generator, dtype=torch.float64)
    return cell_counts(pit(drawn.distribution, images, uniform.to(images.device)))


def density_counts(drawn: PosteriorSample) -> Tensor:
    """As `pit_counts`, of F(x) under a density: not uniform where many values are equal."""
    return cell_counts(cumulative(drawn.distribution, drawn.images))


def cell_counts(places: Tensor) -> Tensor:
    """The fractions of PIT values (B, ...) in each of `CELLS` cells, (B, CELLS), float64."""
    places = places.flatten(1)
    cells = (places * CELLS).long().clamp(0, CELLS - 1)
    counts = places.new_zeros(len(places), CELLS)
    return counts.scatter_add_(1, cells, torch.ones_like(places)) / places.shape[1]


def mean_crps(drawn: PosteriorSample) -> Tensor:
    """The CRPS of the 8-bit law, averaged over the image, (B,)."""
    scores = crps(drawn.distribution, drawn.images)
    return scores.mean(dim=tuple(range(1, scores.ndim)))


def z_moments(drawn: PosteriorSample) -> Tensor:
    """The means of z = (x-μ)/σ and of z² over each image, (B, 2), σ² at least `MIN_VARIANCE`.

    A discrete decoder may be certain of a value, with σ = 0; a clipped Gaussian never reaches the
    bound.
    """
    error = drawn.images.double() - drawn.mean.double()
    squares = error.square() / drawn.variance.double().clamp_min(MIN_VARIANCE)
    z, inner = squares.sqrt().copysign(error), tuple(range(1, error.ndim))
    return torch.stack([z.mean(dim=inner), squares.mean(dim=inner)], dim=1)


@dataclass(frozen=True)
class Calibration:
    """Coverage of the central intervals of p(x|z).

    `error` is the mean of |observed - nominal| over the levels; sampling noise alone makes it
    positive. `standard_error` is over images, since the values of one image are dependent, with the
    signs of the gaps held fixed. `density` is the PIT histogram, 1 everywhere if calibrated.
    """

    error: float
    standard_error: float
    nominal: list[float]
    observed: list[float]
    density: list[float]


def calibration(counts: Tensor) -> Calibration:
    """The calibration of all images from `pit_counts` of each, (N, CELLS).

    An interval of nominal coverage q holds the values whose PIT u has |2u - 1| <= q, for the 99
    levels q = 0.01, 0.02, … 0.99.
    """
    half = CELLS // 2
    inner = (counts[:, half:] + counts[:, :half].flip(1)).cumsum(1)[:, :-1]
    nominal = torch.arange(1, half, dtype=torch.float64) / half
    observed = inner.mean(0)
    gap = observed - nominal
    by_image = (inner * gap.sign()).mean(1)
    return Calibration(
        gap.abs().mean().item(),
        mean_and_error(by_image)[1],
        nominal.tolist(),
        observed.tolist(),
        histogram(counts),
    )


def histogram(counts: Tensor) -> list[float]:
    """The PIT histogram of all images from counts of each, (N, CELLS), as `BINS` densities."""
    densities: list[float] = (counts.mean(0).unflatten(0, (BINS, -1)).sum(1) * BINS).tolist()
    return densities


def z_variance(moments: Tensor) -> tuple[float, float]:
    """The variance of z over all values from `z_moments`, (N, 2), and its error over images."""
    mean, square = moments.mean(0)
    by_image = moments[:, 1] - 2 * mean * moments[:, 0]
    return (square - mean**2).item(), mean_and_error(by_image)[1]
