"""What every model is: data in, one posterior draw's raw output, rate and density ratio out."""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from baselines.options import Configured, Count, Given, Size
from baselines.sizes import Sizes
from baselines.state import State

Context = tuple[Tensor, ...]
"""What the encoder knows of a batch of images; every tensor's first dimension is the batch."""


Moments = tuple[Tensor, Tensor]
"""Mean and log variance of a diagonal Gaussian."""


class Draw(NamedTuple):
    """One draw z ~ q(z|x) for each image of a batch.

    Attributes:
        output: raw network output for the decoder, (B, outputs * C, H, W), float32; of a sequence
            (B, frames, outputs * C, H, W), for each frame of `Model.target`.
        rate: KL(q(z|x) || p(z)) in nats by part of the latent, (B, parts), in closed form where
            there is one; the sum over parts is the rate of the image.
        log_ratio: ln p(z) - ln q(z|x) at the draw, in nats, (B,), for importance weights.
        state: the model's state entries that this batch changed (training only).
        posteriors: mean and log variance of q, (B, channels, ...) each, by part of the latent,
            relative to a prior N(0, I) and given the draw of the parts before; the latents in use
            are counted from them. None where the latent is not Gaussian.

    >>> Draw._fields
    ('output', 'rate', 'log_ratio', 'state', 'posteriors')
    """

    output: Tensor
    rate: Tensor
    log_ratio: Tensor
    state: State
    posteriors: tuple[Moments, ...] | None = None


class Model(Configured, nn.Module):
    """q(z|x), p(z) and the network in front of the decoder.

    All randomness comes in as `noise`, standard normal numbers (B, noise_size): no module draws
    its own, so that a step can be repeated, captured and vectorised. Nothing is written in
    `forward`: what training changes besides parameters is returned as state.

    Options are annotated attributes; see `baselines.options`. Besides them a model is given the
    images' `channels` and `resolution`, the `outputs` that its decoder needs per channel, and
    `detached_outputs`, how many of them, counted from the last, send no gradient into the features.

    Class attributes:
        honours_detached_outputs: whether it does that. If not, decoders that need it are refused.
        is_sequence: whether its data are videos; see `SequenceModel`.
        resolutions: the sides of the images that it takes; empty where its options or its `setup`
            say so.
        sizes: options by the name of a size; `size: NAME` stands for them, and the model's own
            defaults for the rest.

    >>> import torch
    >>> from baselines.models.conv_vae import ConvVae
    >>> model = ConvVae(channels=1, resolution=28, outputs=2, width=4)
    >>> model.generate(torch.randn(5, model.noise_size), model.initial_state()).shape
    torch.Size([5, 2, 28, 28])
    """

    kind = "model"
    honours_detached_outputs = False
    is_sequence = False
    resolutions: ClassVar[tuple[int, ...]] = ()
    sizes: ClassVar[Sizes] = {}

    channels: Given[Size]
    resolution: Given[Size]
    outputs: Given[Size] = 1
    detached_outputs: Given[Count] = 0
    latent: Size = 20

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the data."""
        return self.channels, self.resolution, self.resolution

    @property
    def data_shape(self) -> tuple[int, ...]:
        """The shape of one item of a batch: that of an image, or (frames, C, H, W)."""
        return self.image_shape

    @property
    def noise_size(self) -> int:
        """How many standard normal numbers one draw consumes: `latent`, unless overridden."""
        return self.latent

    @property
    def parts(self) -> dict[str, int]:
        """How many of these numbers each part of the latent takes, by the part's name.

        In the order of `noise` and of `Draw.rate`. One latent is one part; a hierarchy has a part
        for each group of latents.
        """
        return {"latent": self.noise_size}

    def initial_state(self) -> State:
        """Running statistics before the first batch."""
        return {}

    def scored(self, data: Tensor) -> Tensor:
        """The part of a data set's items that is scored: images (N, C, H, W) as they are."""
        return data

    def target(self, data: Tensor) -> Tensor:
        """What the decoder scores of a batch: the images (B, C, H, W) themselves."""
        return data

    def encode(self, images: Tensor, state: State, *, training: bool) -> tuple[Context, State]:
        """The context of images (B, C, H, W) in [0, 1], and the changed state entries."""
        raise NotImplementedError

    def draw(self, context: Context, noise: Tensor, state: State, *, training: bool) -> Draw:
        """One posterior draw per context row, decoded."""
        raise NotImplementedError

    def generate(self, noise: Tensor, state: State) -> Tensor:
        """Raw output (B, outputs * C, H, W) for draws from the prior."""
        raise NotImplementedError

    def top(self, context: Context) -> Moments | None:
        """Mean and log variance, (B, size) each, of the part that depends on the image alone.

        That part is the first of `parts`, is Gaussian given the image and has the prior N(0, I), so
        that its mutual information with the image can be estimated. None if there is no such part.
        """
        return None


class GaussianDraw(NamedTuple):
    """One draw of a Gaussian latent whose prior is N(0, I).

    Attributes:
        latent: the draw, (B, size).
        rate: KL(q || p) in nats, (B,).
        log_ratio: ln p - ln q at the draw, (B,).

    >>> GaussianDraw._fields
    ('latent', 'rate', 'log_ratio')
    """

    latent: Tensor
    rate: Tensor
    log_ratio: Tensor


def gaussian_rate(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) of each latent, nats.

    >>> import torch
    >>> gaussian_rate(torch.tensor([0.0, 2.0]), torch.zeros(2))
    tensor([0., 2.])
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def gaussian_draw(mean: Tensor, log_variance: Tensor, noise: Tensor) -> GaussianDraw:
    """A draw of N(mean, exp(log_variance)) by standard normal noise, all (B, size).

    >>> import torch
    >>> gaussian_draw(torch.ones(1, 3), torch.zeros(1, 3), torch.zeros(1, 3))  # ½ μ² each
    GaussianDraw(latent=tensor([[1., 1., 1.]]), rate=tensor([1.5000]), log_ratio=tensor([-1.5000]))
    """
    latent = mean + (0.5 * log_variance).exp() * noise
    rate = gaussian_rate(mean, log_variance).sum(-1)
    log_ratio = 0.5 * (noise.square() - latent.square() + log_variance).sum(-1)
    return GaussianDraw(latent, rate, log_ratio)


class GaussianLatentModel(Model):
    """A model with one latent vector, q(z|x) diagonal Gaussian and p(z) = N(0, I).

    The context is (mean, log variance), each (B, latent) and float32.

    >>> import torch
    >>> from baselines.models.linear_vae import LinearVae
    >>> model = LinearVae(channels=1, resolution=8, latent=3)
    >>> mean, log_variance = torch.ones(5, 3), torch.zeros(5, 3)
    >>> model.draw((mean, log_variance), torch.randn(5, 3), {}, training=False).rate  # ½ μ² each
    tensor([[1.5000], [1.5000], [1.5000], [1.5000], [1.5000]])
    """

    def decode(self, latent: Tensor, state: State, *, training: bool) -> tuple[Tensor, State]:
        """Raw output for latents (B, latent), and the changed state entries."""
        raise NotImplementedError

    def draw(self, context: Context, noise: Tensor, state: State, *, training: bool) -> Draw:
        posterior = self.top(context)
        latent, rate, log_ratio = gaussian_draw(*posterior, noise)
        output, changed = self.decode(latent, state, training=training)
        return Draw(output, rate.unsqueeze(-1), log_ratio, changed, (posterior,))

    def generate(self, noise: Tensor, state: State) -> Tensor:
        return self.decode(noise, state, training=False)[0]

    def top(self, context: Context) -> Moments:
        mean, log_variance = context
        return mean, log_variance


class SequenceModel(Model):
    """A model of videos, which predicts frames from those before them.

    Its data are (B, past + future, C, H, W). The first frame is given, and the decoder scores every
    later one: `target`. Training and scoring are teacher-forced: a frame's latent and output depend
    on true frames. `rate` has a part a frame, (B, past + future - 1), and so has the noise.

    `predict` knows the first `past` frames alone and rolls the model on from them.

    Options:
        past: frames that a prediction is given.
        future: further frames of a training sequence.
        horizon: frames that a prediction has; as many as `future` where it is None.

    >>> import torch
    >>> from baselines.models.svg import Svg
    >>> model = Svg(channels=1, resolution=32, width=4, past=2, future=3, horizon=6)
    >>> images, state = torch.rand(5, *model.data_shape), model.initial_state()
    >>> model.target(images).shape
    torch.Size([5, 4, 1, 32, 32])
    >>> noise = torch.randn(5, model.rollout_size)
    >>> model.predict(noise, state, images[:, : model.past], torch.sigmoid).shape
    torch.Size([5, 6, 1, 32, 32])
    """

    is_sequence = True

    past: Size = 5
    future: Size = 10
    horizon: Size | None = None

    @property
    def frames(self) -> int:
        """The frames of a sequence that is trained on or scored."""
        return self.past + self.future

    @property
    def predicted(self) -> int:
        """How many frames `predict` returns."""
        return self.horizon or self.future

    @property
    def data_shape(self) -> tuple[int, ...]:
        return self.frames, *self.image_shape

    @property
    def noise_size(self) -> int:
        return (self.frames - 1) * self.latent

    @property
    def rollout_size(self) -> int:
        """How many standard normal numbers one prediction consumes."""
        return (self.past - 1 + self.predicted) * self.latent

    @property
    def parts(self) -> dict[str, int]:
        """The frames after the first, by their place in the sequence, which is counted from 0."""
        return {f"frame {place}": self.latent for place in range(1, self.frames)}

    def scored(self, data: Tensor) -> Tensor:
        """The first `frames` frames of each video (N, T, C, H, W)."""
        return data[:, : self.frames]

    def target(self, data: Tensor) -> Tensor:
        """Every frame but the first, (B, past + future - 1, C, H, W)."""
        return data[:, 1:]

    def predict(
        self, noise: Tensor, state: State, given: Tensor, mean: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Raw output (B, predicted, outputs * C, H, W) for frames that follow the given ones.

        Arguments:
            noise: standard normal, (B, rollout_size).
            given: the first frames, (B, past, C, H, W) in [0, 1].
            mean: from raw output (B, outputs * C, H, W) to the mean image (B, C, H, W), which is
                fed back as if it were the true frame.
        """
        raise NotImplementedError
