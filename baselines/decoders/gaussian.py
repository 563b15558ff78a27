"""Gaussian decoders; they differ in where σ comes from."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from baselines.decoders.base import Decoder, Link, log_sigma_of_beta, soft_clip
from baselines.state import State, new_average, read_average, update_average

Over = Literal["batch", "image", "channel", "pixel"]


def gaussian(mean: Tensor, log_sigma: Tensor) -> Distribution:
    """N(mean, σ²) over images (C, H, W), σ broadcast; λ = ln σ stays float32 until the end."""
    sigma = log_sigma.float().exp()
    return Independent(Normal(mean, sigma, validate_args=False), 3, validate_args=False)


class FixedGaussian(Decoder):
    """N(μ(z), σ² I) with a σ that nobody learns."""

    log_sigma: Tensor

    def __init__(self, *, link: Link, log_sigma: float) -> None:
        super().__init__(link=link)
        self.register_buffer("log_sigma", torch.tensor(log_sigma), persistent=False)

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        return gaussian(self.mean(output), self.log_sigma)


class UnitGaussian(FixedGaussian):
    """N(μ(z), I): the summed squared error with the ½ that a likelihood has."""

    def __init__(self, *, link: Link) -> None:
        super().__init__(link=link, log_sigma=0.0)


class BetaGaussian(FixedGaussian):
    """The β-VAE as the Gaussian that it is, σ² = β/2."""

    def __init__(self, *, link: Link, beta: float) -> None:
        super().__init__(link=link, log_sigma=log_sigma_of_beta(beta))


class MeanReducedMse(Decoder):
    """MSE averaged over everything beside a KL summed over everything, as the release's `mse_vae`.

    With a batch of B images of D dimensions that loss is ||x-μ||²/(BD) + Σ KL, the β-VAE with
    β = B·D: a Gaussian with σ² = BD/2, which is how it is trained here, on one objective with all
    others. It is no likelihood that anyone means, so none is reported.
    """

    is_likelihood = False

    def initial_state(self, image_shape: tuple[int, int, int]) -> State:
        return new_average("decoder.log_sigma")

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        mean = self.mean(output)
        if target is None:
            return gaussian(mean, read_average(state, "decoder.log_sigma"))
        return gaussian(mean, mean.new_full((), log_sigma_of_beta(target.numel())))

    def update(self, distribution: Distribution, target: Tensor, state: State) -> State:
        log_sigma = target.new_full((), log_sigma_of_beta(target.numel()))
        return update_average(state, "decoder.log_sigma", log_sigma, decay=0.0)


class PerPixelGaussian(Decoder):
    """N(μ(z), diag σ(z)²): λ = ln σ per pixel and channel, softly clipped (paper, section 4)."""

    outputs = 2

    def __init__(
        self, *, link: Link, min_log_sigma: float | None, max_log_sigma: float | None
    ) -> None:
        super().__init__(link=link)
        self.bounds = (min_log_sigma, max_log_sigma)

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        mean, log_sigma = output.float().chunk(2, dim=-3)
        return gaussian(self.mean(mean), soft_clip(log_sigma, *self.bounds))


class SharedGaussian(Decoder):
    """N(μ(z), σ² I): λ = ln σ is one parameter, trained with the weights (paper, section 4).

    `sigma_lr` multiplies its learning rate: one scalar moves at most lr·sigma_lr a step under
    Adam, which a short training does not forgive.
    """

    def __init__(
        self,
        *,
        link: Link,
        min_log_sigma: float | None,
        max_log_sigma: float | None,
        initial_log_sigma: float,
        sigma_lr: float,
    ) -> None:
        super().__init__(link=link)
        self.bounds = (min_log_sigma, max_log_sigma)
        self.sigma_lr = sigma_lr
        self.log_sigma = nn.Parameter(torch.tensor(initial_log_sigma))

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        return gaussian(self.mean(output), soft_clip(self.log_sigma, *self.bounds))

    def learning_rates(self) -> dict[str, float]:
        return {} if math.isclose(self.sigma_lr, 1.0) else {"log_sigma": self.sigma_lr}


class OptimalGaussian(Decoder):
    """N(μ(z), σ*² I) with σ*² = MSE, the maximum-likelihood variance (paper, Eq. 5).

    The paper prints σ* = MSE; its author confirmed that the variance is meant. In training σ*²
    is the batch's own: one number, or one an image, a channel, or a pixel of each channel
    (`over`; the author advises against the last). A scored σ is the running average over
    training, so the σ that scores an image never saw it; that of `image` is one number. The
    gradient flows through σ* unless stopped.

    σ* has a hard floor, exp(min_log_sigma): the soft clip that a learned σ absorbs would make an
    analytic one too large, by 5 % at σ = 0.05. The average forgets fast (`decay`): while the MSE
    falls its lag costs nats, and ten batches are enough to pin one number.
    """

    def __init__(
        self,
        *,
        link: Link,
        min_log_sigma: float,
        over: Over,
        stop_gradient: bool,
        decay: float,
    ) -> None:
        super().__init__(link=link)
        self.min_variance = math.exp(2 * min_log_sigma)
        self.over = over
        self.stop_gradient = stop_gradient
        self.decay = decay

    def initial_state(self, image_shape: tuple[int, int, int]) -> State:
        channels, height, width = image_shape
        shape = {"channel": (channels, 1, 1), "pixel": (channels, height, width)}
        return new_average("decoder.variance", *shape.get(self.over, ()))

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        mean = self.mean(output)
        if target is None:
            variance = read_average(state, "decoder.variance")
        else:
            error = (target - mean).square()
            variance = (
                error.mean(dim=(-3, -2, -1), keepdim=True)
                if self.over == "image"
                else self._shared_variance(error)
            )
            if self.stop_gradient:
                variance = variance.detach()
        return gaussian(mean, 0.5 * variance.clamp_min(self.min_variance).log())

    def update(self, distribution: Distribution, target: Tensor, state: State) -> State:
        variance = self._shared_variance((target - distribution.mean).square())
        return update_average(state, "decoder.variance", variance, self.decay)

    def _shared_variance(self, error: Tensor) -> Tensor:
        """The mean squared error over all that shares one σ across images, as `state` has it."""
        images = tuple(range(error.dim() - 3))
        if self.over == "pixel":
            return error.mean(dim=images)
        if self.over == "channel":
            return error.mean(dim=(*images, -2, -1), keepdim=True).reshape(-1, 1, 1)
        return error.mean()
