"""A decoder with its state, for the output of anybody's network in anybody's training loop."""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from baselines.decoders.base import Decoder, descended
from baselines.state import State, is_empty


class Head(nn.Module):
    """p(x|z) on top of a network, as a loss, a score, a mean and samples.

    The network gives `decoder.outputs` channels per channel of the image, with any leading
    dimensions: (C', H, W), (B, C', H, W), (T, B, C', H, W). What training has to remember, such as
    a running σ, is in buffers, so it is saved and moved with the module.

    >>> from baselines.decoders.gaussian import OptimalGaussian
    >>> head = Head(OptimalGaussian(link="identity"), image_shape=(1, 8, 8))
    >>> x, rate = torch.full((5, 1, 8, 8), 0.2), torch.zeros(5)
    >>> loss = head.loss(torch.zeros(5, 1, 8, 8), x, rate)
    >>> head.eval()(torch.zeros(1, 8, 8)).stddev.unique()  # the root mean squared error above
    tensor([0.2000])
    """

    def __init__(self, decoder: Decoder, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.decoder = decoder
        self.image_shape = image_shape
        # A buffer's name has no dots.
        self._buffer_of = {}
        for name, value in decoder.initial_state(image_shape).items():
            self._buffer_of[name] = name.replace(".", "_")
            self.register_buffer(self._buffer_of[name], value)

    @property
    def state(self) -> State:
        """The decoder's state; empty where it remembers nothing."""
        return {name: self.get_buffer(buffer) for name, buffer in self._buffer_of.items()}

    def loss(self, output: Tensor, x: Tensor, rate: Tensor) -> Tensor:
        """What training descends, in nats per image, averaged over images: a scalar.

        Its value is the negative ELBO; its gradient is that of the decoder's surrogate where it has
        one. While the module is in training mode, a running σ is updated.

        Arguments:
            output: of the network, (..., outputs * C, H, W).
            x: images (..., C, H, W) in [0, 1].
            rate: KL(q(z|x) || p(z)) in nats per image, (...), or its mean, a scalar.

        Raises:
            ValueError: shapes that do not fit, or images that are no floats.
        """
        self._require_fitting(output, x)
        images = x.shape[:-3]
        if rate.shape not in (images, torch.Size()):
            raise ValueError(
                f"rate is {tuple(rate.shape)}; expected one number per image, {tuple(images)}, or "
                "their mean, ()"
            )
        # Whatever the leading dimensions, they are one batch.
        output, x = (value.reshape(-1, *value.shape[-3:]) for value in (output, x))
        distribution = self.decoder(output, self.state, x)
        if self.training:
            with torch.no_grad():
                for name, value in self.decoder.update(distribution, x, self.state).items():
                    self.get_buffer(self._buffer_of[name]).copy_(value)
        value = rate.mean() - distribution.log_prob(x).mean()
        rates = rate.expand(images).flatten()
        return descended(value, self.decoder.surrogate(distribution, x, rates))

    def forward(self, output: Tensor) -> Distribution:
        """p(x|z) of the images, σ as training left it; event shape (C, H, W).

        Raises:
            ValueError: the output's shape does not fit.
            RuntimeError: σ comes from training, and there was none.
        """
        self._require_fitting(output)
        if is_empty(self.state):
            raise RuntimeError(
                f"{type(self.decoder).__name__} takes σ from training batches and has seen none; "
                "call `loss` in training mode first, or load a trained state_dict"
            )
        distribution: Distribution = self.decoder(output, self.state)
        return distribution

    def score(self, output: Tensor, x: Tensor) -> Tensor:
        """-ln p(x|z) in nats per image, (...), σ as training left it.

        A density, or a probability where `decoder.is_discrete`; no likelihood of the data unless
        `decoder.is_likelihood`. `x` as for `loss`.

        Raises:
            ValueError, RuntimeError: as `loss` and `forward` do.
        """
        self._require_fitting(output, x)
        score: Tensor = -self(output).log_prob(x)
        return score

    def mean(self, output: Tensor) -> Tensor:
        """The mean images, (..., C, H, W); raises as `forward` does."""
        mean: Tensor = self(output).mean
        return mean

    def sample(self, output: Tensor) -> Tensor:
        """One draw of each image, (..., C, H, W), without a gradient; raises as `forward` does."""
        draw: Tensor = self(output).sample()
        return draw

    def _require_fitting(self, output: Tensor, x: Tensor | None = None) -> None:
        channels, height, width = self.image_shape
        expected = (channels * self.decoder.outputs, height, width)
        if output.shape[-3:] != expected:
            raise ValueError(
                f"the network's output is {tuple(output.shape)}; {type(self.decoder).__name__} "
                f"needs (..., {', '.join(map(str, expected))}) for images {self.image_shape}"
            )
        if x is None:
            return
        if x.shape != (*output.shape[:-3], *self.image_shape) or not x.is_floating_point():
            raise ValueError(
                f"the images are {tuple(x.shape)}, {x.dtype}; expected floats in [0, 1], "
                f"{(*output.shape[:-3], *self.image_shape)}"
            )
