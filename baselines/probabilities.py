"""Probabilities of single 8-bit values under the distribution of any decoder."""

import math

import torch
from scipy.special import stdtr
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, StudentT

from baselines.distributions import LEVELS, EightBit, to_level

COARSE = 1e-12
"""A difference of two numbers next to 1 that is smaller has lost its digits."""


def log_mass(distribution: Distribution, images: Tensor) -> Tensor:
    """ln P of the 8-bit bin [(k-½)/255, (k+½)/255] of every value, the end bins open.

    Arguments:
        distribution: of images (..., C, H, W): an `EightBit`, whose own probability it is, or an
            `Independent` over a base with a `cdf`.
        images: (..., C, H, W) in [0, 1] on the 8-bit grid.

    Returns:
        Nats, (..., C, H, W), float64. Accurate in the tails for Gaussian and Student-t; for
        another base a mass too small for a difference of two cdfs is density times width.

    Raises:
        TypeError: for a distribution of neither kind.
        NotImplementedError: for a base without a `cdf`.

    >>> base = Normal(torch.zeros(1, 1, 1), torch.full((1, 1, 1), 1e-4))
    >>> log_mass(Independent(base, 3), torch.zeros(1, 1, 1)).exp()  # all in the bin of level 0
    tensor([[[1.]]], dtype=torch.float64)
    """
    if isinstance(distribution, EightBit):
        return distribution.log_mass(images)
    base, level = _base(distribution), to_level(images).double()
    first, last = level == 0, level == LEVELS - 1
    lower, upper = (level - 0.5) / (LEVELS - 1), (level + 0.5) / (LEVELS - 1)
    if isinstance(base, Normal | StudentT):
        lower = _standardised(base, lower.masked_fill(first, -math.inf))
        upper = _standardised(base, upper.masked_fill(last, math.inf))
        # Both families are symmetric: the lower tail is where a cdf keeps its digits.
        mirror = lower + upper > 0
        lower, upper = torch.where(mirror, -upper, lower), torch.where(mirror, -lower, upper)
        below, up_to = _log_cdf(base, lower), _log_cdf(base, upper)
        mass = up_to + _log1mexp(up_to - below)
        fine = up_to > -math.inf
    else:
        # A base may live on [0, 1] alone: it is asked at inner edges only.
        below = base.cdf(lower.masked_fill(first, 0.5)).masked_fill(first, 0.0)
        up_to = base.cdf(upper.masked_fill(last, 0.5)).masked_fill(last, 1.0)
        mass = (up_to - below).log()
        fine = up_to - below > COARSE
    density = base.log_prob(level / (LEVELS - 1))
    return torch.where(fine, mass, density - math.log(LEVELS - 1))


def pit(distribution: Distribution, images: Tensor, uniform: Tensor) -> Tensor:
    """The probability integral transform of every value: uniform on [0, 1] where p(x|z) is right.

    F(x) of a continuous distribution; of an `EightBit` the randomised F(k-1) + uniform · P(k)
    (Czado, Gneiting & Held 2009).

    Arguments:
        distribution: as for `log_mass`, with what that raises.
        images: (..., C, H, W) in [0, 1].
        uniform: (..., C, H, W) in [0, 1).

    Returns:
        (..., C, H, W), float64.

    >>> value = torch.full((1, 1, 1), 0.5)
    >>> pit(Independent(Normal(value, value), 3), value, torch.rand(1, 1, 1))  # at the median
    tensor([[[0.5000]]], dtype=torch.float64)
    """
    if isinstance(distribution, EightBit):
        return distribution.pit(images, uniform)
    base, images = _base(distribution), images.double()
    if isinstance(base, Normal | StudentT):
        return _log_cdf(base, _standardised(base, images)).exp()
    return base.cdf(images).clamp(0, 1)


def _base(distribution: Distribution) -> Distribution:
    if not isinstance(distribution, Independent):
        raise TypeError(
            f"{type(distribution).__name__} is neither Independent(base, 3) nor an EightBit: "
            "its values have no probabilities of their own"
        )
    base: Distribution = distribution.base_dist
    return _base(base) if isinstance(base, Independent) else base


def _standardised(base: Normal | StudentT, value: Tensor) -> Tensor:
    standardised: Tensor = (value - base.loc) / base.scale
    return standardised


def _log_cdf(base: Normal | StudentT, value: Tensor) -> Tensor:
    if isinstance(base, Normal):
        result: Tensor = torch.special.log_ndtr(value)
        return result
    # torch has no incomplete beta function, so this one is SciPy's, on the CPU.
    df = base.df.double().expand_as(value)
    probability = stdtr(df.cpu().numpy(), value.cpu().numpy())
    return torch.from_numpy(probability).to(value.device).log()


def _log1mexp(value: Tensor) -> Tensor:
    """ln(1 - e^-value) for value ≥ 0 (Mächler 2012)."""
    small = value < math.log(2)
    return torch.where(small, (-torch.expm1(-value)).log(), torch.log1p(-(-value).exp()))
