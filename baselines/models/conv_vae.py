"""The small convolutional VAEs of the paper's two releases."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from baselines.layers import BatchNorm, ConvTranspose2d, affine, full_precision, output_head
from baselines.models.base import Context, GaussianLatentModel
from baselines.options import Decay, Size, model
from baselines.state import State


def quarter(resolution: int) -> int:
    """The side of the feature maps after two halvings.

    Raises:
        ValueError: the resolution is not a multiple of 4.

    >>> quarter(28)
    7
    """
    if resolution % 4:
        raise ValueError(f"resolution {resolution} is not a multiple of 4")
    return resolution // 4


@model("conv_vae")
class ConvVae(GaussianLatentModel):
    """The small convolutional VAE of the PyTorch release (ReLU, 6x6 transposed convolutions).

    Three convolutions, three transposed ones. Images (B, C, R, R); feature maps f at R, 2f at R/2,
    4f at R/4, f = `width`.

    >>> model = ConvVae(channels=3, resolution=28)
    >>> sum(parameter.numel() for parameter in model.parameters())
    992427
    """

    honours_detached_outputs = True

    width: Size = 32

    def setup(self) -> None:
        channels, f, side = self.channels, self.width, quarter(self.resolution)
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
        self.head = nn.Linear(4 * f * side * side, 2 * self.latent)
        self.decoder = nn.Sequential(
            nn.Linear(self.latent, 4 * f * side * side),
            nn.Unflatten(1, (4 * f, side, side)),
            ConvTranspose2d(4 * f, 2 * f, 6, stride=2, padding=2),
            nn.ReLU(),
            ConvTranspose2d(2 * f, f, 6, stride=2, padding=2),
            nn.ReLU(),
        )

        def last(outputs: int) -> nn.Module:
            return ConvTranspose2d(f, outputs * channels, 5, stride=1, padding=2)

        self.output = last(self.outputs - self.detached_outputs)
        self.stopped = last(self.detached_outputs) if self.detached_outputs else None

    def encode(self, images: Tensor, state: State, *, training: bool) -> tuple[Context, State]:
        mean, log_variance = full_precision(self.head, self.encoder(images)).chunk(2, dim=-1)
        return (mean, log_variance), {}

    def decode(self, latent: Tensor, state: State, *, training: bool) -> tuple[Tensor, State]:
        # No activation comes between the first product and the first convolution.
        first, rest = self.decoder[:3], self.decoder[3:]
        # In training one product in bfloat16 would round otherwise than the two.
        maps = first(latent) if training else affine(first, latent)
        return output_head(self.output, self.stopped, rest(maps)), {}


@model("conv_vae_tf")
class ConvVaeTf(GaussianLatentModel):
    """The small convolutional VAE of the TensorFlow release (batch norm, leaky ReLU, tanh).

    Two 5x5 convolutions each way. The release works on data in [-1, 1] and ends in tanh. Decoders
    expect [0, 1], so the last layer's output is doubled instead: (tanh(a) + 1) / 2 = sigmoid(2a)
    exactly, and every σ, β and likelihood is on the [0, 1] scale of all other models. (σ = 1 on
    [-1, 1] is σ = ½ here.)

    >>> model = ConvVaeTf(channels=1, resolution=28, width=4)
    >>> sorted(model.initial_state())[:2]
    ['decoder.norm', 'decoder.norm.weight']
    """

    honours_detached_outputs = True

    width: Size = 64
    decay: Decay = 0.99

    def setup(self) -> None:
        channels, f, side = self.channels, self.width, quarter(self.resolution)
        self.conv1 = nn.Conv2d(channels, f, 5, stride=2, padding=2, bias=False)
        self.norm1 = BatchNorm("encoder.norm1", f, self.decay)
        self.conv2 = nn.Conv2d(f, 2 * f, 5, stride=2, padding=2, bias=False)
        self.norm2 = BatchNorm("encoder.norm2", 2 * f, self.decay)
        self.head = nn.Linear(2 * f * side * side, 2 * self.latent)
        self.features = nn.Sequential(
            nn.Linear(self.latent, 2 * f * side * side),
            nn.ReLU(),
            nn.Unflatten(1, (2 * f, side, side)),
        )
        self.deconv = nn.ConvTranspose2d(
            2 * f, f, 5, stride=2, padding=2, output_padding=1, bias=False
        )
        self.norm3 = BatchNorm("decoder.norm", f, self.decay)

        def last(outputs: int) -> nn.Module:
            return nn.ConvTranspose2d(
                f, outputs * channels, 5, stride=2, padding=2, output_padding=1
            )

        self.output = last(self.outputs - self.detached_outputs)
        self.stopped = last(self.detached_outputs) if self.detached_outputs else None
        self.register_load_state_dict_pre_hook(_with_present_names)  # type: ignore[no-untyped-call]

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
        value, changed = self.norm3(self.deconv(self.features(latent)), state, training=training)
        return 2 * output_head(self.output, self.stopped, F.relu(value)), changed


def _with_present_names(module: nn.Module, weights: dict[str, Any], prefix: str, *_: Any) -> None:
    """Weights of earlier versions called `features` as the option is called, `latent`."""
    old = f"{prefix}latent."
    for name in [name for name in weights if name.startswith(old)]:
        weights[f"{prefix}features.{name.removeprefix(old)}"] = weights.pop(name)
