"""Other data told by bits per dimension: rank statistics, and images whose bits are known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, norm
from torch import Tensor, nn

from baselines.build import build_decoder, build_model
from baselines.options import DecoderSpec
from baselines.vae import Vae
from bench.data import Dataset
from bench.data.dataset import Description
from bench.evaluation.context import Evaluated
from bench.evaluation.evaluate import evaluate
from bench.evaluation.out_of_distribution import auroc
from bench.run import Evaluation, Run, Training
from bench.training.checkpoint import Trained
from tests.specs import decoder_spec, model_spec

SIDE, COUNT = 6, 150


@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=30),
    st.lists(st.integers(0, 6), min_size=2, max_size=30),
)
def test_it_is_the_mann_whitney_statistic_over_all_pairs(
    inner: list[int], outer: list[int]
) -> None:
    expected = mannwhitneyu(outer, inner).statistic / (len(inner) * len(outer))
    inside, outside = (torch.tensor(of, dtype=torch.float64) for of in (inner, outer))
    assert auroc(inside, outside)[0] == pytest.approx(expected)
    assert auroc(outside, inside)[0] == pytest.approx(1 - expected)


def test_two_gaussians_have_a_known_area_and_scatter_by_the_error() -> None:
    rng, found = torch.Generator().manual_seed(0), []
    for _ in range(400):
        inside = torch.randn(80, generator=rng, dtype=torch.float64)
        outside = 1 + torch.randn(50, generator=rng, dtype=torch.float64)
        found.append(auroc(inside, outside))
    values, errors = np.array(found).T
    assert values.mean() == pytest.approx(norm.cdf(1 / math.sqrt(2)), abs=0.01)
    assert errors.mean() == pytest.approx(values.std(), rel=0.1)


def test_scores_that_are_all_equal_tell_nothing() -> None:
    assert auroc(torch.ones(5), torch.ones(7)) == (0.5, 0.0)
    assert auroc(torch.zeros(1), torch.ones(3)) == (1.0, math.inf)


def grey(spread: float, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    images = 0.5 + spread * torch.randn(COUNT, 1, SIDE, SIDE, generator=rng)
    return images.clamp(0, 1).mul(255).round().to(torch.uint8)


def measured(spec: DecoderSpec, others: dict[str, Tensor], **training: bool) -> Evaluated:
    """A VAE whose mean is ½, whatever it is shown, on images that scatter by 0.1."""
    decoder = build_decoder(spec)
    model = build_model(
        model_spec("linear_vae", latent=2), channels=1, resolution=SIDE, outputs=decoder.outputs
    )
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        model.get_parameter("output.bias").fill_(0.5)
    vae = Vae(model, decoder)
    run = Run(
        dataset="made",
        content="0" * 64,
        split_seed=0,
        model=model_spec("linear_vae", latent=2),
        decoder=spec,
        training=Training(**training),
        evaluation=Evaluation(iwae=0),
        seed=0,
    )
    images = grey(0.1, 0)
    made = Description("made", "0" * 64, 1, SIDE, *3 * (COUNT,))
    state = vae.initial_state()
    return evaluate(run, Trained(vae, state), Dataset(made, *3 * (images,)), None, None, others)


GAUSSIAN = decoder_spec("beta", link="identity", beta=2 * 0.1**2)


@pytest.mark.parametrize("dequantise", [False, True])
def test_what_scatters_more_costs_more_and_what_scatters_less_costs_less(dequantise: bool) -> None:
    others = {
        "ood_auroc_wide": grey(0.3, 1),
        "ood_auroc_alike": grey(0.1, 2),
        # Smooth images are the likelier ones: the fault that Nalisnick et al. found.
        "ood_auroc_flat": grey(0.02, 3)[:40],
    }
    metrics, protocol, _ = measured(GAUSSIAN, others, dequantise=dequantise)
    assert metrics["ood_auroc_wide"] == 1
    assert metrics["ood_auroc_flat"] == 0
    assert abs(metrics["ood_auroc_alike"] - 0.5) < 4 * metrics["ood_auroc_alike_se"]
    counts = {"ood_auroc_wide": COUNT, "ood_auroc_alike": COUNT, "ood_auroc_flat": 40}
    assert protocol["out_of_distribution"]["images"] == counts


def test_images_that_are_the_runs_own_are_not_told_apart() -> None:
    own = {"ood_auroc_own": grey(0.1, 0)}
    assert measured(GAUSSIAN, own).metrics["ood_auroc_own"] == pytest.approx(0.5, abs=1e-9)


def test_without_others_or_without_bits_there_is_none() -> None:
    assert "out_of_distribution" not in measured(GAUSSIAN, {}).protocol
    spec = decoder_spec("bernoulli")
    metrics, protocol, _ = measured(spec, {"ood_auroc_wide": grey(0.3, 1)})
    assert "ood_auroc_wide" not in metrics
    assert "no probability" in protocol["out_of_distribution"]["absent"]
