"""The small convolutional VAEs of the paper's two releases."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.models.base import Context, GaussianLatentModel, full_precision, read_out
from baselines.models.transposed import ConvTranspose2d
from baselines.state import State, new_average, read_average, update_average


def _quarter(resolution: int) -> int:
    if resolution % 4:
        raise ValueError(f"resolution {resolution} is not a multiple of 4")
    return resolution // 4


class ConvVae(GaussianLatentModel):
    """The PyTorch release's network: three convolutions, three transposed ones, ReLU.

    Images (B, C, R, R); feature maps f at R, 2f at R/2, 4f at R/4, f = `width`.
    """

    def __init__(
        self,
        *,
        channels: int,
        resolution: int,
        outputs: int,
        stopped: int,
        width: int,
        latent: int,
    ) -> None:
        super().__init__()
        f, side = width, _quarter(resolution)
        self.image_shape = (channels, resolution, resolution)
        self.noise_size = latent
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, f, 3, stride=1, padding=1),
            nn.ReLU(),
            nn.Conv2d(f, 2 * f, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * f, 4 * f, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Flatten(),
        )
        # The release's two heads, mean and log variance, side by side in one product.
        self.head = nn.Linear(4 * f * side * side, 2 * latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, 4 * f * side * side),
            nn.Unflatten(1, (4 * f, side, side)),
            ConvTranspose2d(4 * f, 2 * f, 6, stride=2, padding=2),
            nn.ReLU(),
            ConvTranspose2d(2 * f, f, 6, stride=2, padding=2),
            nn.ReLU(),
        )

        def last(outputs: int) -> nn.Module:
            return ConvTranspose2d(f, outputs * channels, 5, stride=1, padding=2)

        self.output = last(outputs - stopped)
        self.stopped = last(stopped) if stopped else None

    def encode(self, images: Tensor, state: State, *, training: bool) -> tuple[Context, State]:
        mean, log_variance = full_precision(self.head, self.encoder(images)).chunk(2, dim=-1)
        return (mean, log_variance), {}

    def decode(self, latent: Tensor, state: State, *, training: bool) -> tuple[Tensor, State]:
        return read_out(self.output, self.stopped, self.decoder(latent)), {}


class BatchNorm(nn.Module):
    """Batch normalisation that returns its running statistics instead of writing them.

    Normalises (B, C, H, W) by the batch in training and by bias-corrected running averages else
    (Ioffe & Szegedy 2015; ε = 1e-3 as the TensorFlow release).
    """

    epsilon = 1e-3

    def __init__(self, name: str, channels: int, decay: float) -> None:
        super().__init__()
        self.name, self.channels, self.decay = name, channels, decay
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def initial_state(self) -> State:
        return new_average(self.name, 2, self.channels)

    def forward(self, value: Tensor, state: State, *, training: bool) -> tuple[Tensor, State]:
        if training:
            variance, mean = torch.var_mean(value.float(), dim=(0, 2, 3), correction=0)
            moments = torch.stack([mean, variance])
            changed = update_average(state, self.name, moments, self.decay)
        else:
            mean, variance = read_average(state, self.name)
            changed = {}
        value = F.batch_norm(
            value,
            None if training else mean,
            None if training else variance,
            self.weight,
            self.bias,
            training=training,
            eps=self.epsilon,
        )
        return value, changed


class ConvVaeTf(GaussianLatentModel):
    """The TensorFlow release's network: two 5x5 convolutions each way, batch norm, leaky ReLU.

    It works on data in [-1, 1] and ends in tanh. Decoders speak of [0, 1], so the last layer's
    output is doubled instead: (tanh(a) + 1) / 2 = sigmoid(2a) exactly, and every σ, β and
    likelihood is on the [0, 1] scale of all other models. (σ = 1 on [-1, 1] is σ = ½ here.)
    """

    def __init__(
        self,
        *,
        channels: int,
        resolution: int,
        outputs: int,
        stopped: int,
        width: int,
        latent: int,
        decay: float,
    ) -> None:
        super().__init__()
        f, side = width, _quarter(resolution)
        self.image_shape = (channels, resolution, resolution)
        self.noise_size = latent
        self.conv1 = nn.Conv2d(channels, f, 5, stride=2, padding=2, bias=False)
        self.norm1 = BatchNorm("encoder.norm1", f, decay)
        self.conv2 = nn.Conv2d(f, 2 * f, 5, stride=2, padding=2, bias=False)
        self.norm2 = BatchNorm("encoder.norm2", 2 * f, decay)
        self.head = nn.Linear(2 * f * side * side, 2 * latent)
        self.latent = nn.Sequential(
            nn.Linear(latent, 2 * f * side * side), nn.ReLU(), nn.Unflatten(1, (2 * f, side, side))
        )
        self.deconv = nn.ConvTranspose2d(
            2 * f, f, 5, stride=2, padding=2, output_padding=1, bias=False
        )
        self.norm3 = BatchNorm("decoder.norm", f, decay)

        def last(outputs: int) -> nn.Module:
            return nn.ConvTranspose2d(
                f, outputs * channels, 5, stride=2, padding=2, output_padding=1
            )

        self.output = last(outputs - stopped)
        self.stopped = last(stopped) if stopped else None

    def initial_state(self) -> State:
        return {
            **self.norm1.initial_state(),
            **self.norm2.initial_state(),
            **self.norm3.initial_state(),
        }

    def encode(self, images: Tensor, state: State, *, training: bool) -> tuple[Context, State]:
        value, changed1 = self.norm1(self.conv1(2 * images - 1), state, training=training)
        value = F.leaky_relu(value, 0.2)
        value, changed2 = self.norm2(self.conv2(value), state, training=training)
        value = F.leaky_relu(value, 0.2).flatten(1)
        mean, log_variance = full_precision(self.head, value).chunk(2, dim=-1)
        return (mean, log_variance), {**changed1, **changed2}

    def decode(self, latent: Tensor, state: State, *, training: bool) -> tuple[Tensor, State]:
        value, changed = self.norm3(self.deconv(self.latent(latent)), state, training=training)
        return 2 * read_out(self.output, self.stopped, F.relu(value)), changed
