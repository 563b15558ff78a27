"""Gaussian decoders; they differ in where σ comes from."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from baselines.decoders.base import Decoder, log_sigma_of_beta, soft_clip
from baselines.options import Decay, Over, Positive, decoder
from baselines.state import State, new_average, read_average, update_average

CHUNK = 256
"""Images that are read at once where a pass over all of them is needed."""


def gaussian(mean: Tensor, log_sigma: Tensor) -> Distribution:
    """N(mean, σ²) over images (C, H, W), with σ broadcast and λ = ln σ kept in float32.

    >>> gaussian(torch.zeros(5, 3, 8, 8), torch.tensor(0.0)).event_shape
    torch.Size([3, 8, 8])
    """
    sigma = log_sigma.float().exp()
    return Independent(Normal(mean, sigma, validate_args=False), 3, validate_args=False)


@decoder("mse")
class MeanReducedMse(Decoder):
    """Mean-reduced squared error plus a summed KL, a common mistake, reproduced on purpose.

    MSE is averaged over batch and dimensions, as in the release's `mse_vae`. With a batch of B
    images of D dimensions the loss is ||x-μ||²/(BD) + Σ KL, the β-VAE with β = B·D: a Gaussian with
    σ² = BD/2, which is how it is trained here, on the objective that all others have. It is not
    meant as a likelihood, so none is reported.

    >>> decoder = MeanReducedMse()
    >>> images = torch.rand(10, 1, 2, 2)
    >>> decoder(images, decoder.initial_state((1, 2, 2)), images).variance.unique()
    tensor([20.])
    """

    is_likelihood = False
    learns_scale = False

    def initial_state(self, image_shape: tuple[int, int, int]) -> State:
        return new_average("decoder.log_sigma")

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        mean = self.mean(output)
        if target is None:
            return gaussian(mean, read_average(state, "decoder.log_sigma"))
        return gaussian(mean, mean.new_full((), log_sigma_of_beta(self._beta(target))))

    @staticmethod
    def _beta(target: Tensor) -> int:
        """B·D; of a sequence, whose frames' losses are summed, D counts the values of a frame."""
        return len(target) * math.prod(target.shape[-3:])

    def update(self, distribution: Distribution, target: Tensor, state: State) -> State:
        log_sigma = target.new_full((), log_sigma_of_beta(self._beta(target)))
        return update_average(state, "decoder.log_sigma", log_sigma, decay=0.0)


class FixedGaussian(Decoder):
    """N(μ(z), σ² I) with a fixed σ.

    >>> class Narrow(FixedGaussian):
    ...     def fixed_log_sigma(self):
    ...         return -1.0
    >>> Narrow()(torch.zeros(1, 1, 1, 1), {}).stddev.item()  # 1/e
    0.3678794503211975
    """

    learns_scale = False

    def setup(self) -> None:
        self.log_sigma = nn.Buffer(torch.tensor(self.fixed_log_sigma()), persistent=False)

    def fixed_log_sigma(self) -> float:
        """ln σ, from the options."""
        raise NotImplementedError

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        return gaussian(self.mean(output), self.log_sigma)


@decoder("gaussian")
class UnitGaussian(FixedGaussian):
    """Gaussian with unit variance: the plain 'MSE' VAE, σ = 1.

    It is the summed squared error with the ½ that a likelihood has.

    >>> image = torch.full((1, 1, 2, 2), 0.5)
    >>> UnitGaussian()(torch.zeros(1, 1, 2, 2), {}).log_prob(image) / 4  # -½ ln 2π
    tensor([-0.9189])
    """

    def fixed_log_sigma(self) -> float:
        return 0.0


@decoder("beta")
class BetaGaussian(FixedGaussian):
    """β-VAE: Gaussian with σ² = β/2, β chosen by hand or tuned.

    >>> BetaGaussian(beta=0.5)(torch.zeros(1, 1, 1, 1), {}).variance.item()
    0.25
    """

    beta: Positive

    def fixed_log_sigma(self) -> float:
        return log_sigma_of_beta(self.beta)


@decoder("per_pixel")
class PerPixelGaussian(Decoder):
    """Gaussian, ln σ of every pixel and channel from a second output of the network.

    N(μ(z), diag σ(z)²), λ = ln σ softly clipped (paper, section 4).

    >>> output = torch.cat([torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), -1.0)], dim=1)
    >>> PerPixelGaussian(min_log_sigma=None)(output, {}).stddev.unique()  # 1/e
    tensor([0.3679])
    """

    outputs = 2

    min_log_sigma: float | None = -6.0
    max_log_sigma: float | None = None

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        mean, log_sigma = output.float().chunk(2, dim=-3)
        return gaussian(
            self.mean(mean), soft_clip(log_sigma, self.min_log_sigma, self.max_log_sigma)
        )


@decoder("shared")
class SharedGaussian(Decoder):
    """σ-VAE: Gaussian with one learned σ for all pixels, trained with the weights.

    N(μ(z), σ² I), λ = ln σ one parameter (paper, section 4). A learned scalar variance came before
    the paper: Dai & Wipf 2019 (arXiv 1903.05789), Lin et al. 2019.

    `sigma_lr` multiplies its learning rate: under Adam one scalar moves at most lr·sigma_lr a
    step, which can be too slow for a short training. `initial_log_sigma: data` starts it at the
    training images instead, where the best constant image leaves it: ln of their root mean squared
    deviation from their mean image.

    >>> decoder = SharedGaussian(initial_log_sigma="data")
    >>> decoder.initialise(torch.tensor([0, 102], dtype=torch.uint8).view(2, 1, 1, 1))
    >>> round(decoder.log_sigma.exp().item(), 3)  # 51/255
    0.2
    """

    min_log_sigma: float | None = -6.0
    max_log_sigma: float | None = None
    initial_log_sigma: float | Literal["data"] = 0.0
    sigma_lr: Positive = 1.0

    def setup(self) -> None:
        start = 0.0 if self.initial_log_sigma == "data" else self.initial_log_sigma
        self.log_sigma = nn.Parameter(torch.tensor(start))

    def initialise(self, images: Tensor) -> None:
        if self.initial_log_sigma == "data":
            with torch.no_grad():
                self.log_sigma.fill_(math.log(deviation_from_the_mean_image(images)))

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        log_sigma = soft_clip(self.log_sigma, self.min_log_sigma, self.max_log_sigma)
        return gaussian(self.mean(output), log_sigma)

    def learning_rates(self) -> dict[str, float]:
        return {} if math.isclose(self.sigma_lr, 1.0) else {"log_sigma": self.sigma_lr}


def deviation_from_the_mean_image(images: Tensor) -> float:
    """The root mean squared deviation of 8-bit images (N, C, H, W) from their mean, on [0, 1].

    It is at least one grey level. Sums of integers are exact, whatever the device and the order.

    >>> deviation_from_the_mean_image(torch.zeros(3, 1, 2, 2, dtype=torch.uint8)) == 1 / 255
    True
    """
    total, squares = (torch.zeros(images.shape[1:]).to(images.device, torch.int64) for _ in "ab")
    for chunk in images.split(CHUNK):
        values = chunk.long()
        total += values.sum(0)
        squares += values.square().sum(0)
    count = len(images)
    scaled_variance = (count * squares - total.square()).double().mean().item()
    return max(math.sqrt(scaled_variance) / count, 1.0) / 255


@decoder("optimal")
class OptimalGaussian(Decoder):
    """Optimal σ-VAE: Gaussian with σ² = MSE, the analytic optimum, of the axes in `over`.

    N(μ(z), σ*² I) with the maximum-likelihood variance (paper, Eq. 5). The paper prints σ* = MSE;
    its author confirmed that the variance is meant. In training σ*² is the batch's own: one number,
    or one per image, channel, or pixel of each channel (`over`; the author advises against the
    last). In scoring it is the running average over training, so that the σ that scores an image
    never saw it; that of `image` is one number. The gradient flows through σ* unless
    `stop_gradient`, which changes nothing at the optimum.

    σ* has a hard floor, exp(min_log_sigma): the soft clip that a learned σ absorbs would make an
    analytic one too large, by 5 % at σ = 0.05. The average forgets fast (`decay`): while the MSE
    falls its lag costs nats, and ten batches are enough for one number.

    >>> decoder = OptimalGaussian(link="identity")
    >>> state, images = decoder.initial_state((1, 2, 2)), torch.full((5, 1, 2, 2), 0.3)
    >>> training = decoder(torch.zeros(5, 1, 2, 2), state, images)
    >>> state = decoder.update(training, images, state)
    >>> scoring = decoder(torch.zeros(1, 1, 2, 2), state)
    >>> training.stddev.unique(), scoring.stddev.unique()
    (tensor([0.3000]), tensor([0.3000]))
    """

    over: Over = "batch"
    stop_gradient: bool = False
    min_log_sigma: float = -6.0
    decay: Decay = 0.9

    def initial_state(self, image_shape: tuple[int, int, int]) -> State:
        return new_average("decoder.variance", *shared_shape(image_shape, self.over))

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        mean = self.mean(output)
        if target is None:
            variance = read_average(state, "decoder.variance")
        else:
            error = (target - mean).square()
            variance = (
                error.mean(dim=(-3, -2, -1), keepdim=True)
                if self.over == "image"
                else shared_mean(error, self.over)
            )
            if self.stop_gradient:
                variance = variance.detach()
        floor = math.exp(2 * self.min_log_sigma)
        return gaussian(mean, 0.5 * variance.clamp_min(floor).log())

    def update(self, distribution: Distribution, target: Tensor, state: State) -> State:
        variance = shared_mean((target - distribution.mean).square(), self.over)
        return update_average(state, "decoder.variance", variance, self.decay)


def shared_shape(image_shape: tuple[int, int, int], over: Over) -> tuple[int, ...]:
    """The shape of what images (C, H, W) share: of `shared_mean`.

    >>> shared_shape((3, 8, 8), "channel"), shared_shape((3, 8, 8), "batch")
    ((3, 1, 1), ())
    """
    shape = {"channel": (image_shape[0], 1, 1), "pixel": image_shape}
    return shape.get(over, ())


def shared_mean(error: Tensor, over: Over) -> Tensor:
    """The mean of errors (..., C, H, W) over all that shares one scale across images.

    >>> shared_mean(torch.ones(5, 3, 8, 8), "channel").shape
    torch.Size([3, 1, 1])
    """
    error = error.reshape(-1, *error.shape[-3:])
    if over == "pixel":
        return error.mean(dim=0)
    if over == "channel":
        return error.mean(dim=(0, -2, -1), keepdim=True).reshape(-1, 1, 1)
    return error.mean()


@decoder("optimal_per_image")
class OptimalPerImage(OptimalGaussian):
    """Gaussian with σ² = MSE of each image in training.

    >>> images = torch.tensor([0.1, 0.3]).view(2, 1, 1, 1)
    >>> decoder = OptimalPerImage(link="identity")
    >>> decoder(torch.zeros(2, 1, 1, 1), decoder.initial_state((1, 1, 1)), images).stddev.flatten()
    tensor([0.1000, 0.3000])
    """

    over: Literal["image"] = "image"
