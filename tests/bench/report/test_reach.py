"""Which runs' mutual information is known, from their bounds and from codes that are known."""

import math

import pandas as pd
import pytest
import torch

from bench.evaluation.information import information
from bench.report.reach import CEILING, least_upper, within_reach

METRICS = "metrics.mutual_information", "metrics.mutual_information_upper", "metrics.rate"
UNKNOWN = math.nan


def runs(*rows: tuple[float, float, float], images: int = 1000) -> pd.DataFrame:
    """Records with a lower bound, an upper bound and a rate."""
    return pd.DataFrame(rows, columns=list(METRICS)).assign(**{CEILING: math.log(images)})


@pytest.mark.parametrize(
    ("nats", "known"), [(1.0, True), (2.0, True), (4.0, True), (12.04, False), (39.12, False)]
)
def test_codes_onto_the_prior_are_known_up_to_four_nats(nats: float, known: bool) -> None:
    """1,000 images, 20 latents: I(x; z) is the rate, and a larger one does not make it known."""
    rng = torch.Generator().manual_seed(0)
    variance = math.exp(-nats / 10)
    mean = math.sqrt(1 - variance) * torch.randn(1000, 20, generator=rng)
    noise = torch.randn(1000, 20, generator=rng)
    bounds = information(mean, torch.full_like(mean, math.log(variance)), noise)
    lower, upper = (bound.mean().item() for bound in bounds)
    assert within_reach(runs((lower, upper, 100.0))).tolist() == [known]


def test_either_upper_bound_may_close_on_the_lower() -> None:
    table = runs((3.0, 3.4, 50.0), (3.0, 900.0, 3.4), (3.0, 3.6, 50.0), (6.9, 900.0, 7.3))
    assert within_reach(table).tolist() == [True, True, False, True]
    assert least_upper(table).tolist() == [3.4, 3.4, 3.6, 7.3]


def test_a_record_without_an_upper_bound_is_known_two_nats_below_ln_n() -> None:
    rows = [(3.0, UNKNOWN, 50.0), (5.0, UNKNOWN, 50.0), (6.9, UNKNOWN, 50.0)]
    assert within_reach(runs(*rows)).tolist() == [True, False, False]
    assert within_reach(runs(*rows, images=10_000)).tolist() == [True, True, True]
    older = runs(*rows).drop(columns=METRICS[1])
    assert within_reach(older).tolist() == [True, False, False]
    assert within_reach(older.drop(columns=CEILING)).tolist() == [False] * 3


def test_half_of_the_images_far_apart_are_not_taken_for_known() -> None:
    """Half carry nothing, half without limit: the estimate, ½ ln 2N, is far below ln N - 2."""
    mean = torch.zeros(1000, 1)
    mean[500:, 0] = 1e4 * torch.arange(1.0, 501.0)
    bounds = information(mean, torch.zeros(1000, 1), torch.zeros(1000, 1))
    lower, upper = (bound.mean().item() for bound in bounds)
    assert lower < math.log(1000) - 2
    assert within_reach(runs((lower, upper, 1e9))).tolist() == [False]
