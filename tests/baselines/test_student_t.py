"""The Student-t decoder against the Gaussian that it becomes, and torch's own moments."""

import pytest
import torch
from torch.distributions import StudentT

from baselines.decoders.gaussian import PerPixelGaussian
from baselines.decoders.student_t import StudentTDecoder
from baselines.distributions import PreciseStudentT
from baselines.options import Link


@pytest.mark.parametrize("link", ["sigmoid", "identity"])
def test_many_degrees_of_freedom_are_the_per_pixel_gaussian(link: Link) -> None:
    torch.manual_seed(0)
    output, images = torch.randn(4, 6, 5, 5), torch.rand(4, 3, 5, 5)
    freedom = torch.full((4, 3, 5, 5), 1e8)
    student = StudentTDecoder(link=link, min_log_scale=None)
    gaussian = PerPixelGaussian(link=link, min_log_sigma=None)
    one = student(torch.cat([output, freedom], dim=1), {})
    other = gaussian(output, {})
    # Two formulas, each a float32 sum of 75 values: 1e-7 · 75 at worst.
    torch.testing.assert_close(one.log_prob(images), other.log_prob(images), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one.mean, other.mean)
    torch.testing.assert_close(one.variance, other.variance)


def test_density_and_moments_are_torchs() -> None:
    """In float64, where torch's own have their digits."""
    torch.manual_seed(0)
    df, scale = 0.5 + torch.rand(50).double() * 50, torch.rand(50).double()
    ours, theirs = (family(df, scale, scale) for family in (PreciseStudentT, StudentT))
    values = torch.randn(20, 50).double()
    torch.testing.assert_close(ours.log_prob(values), theirs.log_prob(values))
    at = df > 1
    torch.testing.assert_close(ours.variance[at], theirs.variance[at])


def test_variance_is_finite_for_every_output() -> None:
    """s² ν/(ν-2) with ν above 2.1 is at most 21 s², however the network tries."""
    decoder = StudentTDecoder(min_log_scale=None)
    output = torch.zeros(2, 3, 4, 4)
    output[:, 2] = -1e4
    distribution = decoder(output, {})
    torch.testing.assert_close(distribution.variance, torch.full((2, 1, 4, 4), 21.0))
    torch.testing.assert_close(decoder.sigma(distribution), torch.tensor(21.0).sqrt())
