"""Laplace decoders: the absolute error as a likelihood; they differ in where b comes from."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Laplace

from baselines.decoders.base import Decoder, soft_clip
from baselines.decoders.gaussian import shared_mean, shared_shape
from baselines.options import Decay, Over, Positive, decoder
from baselines.state import State, new_average, read_average, update_average

VALUES = 2**26
"""Values of the training images that are sorted at once."""


def laplace(location: Tensor, log_b: Tensor) -> Distribution:
    """exp(-|x - location| / b) / 2b over images (C, H, W), with b broadcast, in float32.

    >>> laplace(torch.zeros(5, 3, 8, 8), torch.tensor(0.0)).event_shape
    torch.Size([3, 8, 8])
    """
    b = log_b.float().exp()
    return Independent(Laplace(location, b, validate_args=False), 3, validate_args=False)


@decoder("laplace")
class LearnedLaplace(Decoder):
    """Laplace with one learned scale b for all pixels: the absolute error, calibrated.

    -ln p = Σ |x-μ|/b + D ln 2b, whose minimum over b is the mean absolute error. Its standard
    deviation is √2·b. The options are those of `shared`, with b in place of σ: `b_lr` multiplies
    the learning rate of ln b, and `initial_log_b: data` starts it where the best constant image
    leaves it: ln of the training images' mean absolute deviation from their median image.

    >>> decoder = LearnedLaplace(initial_log_b="data")
    >>> decoder.initialise(torch.tensor([0, 0, 153], dtype=torch.uint8).view(3, 1, 1, 1))
    >>> round(decoder.log_b.exp().item(), 3)  # 51/255
    0.2
    """

    min_log_b: float | None = -6.0
    max_log_b: float | None = None
    initial_log_b: float | Literal["data"] = 0.0
    b_lr: Positive = 1.0

    def setup(self) -> None:
        start = 0.0 if self.initial_log_b == "data" else self.initial_log_b
        self.log_b = nn.Parameter(torch.tensor(start))

    def initialise(self, images: Tensor) -> None:
        if self.initial_log_b == "data":
            with torch.no_grad():
                self.log_b.fill_(math.log(deviation_from_the_median_image(images)))

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        return laplace(self.mean(output), soft_clip(self.log_b, self.min_log_b, self.max_log_b))

    def learning_rates(self) -> dict[str, float]:
        return {} if math.isclose(self.b_lr, 1.0) else {"log_b": self.b_lr}


def deviation_from_the_median_image(images: Tensor) -> float:
    """The mean absolute deviation of 8-bit images (N, C, H, W) from their median, on [0, 1].

    It is at least half a grey level. Sums of integers are exact, whatever the device.

    >>> deviation_from_the_median_image(torch.zeros(3, 1, 2, 2, dtype=torch.uint8)) == 0.5 / 255
    True
    """
    total, middle = 0, len(images) // 2
    for values in images.flatten(1).split(max(1, VALUES // len(images)), dim=1):
        # With half of the values on each side of the median, it drops out of the sum.
        ordered = values.sort(dim=0).values
        upper, lower = ordered[len(images) - middle :], ordered[:middle]
        total += int(upper.sum(dtype=torch.int64) - lower.sum(dtype=torch.int64))
    return max(total / images.numel(), 0.5) / 255


@decoder("laplace_optimal")
class OptimalLaplace(Decoder):
    """Laplace with b = mean absolute error, the analytic optimum, of the axes in `over`.

    What `optimal` is to a Gaussian: in training b* is the batch's own, one number or one per image,
    channel, or pixel of each channel (`over`); in scoring it is the running average over training,
    of `image` one number. The gradient flows through b* unless `stop_gradient`. b* has a hard
    floor, exp(min_log_b).

    >>> decoder = OptimalLaplace(link="identity")
    >>> state, images = decoder.initial_state((1, 1, 2)), torch.tensor([[[[0.1, 0.3]]]])
    >>> training = decoder(torch.zeros(1, 1, 1, 2), state, images)
    >>> state = decoder.update(training, images, state)
    >>> scoring = decoder(torch.zeros(1, 1, 1, 2), state)
    >>> [round(law.base_dist.scale.mean().item(), 4) for law in (training, scoring)]
    [0.2, 0.2]
    """

    over: Over = "batch"
    stop_gradient: bool = False
    min_log_b: float = -6.0
    decay: Decay = 0.9

    def initial_state(self, image_shape: tuple[int, int, int]) -> State:
        return new_average("decoder.absolute_error", *shared_shape(image_shape, self.over))

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        location = self.mean(output)
        if target is None:
            b = read_average(state, "decoder.absolute_error")
        else:
            error = (target - location).abs()
            b = (
                error.mean(dim=(-3, -2, -1), keepdim=True)
                if self.over == "image"
                else shared_mean(error, self.over)
            )
            if self.stop_gradient:
                b = b.detach()
        return laplace(location, b.clamp_min(math.exp(self.min_log_b)).log())

    def update(self, distribution: Distribution, target: Tensor, state: State) -> State:
        b = shared_mean((target - distribution.mean).abs(), self.over)
        return update_average(state, "decoder.absolute_error", b, self.decay)


@decoder("laplace_fixed")
class FixedLaplace(Decoder):
    """Laplace with a fixed scale b, by hand or tuned: an absolute error and a weighted KL.

    Up to a constant, Σ |x-μ| + b·KL is b times its negative ELBO, with data in [0, 1]. The
    autoencoder of latent diffusion (arXiv 2112.10752) sums the absolute error over data in [-1, 1],
    twice as wide, beside 1e-6·KL: without its perceptual and adversarial terms that is b = 5e-7.

    >>> from baselines.beta import translate
    >>> translate("l1-sum", 1e-6, "3x256x256", data_range=2).laplace_b
    5e-07
    >>> FixedLaplace(b=0.5)(torch.zeros(1, 1, 1, 1), {}).variance.item()  # 2b²
    0.5
    """

    learns_scale = False

    b: Positive

    def setup(self) -> None:
        self.log_b = nn.Buffer(torch.tensor(math.log(self.b)), persistent=False)

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        return laplace(self.mean(output), self.log_b)
