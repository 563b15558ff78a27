"""The continuous ranked probability score of 8-bit values under the distribution of any decoder."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, StudentT

from baselines.distributions import LEVELS, EightBit, to_level
from baselines.probabilities import base_of, cumulative, student_cdf

STEP = 1 / (LEVELS - 1)

NEAR = 4
"""Levels on each side of the location that are summed one by one."""

MIN_DF = 1.5
"""The integral of F² is a difference of terms that grow without bound as ν falls to 1."""

MAX_DF = 1e7
"""As good as normal, while a difference of log-gammas still has its digits."""


def crps(distribution: Distribution, images: Tensor) -> Tensor:
    """The CRPS ∫ (F(t) - 1{x ≤ t})² dt of every value x under its 8-bit law; 0 at best.

    The law is `log_mass`'s, on the values k/255, so the integral is Σ (F(k) - 1{x ≤ k/255})² / 255
    over k = 0 … 254. The score is proper: its expectation is lowest for the law that x comes from
    (Gneiting & Raftery 2007). For Gaussian and Student-t the sum over levels far from the location
    is an integral in closed form (Jordan, Krüger & Lerch 2019), within 1e-6.

    Arguments:
        distribution: as for `log_mass`, with what that raises.
        images: (..., C, H, W) in [0, 1] on the 8-bit grid.

    Returns:
        In units of the data's range, (..., C, H, W), float64.

    >>> from torch.distributions import Independent
    >>> black = torch.zeros(1, 1, 1)
    >>> crps(Independent(Normal(black, 1e-4), 3), black + 0.2)  # of a point at y it is |x - y|
    tensor([[[0.2000]]], dtype=torch.float64)
    """
    if isinstance(distribution, EightBit):
        return distribution.crps(images)
    base, level = base_of(distribution), to_level(images)
    if isinstance(base, Normal):
        return _location_scale(level.double(), base.loc, base.scale)
    if isinstance(base, StudentT) and bool((base.df >= MIN_DF).all()):
        return _location_scale(level.double(), base.loc, base.scale, base.df.clamp_max(MAX_DF))
    total = torch.zeros_like(level, dtype=torch.float64)
    for k in range(LEVELS - 1):
        edge = torch.full_like(total, (k + 0.5) * STEP)
        total = total + (cumulative(distribution, edge) - (level <= k).double()).square()
    return total * STEP


def _location_scale(level: Tensor, *parameters: Tensor) -> Tensor:
    level, *values = torch.broadcast_tensors(level, *(value.double() for value in parameters))
    laws = _Laws(*values)
    nearest = (laws.location / STEP).round()
    first, last = ((nearest + side).clamp(0, LEVELS - 1) for side in (-NEAR, NEAR))
    # A NaN among the parameters is in no sum below, and must not read as 0.
    total = 0 * (laws.location + laws.scale)
    for step in range(2 * NEAR):
        k = first + step
        some = k < last
        gap = laws.at(some).cdf((k[some] + 0.5) * STEP) - (level <= k)[some].double()
        total[some] += gap.square() * STEP
    # (1 - F)² above the value is F² below the mirrored value under the mirrored law.
    top = torch.full_like(level, LEVELS - 1)
    mirrored = replace(laws, location=1 - laws.location)
    for law, low, high, stop in (
        (laws, first, last, level),
        (mirrored, top - last, top - first, top - level),
    ):
        total += law.squares(torch.zeros_like(stop), torch.minimum(low, stop))
        total += law.squares(torch.minimum(high, stop), stop)
    return total


@dataclass(frozen=True)
class _Laws:
    """Gaussians, or Student-t where there is a `df`; all tensors of one shape, float64."""

    location: Tensor
    scale: Tensor
    df: Tensor | None = None

    def at(self, some: Tensor) -> "_Laws":
        return _Laws(
            self.location[some], self.scale[some], None if self.df is None else self.df[some]
        )

    def cdf(self, value: Tensor) -> Tensor:
        z = (value - self.location) / self.scale
        return torch.special.ndtr(z) if self.df is None else student_cdf(self.df, z)

    def squares(self, start: Tensor, stop: Tensor) -> Tensor:
        """The sum of F(k)² / 255 over levels start ≤ k < stop, none of them near the location."""
        some, total = start < stop, torch.zeros_like(start)
        part = self.at(some)
        total[some] = part._antiderivative(stop[some]) - part._antiderivative(start[some])
        return total

    def _antiderivative(self, level: Tensor) -> Tensor:
        """∫ F² up to a level, and what the sum over levels has more.

        F is taken half-way between levels, so the sum is the midpoint rule of the integral. Euler
        and Maclaurin's formula gives the difference, of which the first term will do where F is
        smooth: far from the location, or where the scale is many levels.
        """
        z = (level * STEP - self.location) / self.scale
        cdf, density, integral = _normal(z) if self.df is None else _student(z, self.df)
        return self.scale * integral - STEP**2 / 12 * cdf * density / self.scale


def _normal(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Φ, φ and ∫ Φ² of the standard normal."""
    cdf, density = torch.special.ndtr(z), (-z.square() / 2).exp() / math.sqrt(2 * math.pi)
    rest = torch.special.ndtr(math.sqrt(2) * z) / math.sqrt(math.pi)
    return cdf, density, z * cdf.square() + 2 * cdf * density - rest


def _student(z: Tensor, df: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """F, f and ∫ F² of the standard Student-t.

    (ν + z²) f has the derivative -(ν-1) z f, and (ν + z²) f² is a Student-t density of 2ν-1
    degrees of freedom but for a factor.
    """
    constant, square = _normaliser(df), df + z.square()
    cdf, density = student_cdf(df, z), constant * (1 + z.square() / df).pow(-(df + 1) / 2)
    more = 2 * df - 1
    factor = constant.square() * df * (df / more).sqrt() / _normaliser(more)
    rest = factor * student_cdf(more, z * (more / df).sqrt())
    return cdf, density, z * cdf.square() + 2 / (df - 1) * (cdf * density * square - rest)


def _normaliser(df: Tensor) -> Tensor:
    return (((df + 1) / 2).lgamma() - (df / 2).lgamma()).exp() / (df * math.pi).sqrt()
