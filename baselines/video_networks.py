"""The networks of SVG's frames, DCGAN's or VGG's: an encoder and a decoder with skips between them.

After Denton & Fergus 2018 (arXiv 1802.07687) and its release, edenton/svg. Feature maps have half
the side of those before, down to 4. The release's bias in front of a batch norm, which takes it out
again, is left away.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.layers import BatchNorm, ConvTranspose2d, FusedBatchNorm, output_head
from baselines.state import State

Network = Literal["dcgan", "vgg"]
ROOT = 4
"""The side of the smallest feature maps."""
CONVOLUTIONS: dict[Network, tuple[int, ...]] = {"dcgan": (1, 1, 1, 1), "vgg": (2, 2, 3, 3)}
"""How many a stage has, the frames' own side first."""


def stage_widths(width: int, side: int) -> list[int]:
    """The channels of each stage, each of which halves the side.

    >>> stage_widths(64, 64), stage_widths(16, 32)
    ([64, 128, 256, 512], [16, 32, 64])
    """
    return [width * 2**stage for stage in range((side // ROOT).bit_length() - 1)]


def initialise(module: nn.Module) -> None:
    """Give one module the release's initial weights, N(0, 0.02²) and no bias.

    A batch norm's are N(1, 0.02²); what else has parameters keeps them.

    >>> torch.nn.Sequential(torch.nn.Linear(3, 2)).apply(initialise)[0].bias.tolist()
    [0.0, 0.0]
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, BatchNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)


def leaky(value: Tensor) -> Tensor:
    """A leaky ReLU of slope 0.2.

    >>> leaky(torch.tensor([-1.0, 1.0]))
    tensor([-0.2000,  1.0000])
    """
    return F.leaky_relu(value, 0.2)


class Normalised(nn.Module):
    """A convolution, batch norm over all frames of a batch, and an activation.

    >>> layer = Normalised("norm", nn.Conv2d(3, 2, 1, bias=False), decay=0.9)
    >>> value, changed = layer(torch.randn(5, 3, 4, 4), layer.norm.initial_state(), training=True)
    >>> value.shape, sorted(changed)
    (torch.Size([5, 2, 4, 4]), ['norm', 'norm.weight'])
    """

    def __init__(
        self,
        name: str,
        convolution: nn.Conv2d | nn.ConvTranspose2d,
        decay: float,
        activation: Callable[[Tensor], Tensor] = leaky,
    ) -> None:
        super().__init__()
        self.convolution, self.activation = convolution, activation
        self.norm = FusedBatchNorm(name, convolution.out_channels, decay)

    def forward(
        self, value: Tensor, state: State, *, training: bool, added: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Feature maps, and the changed state entries; `added` joins before the batch norm."""
        value = self.convolution(value)
        if added is not None:
            value = value + added
        value, changed = self.norm(value, state, training=training)
        return self.activation(value), changed


class Stage(nn.Module):
    """Layers one after the other, at one resolution.

    >>> layers = [Normalised(name, nn.Conv2d(3, 3, 1, bias=False), 0.9) for name in ("one", "two")]
    >>> stage = Stage(layers)
    >>> value, changed = stage(torch.randn(5, 3, 4, 4), initial_state(stage), training=True)
    >>> sorted(changed)
    ['one', 'one.weight', 'two', 'two.weight']
    """

    def __init__(self, layers: Iterable[Normalised]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(
        self, value: Tensor, state: State, *, training: bool, added: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """As `Normalised`; `added` joins in the first layer."""
        changed: State = {}
        for layer in self.layers:
            value, new = layer(value, state, training=training, added=added)
            changed, added = changed | new, None
        return value, changed


class FrameHead(nn.Module):
    """The last convolution to raw output, of which `detached` outputs move no features.

    >>> FrameHead(lambda outputs: nn.Conv2d(3, outputs, 1), 2, 1)(torch.randn(5, 3, 4, 4)).shape
    torch.Size([5, 2, 4, 4])
    """

    def __init__(self, layer: Callable[[int], nn.Module], outputs: int, detached: int) -> None:
        super().__init__()
        self.output = layer(outputs - detached)
        self.stopped = layer(detached) if detached else None

    def forward(self, value: Tensor) -> Tensor:
        return output_head(self.output, self.stopped, value)


class FrameEncoder(nn.Module):
    """From frames to a vector each, and to the feature maps that the decoder may take as skips.

    >>> encoder = FrameEncoder("dcgan", 1, stage_widths(16, 32), 8, decay=0.9)
    >>> frames, state = torch.rand(5, 1, 32, 32), initial_state(encoder)
    >>> vectors, maps, _ = encoder(frames, state, training=True)
    >>> vectors.shape, [tuple(value.shape[1:]) for value in maps]
    (torch.Size([5, 8]), [(64, 4, 4), (32, 8, 8), (16, 16, 16)])
    """

    def __init__(
        self, network: Network, channels: int, widths: list[int], features: int, decay: float
    ) -> None:
        super().__init__()
        self.pools = network == "vgg"
        kernel, stride = (3, 1) if self.pools else (4, 2)
        self.stages = nn.ModuleList()
        below = channels
        for stage, width in enumerate(widths):
            layers = []
            for place in range(CONVOLUTIONS[network][stage]):
                convolution = nn.Conv2d(below, width, kernel, stride, padding=1, bias=False)
                layers.append(Normalised(f"encoder.{stage}.{place}", convolution, decay))
                below = width
            self.stages.append(Stage(layers))
        top = nn.Conv2d(below, features, ROOT, bias=False)
        self.top = Normalised("encoder.top", top, decay, torch.tanh)

    def forward(
        self, frames: Tensor, state: State, *, training: bool
    ) -> tuple[Tensor, list[Tensor], State]:
        """Vectors (N, features), maps (N, …), the smallest first, and the changed state entries."""
        value, changed = frames, State()
        maps: list[Tensor] = []
        for stage in self.stages:
            if self.pools and maps:
                value = F.max_pool2d(value, 2)
            value, new = stage(value, state, training=training)
            maps.insert(0, value)
            changed |= new
        if self.pools:
            value = F.max_pool2d(value, 2)
        vectors, new = self.top(value, state, training=training)
        return vectors.flatten(1), maps, changed | new


class FrameDecoder(nn.Module):
    """From a vector and skips to a frame's raw output.

    The first convolution of a stage sees the maps from below and a skip side by side in the
    release. It is linear: here it is the sum of two, so that `joined` convolves the skip of a frame
    once for all frames that use it.

    >>> decoder = FrameDecoder("dcgan", 1, stage_widths(16, 32), 8, decay=0.9)
    >>> maps = [torch.rand(5, 64, 4, 4), torch.rand(5, 32, 8, 8), torch.rand(5, 16, 16, 16)]
    >>> state = initial_state(decoder)
    >>> decoder(torch.rand(5, 8), decoder.joined(maps), state, training=True)[0].shape
    torch.Size([5, 1, 32, 32])
    """

    def __init__(
        self,
        network: Network,
        channels: int,
        widths: list[int],
        features: int,
        decay: float,
        *,
        outputs: int = 1,
        detached: int = 0,
    ) -> None:
        super().__init__()
        self.enlarges = network == "vgg"
        root = nn.ConvTranspose2d(features, widths[-1], ROOT, bias=False)
        self.root = Normalised("decoder.root", root, decay)
        self.skips, self.stages = nn.ModuleList(), nn.ModuleList()

        def convolution(inputs: int, width: int) -> nn.Conv2d | nn.ConvTranspose2d:
            if self.enlarges:
                return nn.Conv2d(inputs, width, 3, padding=1, bias=False)
            return nn.ConvTranspose2d(inputs, width, 4, 2, padding=1, bias=False)

        def head(*, bias: bool) -> FrameHead:
            def last(count: int) -> nn.Module:
                kernel, stride = (3, 1) if self.enlarges else (4, 2)
                return ConvTranspose2d(
                    widths[0], count * channels, kernel, stride, padding=1, bias=bias
                )

            return FrameHead(last, outputs, detached)

        for stage in reversed(range(len(widths))):
            width = widths[stage]
            # The last has the channels of the stage that follows; after all stages it is `output`.
            sizes = [width] * (CONVOLUTIONS[network][stage] - 1) + widths[:stage][-1:]
            self.skips.append(convolution(width, sizes[0]) if sizes else head(bias=False))
            if sizes:
                self.stages.append(
                    Stage(
                        Normalised(f"decoder.{stage}.{place}", convolution(width, size), decay)
                        for place, size in enumerate(sizes)
                    )
                )
        self.output = head(bias=True)

    def joined(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """What the encoder's maps (N, …) add to each stage, to be passed on as `added`."""
        return [skip(value) for skip, value in zip(self.skips, maps, strict=True)]

    def forward(
        self, vectors: Tensor, added: Sequence[Tensor], state: State, *, training: bool
    ) -> tuple[Tensor, State]:
        """Raw output (N, outputs * C, H, W) in float32, and the changed state entries."""
        value, changed = self.root(vectors[:, :, None, None], state, training=training)
        for stage, more in zip(self.stages, added, strict=False):
            if self.enlarges:
                value = F.interpolate(value, scale_factor=2.0)
            value, new = stage(value, state, training=training, added=more)
            changed |= new
        raw: Tensor = self.output(value)
        # DCGAN's last stage is the output alone.
        return raw if self.enlarges else raw + added[-1], changed


def initial_state(network: nn.Module) -> State:
    """The running statistics of all batch norms in a network, before the first batch.

    >>> sorted(initial_state(nn.Sequential(BatchNorm("norm", 3, decay=0.9))))
    ['norm', 'norm.weight']
    """
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    return {name: value for norm in norms for name, value in norm.initial_state().items()}
