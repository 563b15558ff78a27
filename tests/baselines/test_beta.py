"""Losses of public VAEs in our β, σ and nats; the linear VAE's collapse on known covariances."""

import doctest
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard
from torch import Tensor
from torch.distributions import Distribution, Independent, Laplace, Normal, kl_divergence
from torch.nn import functional

from baselines import beta
from baselines.beta import (
    LOSSES,
    REDUCTIONS,
    as_dict,
    collapse_beta,
    eigenvalues,
    linear_rate,
    lines,
    rows,
    translate,
)
from baselines.decoders.gaussian import BetaGaussian
from baselines.models.linear_vae import LinearVae
from baselines.vae import Vae
from bench.data import load

# -- losses that people use --------------------------------------------------------------------


def test_pytorch_vae() -> None:
    # AntixK/PyTorch-VAE: F.mse_loss(recons, input) + 0.00025 * mean over batch of the summed KL.
    found = translate("mse-mean", 0.00025, "3x64x64")
    assert found.beta == pytest.approx(3.072)
    assert found.sigma == pytest.approx(1.2394, abs=1e-4)
    on_pm1 = translate("mse-mean", 0.00025, "3x64x64", data_range=2)
    assert on_pm1.beta == pytest.approx(0.768)


def test_latent_diffusion() -> None:
    # CompVis/stable-diffusion: L1 summed over an image in [-1, 1], kl_weight 1e-6, logvar 0.
    found = translate("l1-sum", 1e-6, "3x256x256", data_range=2)
    assert found.laplace_b == pytest.approx(1e-6 / 2)
    assert found.sigma == pytest.approx(math.sqrt(2) * 0.5e-6)
    assert found.beta is None
    assert "no Gaussian" in " ".join(lines(found))


def test_dreamer_v3() -> None:
    # danijar/dreamerv3: Σ(x-μ)² without ½, KL weights 1.0 (prior) and 0.1 (posterior).
    weights = [translate("mse-sum", weight, "3x64x64").beta for weight in (1.0, 0.1)]
    assert weights == pytest.approx([1.0, 0.1])


def test_the_releases_mse_vae() -> None:
    # orybkin/sigma-vae-pytorch mse_vae: a mean over everything beside a KL summed over everything.
    found = translate("mse-mean", 1, "1x28x28", kl="sum-batch", batch=128)
    assert found.beta == pytest.approx(128 * 784)


def test_svg() -> None:
    # edenton/svg: nn.MSELoss() + 1e-4 * KL summed over latents, per frame of Moving MNIST and BAIR.
    assert translate("mse-mean", 1e-4, "1x64x64").beta == pytest.approx(0.4096)
    assert translate("mse-mean", 1e-4, "3x64x64").beta == pytest.approx(1.2288)
    assert translate("mse-mean", 1e-4, "1x32x32").beta == pytest.approx(0.1024)


def test_published_constants_of_the_beta_vae_on_svhn() -> None:
    # arXiv 2006.13202, Table 1: -log p of 4056 at β = 10, where the reconstruction adds next to
    # nothing to the constant.
    found = translate("mse-sum", 10, "3x28x28")
    assert found.nats_constant == pytest.approx(4056, abs=5)


# -- any loss: a constant multiple of ours -----------------------------------------------------


def reduced(values: Tensor, reduction: str) -> Tensor:
    """Values (B, ...) as the reduction's name says."""
    if reduction == "mean":
        return values.mean()
    return values.sum() if reduction == "sum-batch" else values.sum() / len(values)


def users_loss(
    loss: str,
    kl: str,
    weight: float,
    weight_on: str,
    images: Tensor,
    means: Tensor,
    divergence: Tensor,
) -> Tensor:
    error, _, reduction = loss.removeprefix("half-").partition("-")
    functions: dict[str, Any] = {
        "mse": functional.mse_loss,
        "l1": functional.l1_loss,
        "bce": functional.binary_cross_entropy,
    }
    values = functions[error](means, images, reduction="none")
    distortion = reduced(values, reduction) / (2 if loss.startswith("half-") else 1)
    rate = reduced(divergence, kl)
    return distortion + weight * rate if weight_on == "kl" else weight * distortion + rate


def our_loss(found: beta.Translation, images: Tensor, means: Tensor, divergence: Tensor) -> Tensor:
    """Summed error + weight · KL of images in [0, 1], averaged over the batch."""
    error = {
        "Gaussian": (images - means).square(),
        "Laplace": (images - means).abs(),
        "Bernoulli": functional.binary_cross_entropy(
            means.clamp(0, 1), images.clamp(0, 1), reduction="none"
        ),
    }[found.likelihood]
    return error.flatten(1).sum(1).mean() + found.kl_weight * divergence.sum(1).mean()


@pytest.mark.parametrize("kl", REDUCTIONS)
@pytest.mark.parametrize("loss", LOSSES)
@settings(max_examples=15)
@given(
    weight=st.floats(1e-3, 1e3),
    weight_on=st.sampled_from(beta.WEIGHTED),
    sizes=st.tuples(*(st.integers(1, 4) for _ in range(5))),
    scale=st.sampled_from([1.0, 2.0, 255.0, 1 / 0.3081]),
    seed=st.integers(0, 2**32),
)
def test_every_loss_is_a_constant_multiple_of_ours(
    loss: str,
    kl: str,
    weight: float,
    weight_on: str,
    sizes: tuple[int, int, int, int, int],
    scale: float,
    seed: int,
) -> None:
    batch, channels, height, width, latent = sizes
    scale = 1.0 if loss.startswith("bce") else scale
    found = translate(
        loss,
        weight,
        f"{channels}x{height}x{width}",
        kl=kl,
        weight_on=weight_on,
        data_range=scale,
        batch=batch,
        latent=latent,
    )
    stream = torch.Generator().manual_seed(seed)
    ratios = []
    for _ in range(3):
        images, means = torch.rand(
            2, batch, channels, height, width, generator=stream, dtype=torch.float64
        )
        location, spread = torch.rand(2, batch, latent, generator=stream, dtype=torch.float64)
        prior = Normal(torch.zeros_like(location), torch.ones_like(location))
        divergence = kl_divergence(Normal(location, spread + 0.1), prior)
        # A shift of the data, as that to [-1, 1], changes no difference.
        shift = 0.0 if loss.startswith("bce") else 0.7
        theirs = users_loss(
            loss, kl, weight, weight_on, scale * images - shift, scale * means - shift, divergence
        )
        ratios.append(float(theirs / our_loss(found, images, means, divergence)))
    assert ratios == pytest.approx([ratios[0]] * 3, rel=1e-9)


def test_the_constant_is_the_density_of_a_perfect_reconstruction() -> None:
    images = torch.rand(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gaussian = translate("half-mse-sum", 0.01, "3x4x5")
    normal = Independent(Normal(images, 0.1), 3)
    assert gaussian.sigma == pytest.approx(0.1)
    assert gaussian.nats_constant == pytest.approx(-float(normal.log_prob(images)))
    laplace = translate("l1-sum", 0.05, "3x4x5")
    peer = Laplace(images, 0.05)
    assert laplace.nats_constant == pytest.approx(-float(peer.log_prob(images).sum()))
    assert laplace.sigma == pytest.approx(float(peer.stddev[0, 0, 0]))


def test_bits_are_of_the_probability_of_an_8_bit_value() -> None:
    middle, half = torch.tensor(128 / 255, dtype=torch.float64), 0.5 / 255
    pairs: list[tuple[str, float, Distribution]] = [
        ("half-mse-sum", 0.01, Normal(middle, 0.1)),
        ("l1-sum", 0.05, Laplace(middle, 0.05)),
    ]
    for loss, weight, peer in pairs:
        found = translate(loss, weight, "1x1x2")
        probability = peer.cdf(middle + half) - peer.cdf(middle - half)
        assert found.bits_per_dim == pytest.approx(-float(probability.log2()))
    assert translate("l1-sum", 1e-6, "3x9x9").bits_per_dim == 0


def test_sigma_is_judged_by_what_data_in_0_1_can_have() -> None:
    # Two equally likely grey levels, 0 and 1, have the largest standard deviation, ½.
    # Errors of rounding to 8 bits are uniform over 1/255, a standard deviation of 0.00113.
    said = [
        " ".join(lines(translate("half-mse-sum", sigma**2, "1x8x8")))
        for sigma in (0.51, 0.49, 0.0012, 0.0011)
    ]
    assert ["too much" in text for text in said] == [True, False, False, False]
    assert ["too little" in text for text in said] == [False, False, False, True]


@pytest.mark.parametrize("weight_on", beta.WEIGHTED)
def test_its_advice_calibrates(weight_on: str) -> None:
    found = translate("mse-mean", 0.02, "3x8x8", weight_on=weight_on)
    assert found.sigma is not None
    told = f"multiply the KL's weight by (e/{found.sigma:.4g})²"
    assert told in " ".join(lines(found))
    factor = (0.1 / found.sigma) ** 2
    better = 0.02 * factor if weight_on == "kl" else 0.02 / factor
    calibrated = translate("mse-mean", better, "3x8x8", weight_on=weight_on)
    assert calibrated.sigma == pytest.approx(0.1)


# -- what is printed ---------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_it_is_printed_and_is_json(loss: str) -> None:
    found = translate(loss, 0.5, "1x4x4", batch=2, collapse=3.0)
    loaded = json.loads(json.dumps(as_dict(found), allow_nan=False))
    assert loaded["sentences"] == lines(found)
    assert loaded["beta"] == found.beta
    shown = dict(rows(found))
    assert shown["likelihood"] == found.likelihood
    assert ("σ" in shown) == (found.likelihood != "Bernoulli")
    assert shown["error"] == LOSSES[loss]


def test_grey_images_have_no_sigma_under_binary_cross_entropy() -> None:
    found = translate("bce-mean", 1, "1x28x28", collapse=10.4)
    assert (found.beta, found.sigma, found.nats_constant) == (None, None, None)
    assert found.kl_weight == pytest.approx(784)
    assert "no likelihood and has no σ" in lines(found)[0]
    assert "says nothing about this one" in lines(found)[-1]


def test_the_distance_from_collapse_is_told() -> None:
    assert "4 times smaller" in lines(translate("mse-sum", 2.5, "1x28x28", collapse=10.0))[-1]
    assert "2 times that" in lines(translate("mse-sum", 20, "1x28x28", collapse=10.0))[-1]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"loss": "mse"}, "--loss mse: unknown; possible: mse-mean, mse-sum"),
        ({"kl": "average"}, "--kl average: unknown; possible: mean, sum, sum-batch"),
        ({"weight_on": "rec"}, "--weight-on rec: unknown; possible: kl, reconstruction"),
        ({"weight": 0}, "--weight 0: give a positive number"),
        ({"weight": -1.0}, "--weight -1.0: give a positive number"),
        ({"weight": math.nan}, "--weight nan: give a positive number"),
        ({"data_range": 1e300}, "--range 1e.300: give a positive number"),
        ({"batch": 0}, "--batch 0"),
        ({"latent": -3}, "--latent -3"),
        ({"shape": "64x64"}, "--shape 64x64: give channels, height and width as 3x64x64"),
        ({"shape": "3x0x64"}, "--shape 3x0x64"),
        ({"shape": "3x64x64\n"}, "--shape 3x64x64"),
        ({"kl": "mean"}, "--latent is missing"),
        ({"kl": "sum-batch"}, "--batch is missing: mse-mean and --kl sum-batch"),
        ({"loss": "mse-sum-batch"}, "--batch is missing: mse-sum-batch and --kl sum"),
        ({"loss": "bce-sum", "data_range": 2.0}, "--range 2: bce-sum needs x in .0, 1."),
    ],
)
def test_a_wrong_request_is_one_line(changes: dict[str, Any], told: str) -> None:
    request: dict[str, Any] = {"loss": "mse-mean", "weight": 1.0, "shape": "3x64x64", **changes}
    with pytest.raises(ValueError, match=told):
        translate(**request)


def test_the_docstrings_example() -> None:
    results = doctest.testmod(beta)
    assert (results.failed, results.attempted > 0) == (0, True)


def test_it_translates_without_torch_or_numpy() -> None:
    code = (
        "import sys; from baselines.beta import lines, translate; "
        "lines(translate('mse-sum', 1, '1x2x2')); "
        "sys.exit(bool({'torch', 'numpy', 'scipy'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


# -- where a linear VAE collapses --------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 3, 4, 5), (10, 1, 6, 7), (2, 1, 1, 2), (3, 1, 9, 9)])
def test_collapse_is_at_twice_the_largest_variance(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(1).random(shape)
    covariance = np.cov(images.reshape(len(images), -1).T, bias=True)
    found = collapse_beta(images)
    assert found == pytest.approx(2 * np.linalg.eigvalsh(covariance)[-1], rel=1e-10)
    assert found == collapse_beta(images)
    assert found == pytest.approx(collapse_beta(images.astype(np.float32)), rel=1e-5)


def test_collapse_of_black_and_white_images() -> None:
    # Half of the images are 0 and half are 1 everywhere: a single direction of variance D/4.
    images = np.repeat(np.array([0, 255], dtype=np.uint8), 7 * 3 * 16 * 16).reshape(14, 3, 16, 16)
    assert collapse_beta(images) == pytest.approx(2 * 768 / 4)
    assert collapse_beta(torch.from_numpy(images)) == pytest.approx(2 * 768 / 4)


def test_collapse_of_images_that_fill_more_than_one_block() -> None:
    drawn = np.random.default_rng(2).integers(0, 256, (3, 64, 64))
    share = np.linspace(0, 1, 700)[:, None, None, None]
    images = (share * drawn).round().astype(np.uint8)  # along one line, but for the rounding
    line = 2 * np.var(share) * np.square(drawn / 255).sum()
    assert images.size > 2**22
    assert collapse_beta(images) == pytest.approx(line, rel=1e-3)


def test_collapse_on_mnist() -> None:
    # λ₁ of the 60,000 training digits is 5.12; these are 3,500 of them.
    assert collapse_beta(load("mnist5k").train) == pytest.approx(2 * 5.12, rel=0.04)


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (np.zeros((0, 1, 2, 2)), "give at least two that differ"),
        (np.ones((1, 1, 2, 2)), "give at least two that differ"),
        (np.full((5, 1, 2, 2), 0.5), "give at least two that differ"),
        (np.arange(6.0), "give at least two that differ"),
        (np.arange(8.0).reshape(2, 1, 2, 2), "outside .0, 1."),
        (np.array([[0.5, np.nan], [0.1, 0.2]]), "outside .0, 1."),
    ],
)
def test_images_without_a_covariance_are_refused(images: "np.ndarray[Any, Any]", told: str) -> None:
    with pytest.raises(ValueError, match=told):
        collapse_beta(images)


# -- the best linear VAE ---------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "count"), [((40, 3, 4, 5), 7), ((9, 1, 6, 7), 42), ((5, 2), 9)])
def test_eigenvalues_are_those_of_the_covariance(shape: tuple[int, ...], count: int) -> None:
    images = np.random.default_rng(1).random(shape)
    expected = np.linalg.eigvalsh(np.cov(images.reshape(len(images), -1).T, bias=True))[::-1]
    assert eigenvalues(images, count) == pytest.approx(expected[:count], abs=1e-12)
    assert eigenvalues(images, 1) == pytest.approx(expected[:1], rel=1e-10)


def test_lanczos_and_the_whole_covariance_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(3).integers(0, 256, (50, 1, 8, 8), dtype=np.uint8)
    whole = eigenvalues(images, 6)
    monkeypatch.setattr(beta, "DENSE", 10)
    assert eigenvalues(images, 6) == pytest.approx(whole, rel=1e-9)
    assert collapse_beta(images) == pytest.approx(2 * whole[0], rel=1e-9)


@pytest.mark.parametrize("beta", [0.02, 0.2, 0.7, 5.0])
def test_the_optimum_of_a_linear_vae_has_the_rate_of_the_line(beta: float) -> None:
    """Probabilistic PCA's closed form is where the gradient vanishes, and has that rate."""
    rng = np.random.default_rng(0)
    scales = np.array([0.9, 0.5, 0.2, 0.1, 0.05, 0.02, 0.02, 0.02, 0.02])
    draws = rng.normal(size=(400, 9)) * scales @ np.linalg.qr(rng.normal(size=(9, 9)))[0]
    images = torch.from_numpy(0.5 + 0.1 * draws).float().view(-1, 1, 3, 3)
    variance, latent = beta / 200, 4  # the images are scaled by 0.1
    values, vectors = np.linalg.eigh(np.cov(images.flatten(1).T.double(), bias=True))
    top, directions = values[::-1][:latent], vectors[:, ::-1][:, :latent]
    used = np.maximum(top, variance)
    mean = images.flatten(1).mean(0)
    weight = directions * np.sqrt(used - variance)  # W of Tipping & Bishop, Eq. 7
    inverse = torch.from_numpy(weight.T / used[:, None]).float()
    optimum = {
        "output.weight": torch.from_numpy(weight),
        "output.bias": mean,
        "head.weight": inverse,
        "head.bias": -inverse @ mean,
        "log_variance": torch.from_numpy(np.log(variance / used)),
    }
    # These eight have the mean and the covariance of N(0, I), which is all that the loss sees.
    noises = torch.from_numpy(np.concatenate([hadamard(latent), -hadamard(latent)])).float()

    def steepest_and_rate(weights: dict[str, Tensor]) -> tuple[float, float]:
        model = LinearVae(channels=1, resolution=3, latent=latent)
        model.load_state_dict(weights)
        vae = Vae(model, BetaGaussian(beta=2 * variance, link="identity"))
        found = [vae(images, noise.expand(400, -1), {}, torch.float32)[0] for noise in noises]
        torch.stack([terms.loss for terms in found]).mean().backward()
        gradients = [part.grad for part in model.parameters() if part.grad is not None]
        steepest = max(gradient.abs().max().item() for gradient in gradients)
        return steepest, torch.stack([terms.rate for terms in found]).mean().item()

    steepest, rate = steepest_and_rate(optimum)
    beside = {**optimum, "output.bias": 1.01 * mean}
    assert steepest < 0.01 * steepest_and_rate(beside)[0]
    expected = linear_rate(eigenvalues(images.numpy(), latent), variance)
    assert rate == pytest.approx(expected, abs=1e-4)


def test_above_collapse_there_is_no_rate() -> None:
    images = np.random.default_rng(1).random((30, 1, 3, 3))
    spectrum, collapse = eigenvalues(images, 9), collapse_beta(images)
    assert linear_rate(spectrum, 1.0001 * collapse / 2) == 0
    assert linear_rate(spectrum, 0.9999 * collapse / 2) > 0
    with pytest.raises(ValueError, match="positive"):
        linear_rate(spectrum, 0.0)
