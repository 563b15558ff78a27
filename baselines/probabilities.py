"""Probabilities of single values under the distribution of any decoder."""

import math
from functools import cache

import numpy as np
import torch
from numpy.polynomial.chebyshev import chebpts1
from numpy.polynomial.polynomial import polyvander2d
from scipy.special import ndtri, stdtr
from torch import Tensor
from torch.distributions import Distribution, Independent, Laplace, Normal, StudentT

from baselines.continuous_bernoulli import ContinuousBernoulli
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
        Nats, (..., C, H, W), float64. Accurate in the tails for Gaussian, Student-t, Laplace and
        continuous Bernoulli. A mass too small for a difference of two cdfs is density times width:
        in a law 10¹² times as wide as a bin, and of another base in its tails.

    Raises:
        TypeError: for a distribution of neither kind.
        NotImplementedError: for a base without a `cdf`.

    >>> base = Normal(torch.zeros(1, 1, 1), torch.full((1, 1, 1), 1e-4))
    >>> log_mass(Independent(base, 3), torch.zeros(1, 1, 1)).exp()  # all in the bin of level 0
    tensor([[[1.]]], dtype=torch.float64)
    """
    if isinstance(distribution, EightBit):
        return distribution.log_mass(images)
    base, level = base_of(distribution), to_level(images)
    if isinstance(base, ContinuousBernoulli):
        return base.log_interval(*(_edge(level + step).clamp(0, 1) for step in (0, 1)))
    if isinstance(base, Normal | StudentT | Laplace):
        lower, upper = (_standardised(base, _edge(level + step)) for step in (0, 1))
        # The families are symmetric: the lower tail is where a cdf keeps its digits.
        mirror = lower + upper > 0
        lower, upper = torch.where(mirror, -upper, lower), torch.where(mirror, -lower, upper)
        below, up_to = _log_cdf(base, lower), _log_cdf(base, upper)
        mass = up_to + log1mexp(up_to - below)
        fine = (up_to > -math.inf) & (upper - lower > COARSE)
    else:
        below, up_to = (_cdf(base, _edge(level + step)) for step in (0, 1))
        mass = (up_to - below).log()
        fine = up_to - below > COARSE
    density = base.log_prob(level.double() / (LEVELS - 1))
    return torch.where(fine, mass, density - math.log(LEVELS - 1))


def pit(distribution: Distribution, images: Tensor, uniform: Tensor) -> Tensor:
    """The randomised probability integral transform of every 8-bit value.

    F(lower edge) + uniform · P(bin), with the bins of `log_mass`: uniform on [0, 1] where the
    8-bit law of p(x|z) is right (Czado, Gneiting & Held 2009).

    Arguments:
        distribution: as for `log_mass`, with what that raises.
        images: (..., C, H, W) in [0, 1] on the 8-bit grid.
        uniform: (..., C, H, W) in [0, 1).

    Returns:
        (..., C, H, W), float64.

    >>> black = torch.zeros(1, 1, 1)
    >>> law = Independent(Normal(black, black + 1), 3)  # half of it in the bin of level 0
    >>> pit(law, black, black + 0.5)
    tensor([[[0.2504]]], dtype=torch.float64)
    """
    if isinstance(distribution, EightBit):
        return distribution.pit(images, uniform)
    base, level = base_of(distribution), to_level(images)
    below, up_to = (_cdf(base, _edge(level + step)) for step in (0, 1))
    return below + uniform.double() * (up_to - below)


def cumulative(distribution: Distribution, values: Tensor) -> Tensor:
    """F of every value under a continuous distribution.

    Arguments:
        distribution: an `Independent` over a base with a `cdf`, of images (..., C, H, W).
        values: what broadcasts with (..., C, H, W).

    Returns:
        (..., C, H, W), float64.

    Raises:
        TypeError: for another distribution, an `EightBit` among them.
        NotImplementedError: for a base without a `cdf`.

    >>> value = torch.full((1, 1, 1), 0.5)
    >>> cumulative(Independent(Normal(value, value), 3), value)  # at the median
    tensor([[[0.5000]]], dtype=torch.float64)
    """
    return _cdf(base_of(distribution), values.double()).double()


def base_of(distribution: Distribution) -> Distribution:
    """The distribution of single values that an `Independent` is made of; TypeError for others.

    >>> base_of(Independent(Normal(torch.zeros(1, 2, 2), 1.0), 3)).batch_shape
    torch.Size([1, 2, 2])
    """
    if not isinstance(distribution, Independent):
        raise TypeError(
            f"{type(distribution).__name__} is neither Independent(base, 3) nor an EightBit: "
            "its values have no probabilities of their own"
        )
    base: Distribution = distribution.base_dist
    return base_of(base) if isinstance(base, Independent) else base


def _edge(level: Tensor) -> Tensor:
    """The lower edge of the bin of a level in 0, 1, … 256, float64; 256 is the upper end."""
    edge: Tensor = (level.double() - 0.5) / (LEVELS - 1)
    return edge.masked_fill(level == 0, -math.inf).masked_fill(level == LEVELS, math.inf)


def _standardised(base: Normal | StudentT | Laplace, value: Tensor) -> Tensor:
    standardised: Tensor = (value - base.loc) / base.scale
    return standardised


def _cdf(base: Distribution, value: Tensor) -> Tensor:
    if isinstance(base, Normal):
        return normal_cdf(_standardised(base, value))
    if isinstance(base, StudentT):
        return student_cdf(base.df, _standardised(base, value))
    if isinstance(base, Laplace):
        return laplace_cdf(_standardised(base, value))
    # A base may live on [0, 1] alone, and is not asked at the open ends.
    inner = base.cdf(value.masked_fill(value.isinf(), 0.5)).clamp(0, 1)
    return torch.where(value.isinf(), (value > 0).double(), inner)


def normal_cdf(value: Tensor) -> Tensor:
    """Φ of standard normal values, with its digits in the lower tail.

    >>> normal_cdf(torch.tensor([-20.0, 0.0], dtype=torch.float64))
    tensor([2.7536e-89, 5.0000e-01], dtype=torch.float64)
    """
    # torch.special.ndtr is ½ + ½ erf, and 0 below -8.
    return torch.erfc(value * -math.sqrt(0.5)) * 0.5


def laplace_cdf(value: Tensor) -> Tensor:
    """F of standard Laplace values, with its digits in the lower tail.

    >>> laplace_cdf(torch.tensor([-100.0, 0.0], dtype=torch.float64))
    tensor([1.8600e-44, 5.0000e-01], dtype=torch.float64)
    """
    tail = value.abs().neg().exp() * 0.5
    return torch.where(value < 0, tail, 1 - tail)


def student_cdf(df: Tensor, value: Tensor) -> Tensor:
    """F of standard Student-t values, float64.

    >>> student_cdf(torch.tensor(1.0), torch.tensor(1.0))  # Cauchy's upper quartile
    tensor(0.7500, dtype=torch.float64)
    """
    # torch has no incomplete beta function, so this one is SciPy's, on the CPU.
    df, value = torch.broadcast_tensors(df.double(), value.double())
    return torch.as_tensor(stdtr(df.cpu().numpy(), value.cpu().numpy()), device=value.device)


class StudentCdf:
    """F of Student-t laws of 2 or more degrees of freedom, within 1e-6 and without SciPy.

    F = Φ(±√w c), w = ν ln(1 + z²/ν), with a factor c that is smooth in w and in 1/ν: 1 for the
    normal law and near (8ν + 1)/(8ν + 3) at the median (Wallace 1959). c is a polynomial, fitted
    once. It takes 20 times less time than `student_cdf` on a CPU, and stays on a GPU.

    Arguments:
        df: (...), at least `FEWEST_DF`.

    >>> StudentCdf(torch.tensor(3.0))(torch.tensor([-2.0, 0.0]))  # SciPy's: 0.069663, ½
    tensor([0.0697, 0.5000])
    """

    FEWEST_DF = 2.0

    def __init__(self, df: Tensor) -> None:
        self.df = df
        rows = torch.from_numpy(_wallace()).to(df)
        powers = torch.stack([df.reciprocal() ** power for power in range(rows.shape[1])])
        self.terms = torch.tensordot(rows, powers, dims=1).unbind()

    def __call__(self, value: Tensor) -> Tensor:
        """F of standardised values, in their precision."""
        w = (value.square() / self.df).log1p_().mul_(self.df).clamp_max_(_FARTHEST)
        factor = self.terms[-1]
        for term in self.terms[-2::-1]:
            factor = torch.addcmul(term, factor, w)
        return normal_cdf(w.sqrt_().mul_(factor).copysign_(value))


_FARTHEST = 32.0
"""Of w: F there is below 1e-7."""


@cache
def _wallace() -> np.ndarray:
    """The coefficients of c, (powers of w, powers of 1/ν), float64."""
    degrees, nodes = (8, 7), 64
    places = (chebpts1(nodes) + 1) / 2
    w, v = (axis.ravel() for axis in np.meshgrid(_FARTHEST * places, places / 2, indexing="ij"))
    df = 1 / v
    below = stdtr(df, -np.sqrt(df * np.expm1(w / df)))
    # An error of c matters by the density of the normal law there.
    weight = np.sqrt(w) * np.exp(-0.4 * w) + 1e-4
    basis = polyvander2d(w / _FARTHEST, v, degrees)
    wanted = -ndtri(below) / np.sqrt(w)
    fitted = np.linalg.lstsq(basis * weight[:, None], wanted * weight, rcond=None)[0]
    powers = np.arange(degrees[0] + 1)
    rows: np.ndarray = fitted.reshape(len(powers), -1) / _FARTHEST ** powers[:, None]
    return rows


def _log_cdf(base: Normal | StudentT | Laplace, value: Tensor) -> Tensor:
    if isinstance(base, Normal):
        result: Tensor = torch.special.log_ndtr(value)
        return result
    if isinstance(base, Laplace):
        upper = torch.log1p(-value.abs().neg().exp() * 0.5)
        return torch.where(value < 0, value - math.log(2), upper)
    return student_cdf(base.df, value).log()


def log1mexp(value: Tensor) -> Tensor:
    """ln(1 - e^-value) for value ≥ 0 (Mächler 2012), its gradient finite for value > 0.

    >>> log1mexp(torch.tensor([1e-8, 50.0]))
    tensor([-1.8421e+01, -1.9287e-22])
    """
    small = value < math.log(2)
    # Where it is not chosen, the second has no gradient of 1/0.
    large = torch.log1p(-(-value.clamp_min(0.5)).exp())
    return torch.where(small, (-torch.expm1(-value)).log(), large)
