"""Densities fitted to codes: where the code is known, so is what they must find."""

import doctest
import importlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture as Peer
from torch import Tensor, nn

from bench.data import Dataset
from bench.data.dataset import Description
from bench.errors import RequestError
from bench.evaluation import sample_quality, samplers
from bench.evaluation.context import Evaluated, EvaluationContext
from bench.evaluation.samplers import gaussian_mixture, second_stage
from bench.evaluation.samplers.gaussian_mixture import GaussianMixture, climb, fit
from bench.evaluation.scorer import Scorer
from bench.run import Evaluation, Run, Training
from tests.bench.evaluation.halves import (
    SIDE,
    distance_run,
    eight_bits,
    extractor,
    halves,
    linear_vae,
    weight_of,
)
from tests.specs import decoder_spec, model_spec

COUNT, SPREAD = 3000, 0.1
"""A code of 1 moves a half's brightness by `SPREAD`."""


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of the steps is enough for two dimensions."""
    monkeypatch.setattr(second_stage, "STEPS", 400)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def known_codes() -> Tensor:
    """2,000 codes of three well-separated Gaussians, in three dimensions."""
    centres = torch.tensor([[-4.0, 0.0, 0.0], [4.0, 1.0, 0.0], [0.0, 5.0, 2.0]])
    mixing = torch.tensor([[1.0, 0.6, 0.0], [0.0, 0.5, 0.2], [0.0, 0.0, 1.5]])
    place = torch.arange(2000) % 10
    component = (place >= 5).long() + (place >= 8).long()
    return centres[component] + random(2000, 3) @ mixing


def test_expectation_maximisation_climbs_where_scikit_learn_does() -> None:
    codes = known_codes()
    start = torch.nn.functional.one_hot(codes[:, 0].gt(0).long() + codes[:, 1].gt(2).long(), 3)
    start = 0.9 * start.double() + 0.1 / 3
    ours = climb(codes, start)
    rows, counts = codes.double(), start.sum(0)
    means = start.T @ rows / counts[:, None]
    precisions = [
        np.linalg.inv(np.cov(rows.T, aweights=own, ddof=0) + 1e-6 * np.eye(3))
        for own in start.T.numpy()
    ]
    peer = Peer(
        3,
        tol=gaussian_mixture.TOLERANCE,
        weights_init=(counts / len(rows)).numpy(),
        means_init=means.numpy(),
        precisions_init=np.stack(precisions),
    ).fit(rows.numpy())
    assert peer.converged_
    assert ours.weights.numpy() == pytest.approx(peer.weights_, abs=2e-3)
    assert ours.means.numpy() == pytest.approx(peer.means_, abs=0.02)
    covariances = (ours.factors @ ours.factors.mT).numpy()
    assert covariances == pytest.approx(peer.covariances_, abs=0.04)
    # The density of the same mixture is the same function.
    same = GaussianMixture(
        torch.from_numpy(peer.weights_),
        torch.from_numpy(peer.means_),
        torch.linalg.cholesky(torch.from_numpy(peer.covariances_)),
    )
    assert same.log_prob(codes).numpy() == pytest.approx(peer.score_samples(rows.numpy()))


def test_its_own_start_reaches_scikit_learns_likelihood() -> None:
    codes = known_codes()
    ours = fit(codes, seed=0, most=3).log_prob(codes).mean().item()
    theirs = Peer(3, n_init=5, random_state=0).fit(codes.numpy()).score(codes.numpy())
    assert ours == pytest.approx(theirs, abs=0.01)


def test_draws_of_a_mixture_have_its_moments() -> None:
    codes = known_codes()
    mixture = fit(codes, seed=0)
    parts = [mixture.draw(random(5000, 3, seed=1), first, 40_000) for first in (0, 5000, 35_000)]
    drawn = torch.cat(parts)
    assert drawn.mean(0).numpy() == pytest.approx(codes.mean(0).numpy(), abs=0.12)
    assert np.cov(drawn.T) == pytest.approx(np.cov(codes.T), abs=0.4)


def test_few_codes_or_equal_ones_have_a_density_too() -> None:
    assert len(fit(random(30, 8), seed=0).weights) == 1
    flat = fit(torch.ones(500, 2), seed=0)
    assert torch.isfinite(flat.factors).all()
    assert flat.draw(random(7, 2), 0, 7).numpy() == pytest.approx(1.0, abs=0.01)
    for kind in (gaussian_mixture, second_stage):
        with pytest.raises(ValueError, match="two codes or more, not 1"):
            kind.fit(torch.ones(1, 2), 0)


@pytest.mark.parametrize("name", sorted(samplers.FITS))
def test_a_density_is_a_function_of_codes_and_seed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_stage, "STEPS", 20)
    codes, noise = known_codes(), random(64, 3, seed=2)
    torch.manual_seed(1)
    one = samplers.FITS[name](codes, 5)
    torch.manual_seed(2)
    other = samplers.FITS[name](codes, 5)
    assert torch.equal(one.draw(noise, 0, 64), other.draw(noise, 0, 64))
    # A draw is the same whichever draws are made with it.
    parts = torch.cat([one.draw(noise[:10], 0, 64), one.draw(noise[10:], 10, 64)])
    assert parts.numpy() == pytest.approx(one.draw(noise, 0, 64).numpy(), abs=1e-5)


@pytest.mark.parametrize("module", [gaussian_mixture, second_stage])
def test_examples(module: object) -> None:
    found = doctest.testmod(importlib.import_module(module.__name__))  # type: ignore[attr-defined]
    assert found.attempted
    assert not found.failed


def measured(code: Callable[[int], Tensor], *names: str, spread: float = 0.05) -> Evaluated:
    """Distances of a linear VAE that finds the code (seed → (COUNT, 2)) of its images again.

    Of q(z|x), `spread` is the standard deviation.
    """
    vae = linear_vae(SPREAD)
    with torch.no_grad():
        inverse = torch.linalg.pinv(weight_of(SPREAD))
        vae.model.get_parameter("head.weight").copy_(inverse)
        vae.model.get_parameter("head.bias").copy_(-0.5 * inverse.sum(1))
        nn.init.constant_(vae.model.get_parameter("log_variance"), 2 * np.log(spread))
    train, test = (eight_bits(halves(0.5 + SPREAD * code(seed))) for seed in (1, 2))
    made = Description("made", f"{hash((code, names)):064x}"[-64:], 1, SIDE, *3 * (COUNT,))
    context = EvaluationContext(
        distance_run(COUNT, made.content, sampler=names),
        Scorer(vae, {}, torch.float32),
        Dataset(made, train, test, test),
        extractor(),
    )
    plain, more = (kind.summarise(context, {}) for kind in (sample_quality, samplers))
    return Evaluated({**plain.metrics, **more.metrics}, more.protocol, {})


def the_prior(seed: int) -> Tensor:
    return random(COUNT, 2, seed=seed)


def far_off(seed: int) -> Tensor:
    """Two clusters away from the origin."""
    side = torch.arange(COUNT)[:, None] % 2 * 2.0 - 1
    return 1.5 * side + torch.tensor([0.5, -0.5]) + 0.3 * random(COUNT, 2, seed=seed)


def test_a_code_that_is_the_prior_gains_nothing() -> None:
    metrics, protocol, _ = measured(the_prior, "gaussian_mixture", "second_stage")
    # Two samples of 3,000 draws of the same Gaussian differ by no more than this.
    noise = 20 * SPREAD**2 / COUNT
    for name in ("fd_halves", "fd_halves_gaussian_mixture", "fd_halves_second_stage"):
        assert metrics[name] < noise, name
    assert protocol["sampler"]["codes"] == COUNT
    assert protocol["sampler"]["split"] == "train"


def test_a_code_off_the_prior_is_mended() -> None:
    metrics, protocol, _ = measured(far_off, "gaussian_mixture", "second_stage")
    # The distance between the images of N(0, I) and those of the code's own Gaussian.
    covariance = torch.from_numpy(np.cov(far_off(0).T))
    roots = torch.linalg.eigvalsh(covariance).sqrt()
    expected = SPREAD**2 * (0.5 + (roots - 1).square().sum().item())
    assert metrics["fd_halves"] == pytest.approx(expected, rel=0.1)
    assert metrics["fd_halves_gaussian_mixture"] < 0.01 * metrics["fd_halves"]
    assert metrics["fd_halves_second_stage"] < 0.05 * metrics["fd_halves"]
    assert protocol["sampler"]["gaussian_mixture"]["components"] == 10
    assert "second_stage_are" in protocol["distance"]


def test_the_fitted_density_is_of_draws_not_of_means() -> None:
    """Of a posterior with standard deviation 0.6, N(0, 0.8² I) as means makes N(0, I)."""
    metrics, _, _ = measured(lambda seed: 0.8 * the_prior(seed), "gaussian_mixture", spread=0.6)
    assert metrics["fd_halves_gaussian_mixture"] == pytest.approx(metrics["fd_halves"], rel=0.15)


def test_without_one_nothing_is_measured() -> None:
    assert measured(the_prior).protocol == {}


def run_of(name: str, **options: object) -> Run:
    return Run(
        dataset="made",
        content="0" * 64,
        split_seed=0,
        model=model_spec(name, **options),
        decoder=decoder_spec("gaussian"),
        training=Training(),
        evaluation=Evaluation(sampler=("second_stage",)),
        seed=0,
    )


@pytest.mark.parametrize(
    ("name", "options", "fault"),
    [
        ("hierarchical", {"groups": "1@1 1@4"}, "a latent of 2 parts, not a single code"),
        ("linear_vae", {"latent": 1025}, "a code of 1025 dimensions, and at most 1024"),
    ],
)
def test_other_latents_are_refused_before_training(
    name: str, options: dict[str, object], fault: str
) -> None:
    images = torch.zeros(2, 1, 16, 16, dtype=torch.uint8)
    with pytest.raises(RequestError, match=f"second_stage: model {name} has {fault}"):
        samplers.refuse(run_of(name, **options), images)


def test_one_gaussian_latent_is_taken() -> None:
    samplers.refuse(run_of("linear_vae", latent=3), torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
