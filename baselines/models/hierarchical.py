"""A top-down hierarchical VAE: groups of latents, each given those above it."""

import math
from collections import Counter
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.layers import full_precision, image_convolution, output_head, scale_of
from baselines.levels import counts
from baselines.models.base import Context, Draw, GaussianDraw, Model, Moments, gaussian_draw
from baselines.options import Count, Levels, Size, model
from baselines.state import State


def scaled_weight(layer: nn.Conv2d, gain: float) -> nn.Conv2d:
    """The layer with its weight times `gain` and no bias.

    >>> scaled_weight(nn.Conv2d(1, 1, 1), 0.0).bias.item()
    0.0
    """
    with torch.no_grad():
        layer.weight.mul_(gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def enlarged(value: Tensor, side: int) -> Tensor:
    """Feature maps (B, C, r, r) at a multiple of their resolution, each pixel repeated.

    >>> enlarged(torch.tensor([[[[1.0]]]]), 2)
    tensor([[[[1., 1.],
              [1., 1.]]]])
    """
    if value.shape[-1] == 1:
        # Channels innermost, in which a 1x1 map does not differ and which the rest inherits.
        pixels = value.permute(0, 2, 3, 1).expand(-1, side, side, -1)
        return pixels.contiguous().permute(0, 3, 1, 2)
    return F.interpolate(value, scale_factor=float(side // value.shape[-1]))


class Block(nn.Module):
    """A bottleneck before whose convolutions, 1x1, 3x3, 3x3 and 1x1, there is a SiLU.

    Feature maps of up to 2x2 have 1x1 convolutions throughout. The last weight begins at `gain`
    times torch's (Child 2021, section 3). No normalisation: images of a batch do not mix.

    >>> Block(4, 2, 6, side=8, gain=0.0)(torch.randn(5, 4, 8, 8)).abs().max().item()
    0.0
    """

    def __init__(self, inputs: int, middle: int, outputs: int, *, side: int, gain: float) -> None:
        super().__init__()
        kernel = 3 if side > 2 else 1
        self.body = nn.Sequential()
        for size, to, width in ((1, inputs, middle), *((kernel, middle, middle),) * 2):
            convolution = nn.Conv2d(to, width, size, padding=size // 2)
            self.body.extend([nn.SiLU(), scaled_weight(convolution, 1.0)])
        self.body.append(nn.SiLU())
        self.last = scaled_weight(nn.Conv2d(middle, outputs, 1), gain)

    def forward(self, value: Tensor) -> Tensor:
        result: Tensor = self.last(self.body(value))
        return result

    def precise(self, value: Tensor) -> Tensor:
        """The same with the last convolution in float32."""
        return full_precision(self.last, self.body(value))


class Residual(Block):
    """x + block(x), the width staying the same.

    >>> features = torch.randn(5, 4, 8, 8)
    >>> torch.equal(Residual(4, 2, side=8, gain=0.0)(features), features)
    True
    """

    def __init__(self, width: int, middle: int, *, side: int, gain: float) -> None:
        super().__init__(width, middle, width, side=side, gain=gain)

    def forward(self, value: Tensor) -> Tensor:
        return value + super().forward(value)


class Group(nn.Module):
    """One group of latents (z, r, r): its prior and posterior given the groups above.

    The latent u has the prior N(0, I) and the posterior N(Δ, s(a_r)²). It moves the features as
    μ_p + s(a_p)·u: the relative posterior of NVAE (Vahdat & Kautz 2020) in units of the prior's
    scale, the generative family of VDVAE (Child 2021).

    >>> group = Group(4, 2, 3, side=8, gain=1.0)
    >>> features = torch.randn(5, 4, 8, 8)
    >>> mean, log_variance = group.posterior_of(features, features)
    >>> mean.shape, group(features, mean).shape
    (torch.Size([5, 192]), torch.Size([5, 4, 8, 8]))
    """

    def __init__(self, width: int, middle: int, latent: int, *, side: int, gain: float) -> None:
        super().__init__()
        self.latent, self.width, self.side = latent, width, side
        self.prior = Block(width, middle, 2 * latent + width, side=side, gain=0)
        self.posterior = Block(2 * width, middle, 2 * latent, side=side, gain=0)
        self.projection = scaled_weight(nn.Conv2d(latent, width, 1), gain)
        self.residual = Residual(width, middle, side=side, gain=gain)

    def posterior_of(self, features: Tensor, activation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of u, (B, z·r·r) each, from the features and the encoder's."""
        raw = self.posterior.precise(torch.cat([features, activation], dim=1))
        mean, scale = raw.flatten(1).chunk(2, dim=1)
        return mean, 2 * scale_of(scale).log()

    def maps(self, values: Tensor) -> Tensor:
        """Values of each latent, (B, z·r·r), as maps (B, z, r, r)."""
        maps: Tensor = values.unflatten(1, (self.latent, self.side, self.side))
        return maps

    def forward(self, features: Tensor, latent: Tensor) -> Tensor:
        """The features (B, width, r, r) after the group, whose u is (B, z·r·r)."""
        raw = self.prior.precise(features)
        mean, scale, shift = raw.split([self.latent, self.latent, self.width], dim=1)
        value = mean + scale_of(scale) * self.maps(latent)
        result: Tensor = self.residual(features + shift + self.projection(value))
        return result


@model("hierarchical")
class Hierarchical(Model):
    """A top-down hierarchical VAE of VDVAE's blocks, its latents in units of their prior.

    Stands in for the paper's HVAE, whose size is unpublished. Feature maps are the images' side
    halved while that is even and above 4, then 1. `groups` and `encoder` count the groups of
    latents and the encoder's blocks at each: `1@1 2@4`; `below` means each resolution below the
    images' and `full` the images' own. `latent` is the channels of one group, `middle` the width
    inside a block. `size` stands for a set of options: tiny (the defaults), small, stand_in, vdvae.

    At the start every posterior is the prior, so that the rate is 0.

    >>> model = Hierarchical(channels=1, resolution=28)
    >>> model.parts
    {'1x1': 8, '7x7': 392, '14x14': 1568}
    >>> sum(parameter.numel() for parameter in model.parameters())
    88129
    """

    honours_detached_outputs = True
    sizes = {  # noqa: RUF012
        "tiny": {},
        "small": {
            "width": 64, "middle": 32, "latent": 16, "groups": "1@1 2@4 4@8 8@16",
            "encoder": "1@1 2@4 3@8 4@16 2@32", "output_blocks": 2,
        },
        "stand_in": {
            "width": 256, "middle": 128, "latent": 32, "groups": "1@1 2@4 4@8 8@16",
            "encoder": "1@1 2@4 4@8 6@16 3@32", "output_blocks": 2,
        },
        "vdvae": {
            "width": 384, "middle": 96, "latent": 16, "groups": "1@1 3@4 6@8 11@16 22@32",
            "encoder": "3@1 4@4 7@8 7@16 12@32", "output_blocks": 0,
        },
    }  # fmt: skip

    latent: Size = 8
    width: Size = 32
    middle: Size = 16
    groups: Levels = "1@below"
    encoder: Levels = "1@below"
    output_blocks: Count = 0

    def setup(self) -> None:
        groups, blocks = self._counts("groups"), self._counts("encoder")
        if not groups[1]:
            raise ValueError(f"groups: '{self.groups}' has none at resolution 1, where the top is")
        width, middle = self.width, self.middle
        self.stem = nn.Conv2d(self.channels, width, 3, padding=1)
        gain = 1 / math.sqrt(max(1, sum(blocks.values())))
        self.bottom_up = nn.ModuleDict(
            {
                str(side): nn.Sequential(
                    *(Residual(width, middle, side=side, gain=gain) for _ in range(count))
                )
                for side, count in blocks.items()
            }
        )
        self._sides = tuple(side for side in reversed(groups) if groups[side])
        gain = 1 / math.sqrt(sum(groups.values()))
        self.top_down = nn.ModuleList(
            Group(width, middle, self.latent, side=side, gain=gain)
            for side in self._sides
            for _ in range(groups[side])
        )
        self.offsets = nn.ParameterDict(
            {
                str(side): nn.Parameter(torch.zeros(width, side, side))
                for side in (*self._sides, self.resolution)
            }
        )
        self.last_blocks = nn.Sequential(
            *(
                Residual(width, middle, side=self.resolution, gain=gain)
                for _ in range(self.output_blocks)
            )
        )

        def last(outputs: int) -> nn.Module:
            return image_convolution(width, outputs * self.channels)

        self.output = last(self.outputs - self.detached_outputs)
        self.stopped = last(self.detached_outputs) if self.detached_outputs else None

    def _counts(self, option: str) -> dict[int, int]:
        try:
            return counts(getattr(self, option), self.resolution)
        except ValueError as error:
            raise ValueError(f"{option}: {error}") from None

    @property
    def noise_size(self) -> int:
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, int]:
        """The groups, the top first: `7x7`, or `7x7.1` and so on where there are several."""
        sides = [group.side for group in self._groups()]
        seen: Counter[int] = Counter()
        found = {}
        for side in sides:
            seen[side] += 1
            number = f".{seen[side]}" if sides.count(side) > 1 else ""
            found[f"{side}x{side}{number}"] = self.latent * side * side
        return found

    def _groups(self) -> Iterator[Group]:
        for group in self.top_down:
            assert isinstance(group, Group)
            yield group

    def encode(self, images: Tensor, state: State, *, training: bool) -> tuple[Context, State]:
        """The top group's mean and log variance, then the activations, from the top down."""
        value = self.stem(2 * images - 1)
        activations: list[Tensor] = []
        for side, blocks in self.bottom_up.items():
            if value.shape[-1] > int(side):
                value = F.avg_pool2d(value, value.shape[-1] // int(side))
            value = blocks(value)
            if int(side) in self._sides:
                activations.insert(0, value)
        mean, log_variance = next(self._groups()).posterior_of(self._top(images), activations[0])
        return (mean, log_variance, *activations), {}

    def draw(self, context: Context, noise: Tensor, state: State, *, training: bool) -> Draw:
        output, posteriors, draws = self._descend(noise, context)
        rate = torch.stack([drawn.rate for drawn in draws], dim=1)
        log_ratio = torch.stack([drawn.log_ratio for drawn in draws]).sum(0)
        return Draw(output, rate, log_ratio, {}, posteriors)

    def generate(self, noise: Tensor, state: State) -> Tensor:
        return self._descend(noise)[0]

    def top(self, context: Context) -> Moments:
        return context[0], context[1]

    def _descend(
        self, noise: Tensor, context: Context | None = None
    ) -> tuple[Tensor, tuple[Moments, ...], list[GaussianDraw]]:
        """Raw output, and each group's posterior and draw; with no context u is the noise."""
        features = self._top(noise)
        activations = dict(zip(self._sides, context[2:], strict=True)) if context else {}
        posteriors: list[Moments] = []
        draws: list[GaussianDraw] = []
        parts = noise.split(list(self.parts.values()), dim=1)
        for group, latent in zip(self._groups(), parts, strict=True):
            features = self._at(group.side, features)
            if context:
                mean, log_variance = (
                    group.posterior_of(features, activations[group.side])
                    if draws
                    else self.top(context)
                )
                posteriors.append((group.maps(mean), group.maps(log_variance)))
                draws.append(gaussian_draw(mean, log_variance, latent))
                latent = draws[-1].latent
            features = group(features, latent)
        features = self.last_blocks(self._at(self.resolution, features))
        return output_head(self.output, self.stopped, F.silu(features)), tuple(posteriors), draws

    def _top(self, batch: Tensor) -> Tensor:
        """The features above the top group, which are the same for each of a batch."""
        offset: Tensor = self.offsets["1"]
        return offset.expand(len(batch), -1, -1, -1)

    def _at(self, side: int, features: Tensor) -> Tensor:
        """The features at a resolution, with its offset where they came from another."""
        if features.shape[-1] == side:
            return features
        # Channels innermost, as the features are: the sum over a batch in the offset's gradient
        # then takes a quarter of the time.
        offset: Tensor = self.offsets[str(side)].permute(1, 2, 0)
        return (enlarged(features, side).permute(0, 2, 3, 1) + offset).permute(0, 3, 1, 2)
