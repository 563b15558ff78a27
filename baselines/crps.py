"""The continuous ranked probability score of 8-bit values under the distribution of any decoder."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Laplace, Normal, StudentT

from baselines.distributions import LEVELS, EightBit, to_level
from baselines.probabilities import base_of, cumulative, laplace_cdf, normal_cdf, student_cdf

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
    is an integral in closed form (Jordan, Krüger & Lerch 2019), within 1e-6; for Laplace it is a
    geometric series.

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
        return _location_scale(_Normal, level, base.loc, base.scale)
    if isinstance(base, Laplace):
        return _location_scale(_Laplace, level, base.loc, base.scale)
    if isinstance(base, StudentT) and bool((base.df >= MIN_DF).all()):
        return _location_scale(_Student, level, base.loc, base.scale, base.df.clamp_max(MAX_DF))
    total: Tensor = torch.zeros_like(level, dtype=torch.float64)
    for k, edge in enumerate((torch.arange(LEVELS - 1, device=level.device) + 0.5) * STEP):
        up_to = cumulative(distribution, edge)
        total += STEP * torch.where(level <= k, 1 - up_to, up_to).square()
    return total


def _location_scale(kind: "type[_Normal]", *values: Tensor) -> Tensor:
    level, location, *rest = torch.broadcast_tensors(*(value.double() for value in values))
    family, scale = kind(*rest), rest[0]
    nearest = (location / STEP).round()
    first, last = ((nearest + side).clamp(0, LEVELS - 1) for side in (-NEAR, NEAR))
    # No sum below has a NaN of the parameters, which must not read as a score.
    total: Tensor = 0 * (location + scale)
    for step in range(2 * NEAR):
        k = first + step
        z = _where(k < last, ((k + 0.5) * STEP - location) / scale)
        gap = family.cdf(z) - (level <= k).double()
        total += gap.square().mul(STEP).masked_fill(k >= last, 0)
    # (1 - F)² above the value is F² of the mirrored law below the mirrored value.
    top, bottom = torch.full_like(level, LEVELS - 1), torch.zeros_like(level)
    for centre, low, high, stop in (
        (location, first, last, level),
        (1 - location, top - last, top - first, top - level),
    ):
        for start, end in ((bottom, torch.minimum(low, stop)), (torch.minimum(high, stop), stop)):
            needed = start < end
            z_start, z_end = (
                _where(needed, (edge * STEP - centre) / scale) for edge in (start, end)
            )
            total += family.squares(z_end) - family.squares(z_start)
    return total


def _where(needed: Tensor, z: Tensor) -> Tensor:
    """z, and 0 where nobody asks: there SciPy's Student-t, most of the time, costs nothing."""
    return z.masked_fill(~needed, 0)


class _Normal:
    """Normal laws of some scales (...), float64."""

    def __init__(self, scale: Tensor) -> None:
        self.scale = scale

    def cdf(self, z: Tensor) -> Tensor:
        """F of standardised values."""
        return normal_cdf(z)

    def squares(self, z: Tensor) -> Tensor:
        """The sum of F(k)² / 255 over the levels k below a standardised edge z, but for a constant.

        F is taken half-way between edges, so the sum is the midpoint rule of ∫ F². Euler and
        Maclaurin's formula gives the difference, of which the first term will do where F is
        smooth: far from the location, or where the scale is many levels.
        """
        cdf, density, integral = self._parts(z)
        total: Tensor = self.scale * integral - STEP**2 / 12 * cdf * density / self.scale
        return total

    def _parts(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """F, F' and ∫ F² of standardised values."""
        cdf, density = normal_cdf(z), (-z.square() / 2).exp() / math.sqrt(2 * math.pi)
        rest = normal_cdf(math.sqrt(2) * z) / math.sqrt(math.pi)
        return cdf, density, z * cdf.square() + 2 * cdf * density - rest


class _Laplace(_Normal):
    """Laplace laws, whose F² on each side of the location is a sum of exponentials."""

    def cdf(self, z: Tensor) -> Tensor:
        return laplace_cdf(z)

    def squares(self, z: Tensor) -> Tensor:
        """Exact between edges on one side of the location.

        A level's F is taken half a step h below its upper edge, so Σ exp(-2h(j - ½)) over j ≥ 1,
        which is 1/(2 sinh h), sums ¼ exp(2z) below the location; above it F² has three such terms.
        """
        h, tail = STEP / self.scale, z.abs().neg().exp()
        once, twice = tail / (2 * (h / 2).sinh()), tail.square() / (8 * h.sinh())
        total: Tensor = STEP * torch.where(z < 0, twice, z / h + once - twice)
        return total


class _Student(_Normal):
    """Student-t laws.

    (ν + z²) f has the derivative -(ν-1) z f, and (ν + z²) f² is a Student-t density of 2ν-1
    degrees of freedom but for a factor.
    """

    def __init__(self, scale: Tensor, df: Tensor) -> None:
        super().__init__(scale)
        self.df, self.more = df, 2 * df - 1
        self.constant = _normaliser(df)
        self.factor = self.constant.square() * df * (df / self.more).sqrt() / _normaliser(self.more)

    def cdf(self, z: Tensor) -> Tensor:
        return student_cdf(self.df, z)

    def _parts(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cdf, square = self.cdf(z), z.square()
        density = self.constant * (-(self.df + 1) / 2 * torch.log1p(square / self.df)).exp()
        rest = self.factor * student_cdf(self.more, z * (self.more / self.df).sqrt())
        inner = cdf * density * (self.df + square) - rest
        return cdf, density, z * cdf.square() + 2 / (self.df - 1) * inner


def _normaliser(df: Tensor) -> Tensor:
    """What (1 + z²/ν)^(-(ν+1)/2) is multiplied by to be a density."""
    constant: Tensor = (((df + 1) / 2).lgamma() - (df / 2).lgamma()).exp() / (df * math.pi).sqrt()
    return constant
