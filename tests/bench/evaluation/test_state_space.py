"""The bound on a sequence's likelihood where the truth is known: a linear-Gaussian state space."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor

from baselines.build import build_decoder
from baselines.models.base import Context, Draw, Moments, SequenceModel, gaussian_draw
from baselines.state import State
from baselines.vae import Vae
from bench.evaluation.context import mean_and_error
from bench.evaluation.iwae import Bound, importance_weighted
from bench.evaluation.scorer import Scorer, score
from bench.training.step import scaled
from tests.specs import decoder_spec

SIDE, LATENT, PAST, FUTURE, SIGMA, COUNT = 4, 2, 2, 3, 0.1, 256
WIDENING = 2.0
SCORED = PAST + FUTURE - 1
GREY = 0.5

Array = np.ndarray


class StateSpace(SequenceModel):
    """s_t = F s_{t-1} + z_t from s_0 = 0, and frame t is N(C s_t + ½, σ²) with z_t ~ N(0, I).

    q(z|x) factorises: it has the posterior's mean, and `WIDENING` times the variances of the best
    such Gaussian, the inverse of the precision's diagonal, whose tails are too light for weights.
    """

    def setup(self) -> None:
        rng = np.random.default_rng(0)
        self.transition = np.array([[0.9, 0.2], [-0.2, 0.9]])
        self.emission = 0.04 * rng.standard_normal((SIDE * SIDE, LATENT))
        powers = [np.linalg.matrix_power(self.transition, power) for power in range(SCORED)]
        zero = np.zeros((SIDE * SIDE, LATENT))
        # From all latents to all frames.
        self.mixing = np.block(
            [
                [self.emission @ powers[t - k] if k <= t else zero for k in range(SCORED)]
                for t in range(SCORED)
            ]
        )
        precision = self.mixing.T @ self.mixing / SIGMA**2 + np.eye(SCORED * LATENT)
        self.gain = np.linalg.solve(precision, self.mixing.T) / SIGMA**2
        self.log_variance = np.log(WIDENING / np.diag(precision))

    def encode(self, images: Tensor, state: State, *, training: bool) -> tuple[Context, State]:
        seen = self.target(images).flatten(1).double() - GREY
        mean = seen @ torch.as_tensor(self.gain).T
        log_variance = torch.as_tensor(self.log_variance).expand_as(mean)
        return (mean, log_variance), {}

    def draw(self, context: Context, noise: Tensor, state: State, *, training: bool) -> Draw:
        moments = [part.unflatten(1, (SCORED, LATENT)) for part in context]
        parts: list[Moments] = [(moments[0][:, t], moments[1][:, t]) for t in range(SCORED)]
        drawn = [
            gaussian_draw(*part, own)
            for part, own in zip(parts, noise.split(LATENT, dim=1), strict=True)
        ]
        latent = torch.cat([one.latent for one in drawn], dim=1)
        output = latent.double() @ torch.as_tensor(self.mixing).T + GREY
        rate = torch.stack([one.rate for one in drawn], dim=1)
        log_ratio = torch.stack([one.log_ratio for one in drawn]).sum(0)
        shape = (SCORED, 1, SIDE, SIDE)
        return Draw(output.float().unflatten(1, shape), rate, log_ratio, {}, tuple(parts))


def kalman(model: StateSpace, frames: Array) -> float:
    """ln p of frames (T, D) by the filter's prediction errors (Kalman 1960)."""
    state, spread, total = np.zeros(LATENT), np.zeros((LATENT, LATENT)), 0.0
    f, c = model.transition, model.emission
    for frame in frames:
        state, spread = f @ state, f @ spread @ f.T + np.eye(LATENT)
        innovation = c @ spread @ c.T + SIGMA**2 * np.eye(len(frame))
        total += multivariate_normal(c @ state + GREY, innovation).logpdf(frame)
        gain = np.linalg.solve(innovation, c @ spread).T
        state = state + gain @ (frame - c @ state - GREY)
        spread = spread - gain @ c @ spread
    return total


@pytest.fixture(scope="module")
def model() -> StateSpace:
    return StateSpace(channels=1, resolution=SIDE, latent=LATENT, past=PAST, future=FUTURE)


@pytest.fixture(scope="module")
def videos(model: StateSpace) -> Tensor:
    """8-bit videos from the model, (N, frames, 1, 4, 4)."""
    rng = np.random.default_rng(1)
    latent = rng.standard_normal((COUNT, SCORED * LATENT))
    frames = GREY + latent @ model.mixing.T
    frames = (frames + SIGMA * rng.standard_normal(frames.shape)).reshape(COUNT, SCORED, -1)
    frames = np.concatenate([np.full((COUNT, 1, SIDE * SIDE), GREY), frames], axis=1)
    bits = (frames.clip(0, 1) * 255).round().astype(np.uint8)
    return torch.from_numpy(bits).view(COUNT, -1, 1, SIDE, SIDE)


@pytest.fixture(scope="module")
def exact(model: StateSpace, videos: Tensor) -> Tensor:
    frames = scaled(videos)[:, 1:].flatten(2).double().numpy()
    return torch.tensor([kalman(model, own) for own in frames], dtype=torch.float64)


@pytest.fixture(scope="module")
def scorer(model: StateSpace) -> Scorer:
    decoder = build_decoder(decoder_spec("beta", link="identity", beta=2 * SIGMA**2))
    return Scorer(Vae(model, decoder), {}, torch.float32)


def test_the_filter_has_the_likelihood_of_the_joint_gaussian(
    model: StateSpace, videos: Tensor, exact: Tensor
) -> None:
    covariance = model.mixing @ model.mixing.T + SIGMA**2 * np.eye(len(model.mixing))
    joint = multivariate_normal(np.full(len(covariance), GREY), covariance)
    frames = scaled(videos)[:, 1:].flatten(1).double().numpy()
    np.testing.assert_allclose(joint.logpdf(frames), exact.numpy(), atol=1e-8)


def test_the_bound_on_a_sequence_rises_to_its_evidence(
    scorer: Scorer, videos: Tensor, exact: Tensor
) -> None:
    bounds: dict[int, Bound] = {
        draws: importance_weighted(scorer, videos, draws, seed=0) for draws in (1, 8, 64, 512)
    }
    gaps, errors = zip(
        *(mean_and_error(exact - bound.log_p) for bound in bounds.values()), strict=True
    )
    assert gaps[0] > 1  # what a posterior that factorises loses
    for more, fewer in zip(gaps[1:], gaps, strict=False):
        assert more < fewer
    # In expectation it is below the evidence.
    assert all(gap > -3 * error for gap, error in zip(gaps, errors, strict=True))
    assert gaps[-1] < 0.03
    assert gaps[-1] < gaps[0] / 50


def test_one_draw_is_the_negative_elbo_in_expectation(
    scorer: Scorer, videos: Tensor, exact: Tensor
) -> None:
    """The gap is KL(q || p(z|x)) of two Gaussians with one mean, whatever the video."""
    model = scorer.vae.model
    assert isinstance(model, StateSpace)
    precision = model.mixing.T @ model.mixing / SIGMA**2 + np.eye(SCORED * LATENT)
    loss = np.log(np.diag(precision) / WIDENING).sum() - np.linalg.slogdet(precision)[1]
    gap = 0.5 * (len(precision) * (WIDENING - 1) + loss)
    scores = score(
        scorer,
        videos,
        0,
        "example",
        {
            "rate": lambda drawn: drawn.rate,
            "distortion": lambda drawn: -drawn.distribution.log_prob(drawn.images).sum(1),
        },
    )
    mean, error = mean_and_error(scores["rate"] + scores["distortion"] + exact)
    assert error < 0.5
    assert mean == pytest.approx(gap, abs=4 * error)
