"""Distances of samples at other temperatures, where the best temperature is known."""

import pytest
import torch

from bench.data import Dataset
from bench.data.dataset import Description
from bench.evaluation import sample_quality
from bench.evaluation.context import Evaluated, EvaluationContext
from bench.evaluation.scorer import Scorer
from tests.bench.evaluation.halves import (
    SIDE,
    distance_run,
    eight_bits,
    extractor,
    halves,
    linear_vae,
)

COUNT = 4000
REAL, MADE = 0.07, 0.1
"""The spread of the halves' brightness, of real images and of samples at temperature 1."""


def measured(**evaluation: object) -> Evaluated:
    rng = torch.Generator().manual_seed(0)
    images = eight_bits(halves(0.5 + REAL * torch.randn(COUNT, 2, generator=rng)))
    made = Description("made", "0" * 64, 1, SIDE, *3 * (COUNT,))
    dataset = Dataset(made, images, images, images)
    scorer = Scorer(linear_vae(MADE), {}, torch.float32)
    context = EvaluationContext(
        distance_run(COUNT, made.content, **evaluation), scorer, dataset, extractor()
    )
    return sample_quality.summarise(context, {})


def test_the_distance_is_that_of_the_narrowed_gaussian_and_vanishes_at_the_true_spread() -> None:
    """2 (t · MADE - REAL)², for Gaussians of equal means and independent halves."""
    metrics, protocol, _ = measured(temperatures=(0.4, 0.7, 2.0))
    for t, name in ((0.4, "_t0.4"), (1.0, ""), (2.0, "_t2")):
        expected = 2 * (t * MADE - REAL) ** 2
        assert metrics[f"fd_halves{name}"] == pytest.approx(expected, rel=0.2)
    assert metrics["fd_halves_t0.7"] < 0.03 * metrics["fd_halves"]
    assert protocol["distance"]["temperatures"] == [0.4, 0.7, 2.0]
    assert "times t" in protocol["distance"]["tempered_are"]


def test_without_any_all_other_numbers_and_the_protocol_are_as_they_were() -> None:
    warm, plain = measured(temperatures=(0.7,)), measured()
    assert plain.metrics == {k: v for k, v in warm.metrics.items() if k != "fd_halves_t0.7"}
    own = {"temperatures", "tempered_are"}
    section = warm.protocol["distance"]
    assert plain.protocol["distance"] == {k: v for k, v in section.items() if k not in own}
    assert own <= section.keys()
