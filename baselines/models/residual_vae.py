"""The autoencoder of latent diffusion: residual blocks around a small map of latents."""

import itertools
import math
from typing import Literal

from torch import Tensor, nn

from baselines.layers import full_precision, image_convolution, output_head
from baselines.models.base import Context, Draw, GaussianLatentModel
from baselines.options import Size, model
from baselines.state import State

LOG_VARIANCE = (-30.0, 20.0)
"""The bounds of a posterior's log variance, those of the published autoencoder."""


class GroupNorm(nn.GroupNorm):
    """Group normalisation (ε = 1e-6, as published), in float32 whatever the precision.

    It has `norm_groups` groups where these divide `width`, else their greatest common divisor.

    Autocast does that on CUDA alone, and on a CPU torch's bfloat16 kernel is the slower one. Images
    of a batch do not mix.

    >>> import torch
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     GroupNorm(16, 8)(torch.zeros(5, 16, 8, 8, dtype=torch.bfloat16)).dtype
    torch.bfloat16
    """

    def __init__(self, width: int, norm_groups: int) -> None:
        super().__init__(math.gcd(width, norm_groups), width, eps=1e-6)

    def forward(self, value: Tensor) -> Tensor:
        return full_precision(super().forward, value).to(value.dtype)


class Residual(nn.Module):
    """x + conv(SiLU(norm(conv(SiLU(norm(x)))))), with a 1x1 convolution of x to another width.

    >>> import torch
    >>> Residual(16, 32, norm_groups=8)(torch.randn(5, 16, 8, 8)).shape
    torch.Size([5, 32, 8, 8])
    """

    def __init__(self, inputs: int, outputs: int, *, norm_groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            GroupNorm(inputs, norm_groups),
            nn.SiLU(),
            nn.Conv2d(inputs, outputs, 3, padding=1),
            GroupNorm(outputs, norm_groups),
            nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, value: Tensor) -> Tensor:
        result: Tensor = self.shortcut(value) + self.body(value)
        return result


class Attention(nn.Module):
    """x plus one head of attention over all positions, which know nothing of their place.

    Written out, because the gradient of a fused kernel is not the same bits each time on a GPU.

    >>> import torch
    >>> attention = Attention(16, norm_groups=8)
    >>> maps = torch.randn(5, 16, 4, 4)
    >>> torch.allclose(attention(maps.flip(-1)), attention(maps).flip(-1), atol=1e-5)
    True
    """

    def __init__(self, width: int, *, norm_groups: int) -> None:
        super().__init__()
        self.norm = GroupNorm(width, norm_groups)
        # Queries, keys and values side by side in one product.
        self.inputs = nn.Conv2d(width, 3 * width, 1)
        self.projection = nn.Conv2d(width, width, 1)

    def forward(self, value: Tensor) -> Tensor:
        queries, keys, values = self.inputs(self.norm(value)).flatten(2).chunk(3, dim=1)
        scores = keys.transpose(1, 2) @ queries / math.sqrt(value.shape[1])
        # A column has the weights of one query.
        attended = values @ scores.softmax(1)
        result: Tensor = value + self.projection(attended.unflatten(2, value.shape[2:]))
        return result


@model("residual_vae")
class ResidualVae(GaussianLatentModel):
    """The autoencoder of latent diffusion: residual blocks around a map of latents, N(0, I) prior.

    `AutoencoderKL` of Rombach et al. (2022, arXiv 2112.10752); its perceptual and adversarial
    losses are left out. The latent is a map of `latent` channels, its side that of the images over
    `downsampling`. At 1/2ⁱ of the images' side features are `width` · min(2ⁱ, `widest`) wide, and
    there are `blocks` residual blocks in the encoder and one more in the decoder. `attention` puts
    a head of it in the middle of both. `norm_groups` counts the groups of channels that are
    normalised together. `size` stands for a set of options: tiny (the defaults), small, and the
    published kl_f4 and kl_f8.

    >>> model = ResidualVae(channels=3, resolution=32)
    >>> model.latent_shape
    (4, 8, 8)
    >>> sum(parameter.numel() for parameter in model.parameters())
    681911
    """

    honours_detached_outputs = True
    sizes = {  # noqa: RUF012
        "tiny": {},
        "small": {"width": 64, "norm_groups": 32},
        "kl_f4": {"latent": 3, "width": 128, "blocks": 2, "norm_groups": 32},
        "kl_f8": {"width": 128, "downsampling": 8, "blocks": 2, "norm_groups": 32},
    }

    latent: Size = 4
    width: Size = 16
    widest: Size = 4
    downsampling: Literal[2, 4, 8] = 4
    blocks: Size = 1
    attention: bool = True
    norm_groups: Size = 8

    def setup(self) -> None:
        if self.resolution % self.downsampling:
            side = self.resolution
            raise ValueError(
                f"downsampling {self.downsampling} does not divide the images' side {side}"
            )
        latent = self.latent
        widths = [
            self.width * min(2**level, self.widest)
            for level in range(int(math.log2(self.downsampling)) + 1)
        ]
        deepest = widths[-1]

        down: list[nn.Module] = [nn.Conv2d(self.channels, self.width, 3, padding=1)]
        inputs = self.width
        for level, width in enumerate(widths):
            if level:
                # Padded below and on the right only, as published.
                down += [nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(inputs, inputs, 3, stride=2)]
            down += self._residuals(inputs, width, self.blocks)
            inputs = width
        self.encoder = nn.Sequential(
            *down, *self._middle(deepest), GroupNorm(deepest, self.norm_groups), nn.SiLU()
        )
        self.head = nn.Sequential(
            nn.Conv2d(deepest, 2 * latent, 3, padding=1), nn.Conv2d(2 * latent, 2 * latent, 1)
        )

        self.first = nn.Sequential(
            nn.Conv2d(latent, latent, 1), nn.Conv2d(latent, deepest, 3, padding=1)
        )
        up: list[nn.Module] = self._middle(deepest)
        inputs = deepest
        for level, width in enumerate(reversed(widths)):
            if level:
                up += [nn.Upsample(scale_factor=2.0), nn.Conv2d(inputs, inputs, 3, padding=1)]
            up += self._residuals(inputs, width, self.blocks + 1)
            inputs = width
        self.decoder = nn.Sequential(*up, GroupNorm(self.width, self.norm_groups), nn.SiLU())

        def last(outputs: int) -> nn.Module:
            return image_convolution(self.width, outputs * self.channels)

        self.output = last(self.outputs - self.detached_outputs)
        self.stopped = last(self.detached_outputs) if self.detached_outputs else None

    def _residuals(self, inputs: int, width: int, count: int) -> list[nn.Module]:
        widths = [inputs, *[width] * count]
        return [
            Residual(before, after, norm_groups=self.norm_groups)
            for before, after in itertools.pairwise(widths)
        ]

    def _middle(self, width: int) -> list[nn.Module]:
        before, after = self._residuals(width, width, 2)
        if not self.attention:
            return [before, after]
        return [before, Attention(width, norm_groups=self.norm_groups), after]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """The channels, height and width of the map of latents."""
        side = self.resolution // self.downsampling
        return self.latent, side, side

    @property
    def noise_size(self) -> int:
        return math.prod(self.latent_shape)

    def encode(self, images: Tensor, state: State, *, training: bool) -> tuple[Context, State]:
        """Mean and log variance, (B, latents) each, the channels' maps one after the other."""
        raw = full_precision(self.head, self.encoder(2 * images - 1))
        mean, log_variance = raw.flatten(1).chunk(2, dim=1)
        return (mean, log_variance.clamp(*LOG_VARIANCE)), {}

    def draw(self, context: Context, noise: Tensor, state: State, *, training: bool) -> Draw:
        drawn = super().draw(context, noise, state, training=training)
        mean, log_variance = context
        maps = self._maps(mean), self._maps(log_variance)
        return drawn._replace(posteriors=(maps,))

    def decode(self, latent: Tensor, state: State, *, training: bool) -> tuple[Tensor, State]:
        # Eight bits of mantissa would round away a posterior that is narrow beside its mean.
        features = full_precision(self.first, self._maps(latent))
        return output_head(self.output, self.stopped, self.decoder(features)), {}

    def _maps(self, values: Tensor) -> Tensor:
        """Values of each latent, (B, latents), as maps (B, latent, H, W)."""
        maps: Tensor = values.unflatten(1, self.latent_shape)
        return maps
