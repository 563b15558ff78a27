"""Dequantised data: what densities, bins and bounds must be where the noise is known."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Independent, Normal

from baselines.distributions import to_level
from baselines.probabilities import log_mass
from bench.data import Dataset
from bench.data.dataset import Description
from bench.evaluation.context import Evaluated, EvaluationContext
from bench.evaluation.evaluate import evaluate
from bench.evaluation.features.base import Extractor
from bench.evaluation.iwae import importance_weighted
from bench.evaluation.scorer import PosteriorSample, Scorer, eight_bit, score
from bench.run import Evaluation, Features, Run, Training
from bench.training.checkpoint import Trained
from bench.training.step import scaled
from bench.training.train import build, train
from tests.specs import decoder_spec, model_spec

SIDE, LATENT = 12, 3
DIMENSIONS = SIDE * SIDE
NATS = math.log(255)
SIGMA = 1 / (255 * math.sqrt(12))
"""The standard deviation of the noise."""


def run_of(decoder: str, training: dict[str, Any], **options: object) -> Run:
    return Run(
        dataset="made",
        content="0" * 64,
        split_seed=0,
        model=model_spec("linear_vae", latent=LATENT),
        decoder=decoder_spec(decoder, link="identity", **options),
        training=Training(**training),
        evaluation=Evaluation(iwae=4, samples=0),
        seed=0,
    )


def dataset(images: Tensor) -> Dataset:
    description = Description("made", "0" * 64, 1, SIDE, *3 * (len(images),))
    return Dataset(description, images, images.clone(), images.clone())


def noisy(count: int = 300) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, SIDE, SIDE), generator=rng).to(torch.uint8)


def context_of(images: Tensor, most: int = 512) -> EvaluationContext:
    """An untrained VAE whose posterior and mean follow the image."""
    run = run_of("beta", {"dequantise": True}, beta=0.02)
    vae = build(run, 1, SIDE).eval()
    scorer = Scorer(vae, vae.initial_state(), torch.float32, most)
    return EvaluationContext(run, scorer, dataset(images), None)


# -- the data --------------------------------------------------------------------------------------


@pytest.mark.parametrize("u", [0.0, 2**-24, 2**-13, 0.5, 1 - 2**-13, 1 - 2**-24])
def test_a_value_never_leaves_the_bin_of_its_level(u: float) -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    data = scaled(levels, torch.full((1, 256), u))
    assert to_level(data).equal(levels.long())
    assert eight_bit(data).equal(levels)
    moved = data.double() * 255 - levels.double()
    torch.testing.assert_close(moved, torch.full_like(moved, u - 0.5), rtol=0, atol=2e-4)


@given(level=st.integers(0, 255), off=st.floats(-3, 3), log_sigma=st.floats(math.log(SIGMA), 0.0))
def test_the_density_bounds_the_mass_from_above(level: int, off: float, log_sigma: float) -> None:
    """Jensen: the mean over u of -ln p, plus ln 255, is ½ Var(u)/(255 σ)² + -ln p(x) + ln 255."""
    sigma, grid = math.exp(log_sigma), (torch.arange(4096) + 0.5) / 4096
    mean = torch.tensor(level / 255 + off * sigma).double()
    law = Independent(Normal(mean.expand(1, 1, 1), sigma), 3)
    value = torch.full((4096, 1, 1, 1), level, dtype=torch.uint8)
    bound = -law.log_prob(scaled(value, grid[:, None]).double()).mean() + NATS
    mass = -log_mass(law, scaled(value[:1])).sum()
    spread = (SIGMA / sigma) ** 2 / 2
    # What float32 rounds of x, in units of σ.
    rounding = 2**-24 / sigma * (3 + 0.5 / (255 * sigma))
    expected = -law.log_prob(torch.full((1, 1, 1), level / 255).double()) + spread + NATS
    assert bound.item() == pytest.approx(expected.item(), abs=1e-4 + rounding)
    assert bound >= mass - 1e-6 - rounding
    if 0 < level < 255 and sigma > 0.2:  # of a wide σ ln p is a parabola across the bin
        assert bound.item() == pytest.approx(mass.item() + off**2 * spread, abs=1e-4)


# -- closed forms ----------------------------------------------------------------------------------


def trained_on_grey(decoder: str, folder: Path, *, dequantise: bool) -> Evaluated:
    images = torch.full((256, 1, SIDE, SIDE), 100, dtype=torch.uint8)
    training = {"steps": 800, "batch": 16, "lr": 0.01, "schedule": "cosine"}
    options = {"sigma_lr": 5} if decoder == "shared" else {}
    run = run_of(decoder, {**training, "dequantise": dequantise}, min_log_sigma=-8.0, **options)
    # Fewer are scored than trained on, as everywhere.
    fewer = replace(dataset(images), test=images[:200].clone())
    return evaluate(run, train(run, images, folder), fewer, None)


@pytest.mark.parametrize("decoder", ["shared", "optimal"])
def test_constant_images_leave_sigma_at_its_clip(decoder: str, tmp_path: Path) -> None:
    """Nothing else stops it: their density has no upper bound."""
    metrics, protocol, _ = trained_on_grey(decoder, tmp_path, dequantise=False)
    assert metrics["sigma_at_floor"] == 1
    assert metrics["sigma"] < 0.6 * SIGMA
    assert "data" not in protocol["likelihood"]


@pytest.mark.parametrize("decoder", ["shared", "optimal"])
def test_constant_images_have_the_sigma_of_the_noise(decoder: str, tmp_path: Path) -> None:
    """A Gaussian of that σ pays ½ ln(2πe/12) nats a value more than the uniform's -ln 255.

    In the bin of the level it has P(|z| < √3). A learned σ is 9 % off, worth 0.007 nats a value.
    """
    metrics, protocol, _ = trained_on_grey(decoder, tmp_path, dequantise=True)
    assert metrics["sigma_at_floor"] == 0
    assert metrics["sigma"] == pytest.approx(SIGMA, rel=0.1)
    assert metrics["sigma_fitted"] == pytest.approx(SIGMA, rel=0.02)
    entropy = 0.5 * math.log(math.pi * math.e / 6) - NATS
    rate = metrics["rate"]
    for bound in ("neg_log_p", "neg_log_p_fitted_sigma"):
        assert (metrics[bound] - rate) / DIMENSIONS == pytest.approx(entropy, abs=0.012)
    # Training images are equal to the others; their noise is not.
    apart = metrics["neg_log_p_train"] - metrics["neg_log_p"]
    assert 0 < abs(apart) < 4 * (metrics["neg_log_p_se"] + metrics["neg_log_p_train_se"])
    assert 0 < metrics["neg_log_p"] + metrics["iwae_4"] < rate
    mass = metrics["bits_per_dim"] * math.log(2)
    expected = -math.log(math.erf(math.sqrt(1.5)))
    assert mass - rate / DIMENSIONS == pytest.approx(expected, abs=0.04)
    assert metrics["neg_log_p"] / DIMENSIONS + NATS > mass
    assert metrics["psnr"] > 58
    assert protocol["likelihood"]["data"] == "dequantised: x + (u - 1/2)/255"


# -- which numbers dequantise an image ------------------------------------------------------------


def data_of(drawn: PosteriorSample) -> Tensor:
    return drawn.images.flatten(1)


@pytest.mark.parametrize("most", [100, 7])
def test_an_image_has_its_data_whatever_it_is_scored_with(most: int) -> None:
    images = noisy()
    of = context_of(images)
    whole = score(of.scorer, images, 0, "draw", {"data": data_of}, dither=of.dither())["data"]
    for small, count in ((most, 300), (512, 150)):
        part = context_of(images[:count], small)
        measures = {"data": data_of}
        found = score(part.scorer, images[:count], 0, "draw", measures, dither=part.dither())
        assert found["data"].equal(whole[:count])
    noise = whole * 255 - images.flatten(1)
    assert noise.mean().abs() < 4 / math.sqrt(12 * noise.numel())
    assert noise.var().item() == pytest.approx(1 / 12, rel=0.02)
    assert len(noise.unique(dim=0)) == 300
    other = of.dither("validation")
    assert other is not None
    correlation = torch.corrcoef(torch.stack([noise.flatten(), other[:].flatten()]))[0, 1]
    assert correlation.abs() < 5 / math.sqrt(noise.numel())


@pytest.mark.parametrize("place", ["encode", "decode"])
def test_an_attempt_that_ran_out_of_memory_is_redone_with_the_same_data(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = noisy()
    of = context_of(images)

    def found() -> tuple[Tensor, Tensor]:
        measures = {"data": data_of}
        scores = score(of.scorer, images, 0, "draw", measures, dither=of.dither())
        bound = importance_weighted(of.scorer, images, 2, 0, of.dither())
        return scores["data"], bound.log_p

    whole, whole_bound = found()
    original: Callable[..., Any] = getattr(of.scorer.vae.model, place)

    def limited(first: Tensor, *others: Any, **options: Any) -> Any:
        if len(first) > 40:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(first, *others, **options)

    monkeypatch.setattr(of.scorer.vae.model, place, limited)
    of = replace(of, scorer=replace(of.scorer))
    again, bound = found()
    assert again.equal(whole)
    torch.testing.assert_close(bound, whole_bound, rtol=1e-5, atol=0)


def test_encoder_and_bound_see_what_the_decoder_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """So do the reconstructions whose features are compared."""
    images = noisy(150)
    of, seen = context_of(images), []
    model = of.scorer.vae.model
    original = model.encode

    def encode(data: Tensor, *rest: Any, **options: Any) -> Any:
        if len(data) > 1:  # one image asks what the model has
            seen.append(data.flatten(1).double())
        return original(data, *rest, **options)

    monkeypatch.setattr(model, "encode", encode)
    measures = {"data": data_of}
    expected = score(of.scorer, images, 0, "draw", measures, dither=of.dither())["data"]
    importance_weighted(of.scorer, images, 1, 0, of.dither())
    features = Features(name="torchscript", metric="fd_x", sha256="0" * 64)
    extractor = Extractor(features, lambda x: x.float().flatten(2).mean(2), torch.device("cpu"))
    evaluation = Evaluation(
        iwae=1, features=features, samples=60, distances=("reconstructions",), batch=32
    )
    run = of.run.model_copy(update={"evaluation": evaluation})
    evaluate(run, Trained(of.scorer.vae, {}), of.dataset, extractor)
    counts = [len(data) for data in seen]
    assert counts == 6 * [128, 22] + [32, 28]
    # The fourth pair are the validation images, for the fitted σ, the fifth those of training.
    whole = [torch.cat(seen[first : first + 2]) for first in (0, 2, 4, 10)]
    assert all(data.equal(expected) for data in whole)
    assert torch.cat(seen[12:]).equal(expected[:60])


def test_the_bound_of_one_draw_scores_the_same_data() -> None:
    """With a posterior equal to the prior and a constant mean ln w is ln p(x|z) for every z."""
    of = context_of(noisy())
    for parameter in of.scorer.vae.model.parameters():
        torch.nn.init.zeros_(parameter)
    metrics = evaluate(of.run, Trained(of.scorer.vae, {}), of.dataset, None).metrics
    assert metrics["iwae_4"] == pytest.approx(-metrics["neg_log_p"], rel=1e-6)
