"""The mixture of 8-bit laws against their mass tables, one law's own scores and closed forms."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Cauchy, Distribution, Independent, Laplace, Normal, StudentT

from baselines.crps import crps
from baselines.distributions import Bitwise, Categorical, LogisticMixture, PreciseStudentT
from baselines.law_mixture import LawMixture
from baselines.probabilities import StudentCdf, log_mass, pit, student_cdf

LEVELS = torch.arange(256, dtype=torch.float64).view(1, 1, 16, 16) / 255
"""One image of every level."""
LAWS, SIDE = 3, 16

Family = Callable[[Tensor], Distribution]


def family(base: Callable[..., Distribution], *ranges: tuple[float, float]) -> Family:
    """Laws of images whose parameters are spread over ranges by numbers in [0, 1]."""

    def of(numbers: Tensor) -> Distribution:
        turned = (numbers.roll(shift, -1) for shift in range(len(ranges)))
        parameters = [low + (high - low) * u for (low, high), u in zip(ranges, turned, strict=True)]
        return Independent(base(*parameters), 3)

    return of


def bits(kind: Callable[[Tensor], Distribution], size: int) -> Family:
    def of(numbers: Tensor) -> Distribution:
        return kind(torch.stack([6 * numbers.roll(shift, -1) - 3 for shift in range(size)], -1))

    return of


PLACE = (-0.1, 1.1)
FAMILIES: dict[str, Family] = {
    "normal": family(Normal, PLACE, (0.002, 0.3)),
    "student": family(lambda df, *rest: StudentT(df, *rest), (2.0, 30.0), PLACE, (0.003, 0.3)),
    "precise student": family(PreciseStudentT, (2.1, 9.0), PLACE, (0.003, 0.3)),
    "heavy student": family(lambda df, *rest: StudentT(df, *rest), (1.1, 3.0), PLACE, (0.01, 0.3)),
    "cauchy": family(Cauchy, PLACE, (0.01, 0.3)),
    "laplace": family(Laplace, PLACE, (0.01, 0.3)),
    "categorical": bits(Categorical, 256),
    "bitwise": bits(Bitwise, 8),
    "logistic mixture": bits(LogisticMixture, 9),
}
every_family = pytest.mark.parametrize("of", FAMILIES.values(), ids=FAMILIES.keys())


def numbers(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(len(shape)))


def table(laws: list[Distribution]) -> np.ndarray:
    """P of every level of the mixture's values, (values, 256)."""
    levels = torch.arange(256.0).view(256, 1, 1, 1).expand(-1, 1, SIDE, SIDE) / 255
    mass = [torch.stack([log_mass(law, level[None]) for level in levels]).exp() for law in laws]
    rows: np.ndarray = torch.stack(mass).mean(0).flatten(1).T.numpy()
    return rows


@every_family
def test_crps_and_pit_are_those_of_the_mixtures_masses(of: Family) -> None:
    """E|X - x| - ½ E|X - X'|, and F(x - 1) + u P(x), X from the mixture's mass table."""
    laws = [of(numbers(1, 1, SIDE, SIDE) * (k + 1) / LAWS) for k in range(LAWS)]
    mixture = LawMixture()
    for law in laws:
        mixture.add(law)
    p, values = table(laws), np.arange(256) / 255
    gaps = np.abs(values[:, None] - values)
    expected = np.diagonal(p @ gaps) - 0.5 * ((p @ gaps) * p).sum(1)
    found = mixture.crps(LEVELS)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.flatten().numpy(), expected, atol=2e-6)
    u = numbers(1, 1, SIDE, SIDE)
    own = np.diagonal(p)
    below = np.diagonal(p.cumsum(1)) - own
    expected = below + u.double().flatten().numpy() * own
    np.testing.assert_allclose(mixture.pit(LEVELS, u).flatten().numpy(), expected, atol=2e-6)
    mean = torch.stack([pit(law, LEVELS, u) for law in laws]).mean(0)
    np.testing.assert_allclose(mixture.pit(LEVELS, u).numpy(), mean.numpy(), atol=2e-6)


@every_family
def test_a_mixture_of_one_is_that_law(of: Family) -> None:
    law, u = of(numbers(1, 1, SIDE, SIDE)), numbers(1, 1, SIDE, SIDE)
    mixture = LawMixture()
    mixture.add(law)
    torch.testing.assert_close(mixture.crps(LEVELS), crps(law, LEVELS), rtol=0, atol=2e-6)
    torch.testing.assert_close(mixture.pit(LEVELS, u), pit(law, LEVELS, u), rtol=0, atol=2e-6)


@every_family
def test_how_many_laws_are_added_together_moves_no_bit(of: Family) -> None:
    many = numbers(4 * 2, 3, 1, 4, 4)  # four laws of two videos of three frames
    images = numbers(2, 3, 1, 4, 4).mul(255).round() / 255
    together, apart = LawMixture(), LawMixture()
    together.add(of(many), laws=4)
    for two in many.split(2):
        apart.add(of(two))
    assert torch.equal(together.crps(images), apart.crps(images))
    uniform = numbers(2, 3, 1, 4, 4)
    assert torch.equal(together.pit(images, uniform), apart.pit(images, uniform))


def test_narrow_laws_are_scored_as_the_points_that_they_are() -> None:
    """Of n points the score is mean |x - a| less half the mean of |a - b|, over all pairs."""
    points = torch.tensor([0.1, 0.15, 0.8, 1.0]).mul(255).round() / 255
    mixture = LawMixture()
    for place in points:
        mixture.add(Independent(Normal(place.expand(1, 1, 1, 1), 1e-5), 3))
    found = [mixture.crps(torch.full((1, 1, 1, 1), x)).item() for x in points.tolist()]
    gaps = (points[:, None] - points).abs()
    np.testing.assert_allclose(found, (gaps.mean(1) - gaps.mean() / 2).tolist(), atol=1e-6)


def test_a_mixture_of_nothing_says_so() -> None:
    with pytest.raises(ValueError, match="add"):
        LawMixture().crps(LEVELS)


def test_a_law_without_single_values_is_a_type_error() -> None:
    class Whole(Normal):
        pass

    with pytest.raises(TypeError, match="neither"):
        LawMixture().add(Whole(torch.zeros(1, 1, 4, 4), 1.0))


def test_a_broken_law_has_no_score() -> None:
    broken = Normal(torch.full((1, 1, 1, 1), torch.nan), 1.0, validate_args=False)
    mixture = LawMixture()
    mixture.add(Independent(broken, 3, validate_args=False))
    assert mixture.crps(torch.zeros(1, 1, 1, 1)).isnan().all()


@given(st.floats(2.0, 1e8), st.floats(-1e3, 1e3))
@settings(max_examples=300)
def test_the_fast_student_t_is_scipys(df: float, value: float) -> None:
    df_of, at = (torch.tensor([number], dtype=torch.float64) for number in (df, value))
    expected = student_cdf(df_of, at).item()
    assert StudentCdf(df_of)(at).item() == pytest.approx(expected, abs=1e-7)
    in_float32 = StudentCdf(df_of.float())(at.float()).item()
    rounded = student_cdf(df_of.float(), at.float()).item()
    assert in_float32 == pytest.approx(rounded, abs=3e-7)
