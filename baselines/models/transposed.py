"""The transposed convolution of torch without the two parts that oneDNN computes slowly."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LANES = 16
"""Output channels that oneDNN computes together; fewer cost as much."""


class ConvTranspose2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` of channels-last images, faster on a CPU, and equal up to rounding.

    Most results are torch's to the bit; a bias gradient in bfloat16 now and then rounds the other
    way, which takes a training from torch's path after some hundreds of steps.

    oneDNN fills its vectors with output channels, of which the layer that ends in an image has
    one; and it sums the gradient of a bias in a loop that takes up to a quarter of the layer's
    whole way back. Elsewhere than on a CPU this is torch's layer. One group, no dilation,
    no output padding.
    """

    def forward(self, value: Tensor, output_size: list[int] | None = None) -> Tensor:
        if value.device.type != "cpu" or self.bias is None or output_size is not None:
            return super().forward(value, output_size)
        tensors = (value, self.weight, self.bias)
        if torch.is_autocast_enabled("cpu"):
            precision = torch.get_autocast_dtype("cpu")
            tensors = (value.to(precision), self.weight.to(precision), self.bias.to(precision))
        result: Tensor = _ConvTranspose2d.apply(*tensors, list(self.stride), list(self.padding))
        return result


class _ConvTranspose2d(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        value: Tensor, weight: Tensor, bias: Tensor, stride: list[int], padding: list[int]
    ) -> Tensor:
        phases = _phases(value, weight, stride)
        if phases == 1:
            return F.conv_transpose2d(value, weight, bias, stride, padding)
        return _by_phase(value, weight, bias, padding, phases)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        value, weight, _, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(value, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        value, weight = ctx.saved_tensors
        gradient = gradients[0]
        # Rounded to bfloat16 both sums are one number; in float32 their last bits differ, and a
        # run's numbers are to stay.
        apart = gradient.dtype == torch.bfloat16
        needs = ctx.needs_input_grad[:3]
        results = torch.ops.aten.convolution_backward(
            gradient,
            value,
            weight,
            [weight.shape[1]],
            ctx.stride,
            ctx.padding,
            [1, 1],
            True,
            [0, 0],
            1,
            [needs[0], needs[1], needs[2] and not apart],
        )
        bias = gradient.sum((0, 2, 3)) if needs[2] and apart else results[2]
        return results[0], results[1], bias, None, None


def _phases(value: Tensor, weight: Tensor, stride: list[int]) -> int:
    """How many neighbouring pixels a side can share the vectors of one output channel."""
    channels_last = value.stride(-3) == 1
    if stride != [1, 1] or value.dtype != torch.float32 or not channels_last:
        return 1
    for phases in (4, 2):
        fits = weight.shape[1] * phases**2 <= LANES
        if fits and value.shape[-2] % phases == 0 and value.shape[-1] % phases == 0:
            return phases
    return 1


def _by_phase(
    value: Tensor, weight: Tensor, bias: Tensor, padding: list[int], phases: int
) -> Tensor:
    """A transposed convolution of stride 1, a square of `phases`² pixels at a time.

    It is the convolution with the flipped kernel. A square's pixels are as many channels of a
    convolution of stride `phases`, whose kernel is the flipped one shifted by the pixel's place.
    """
    height, width = weight.shape[-2:]
    flipped = weight.flip(-2, -1).transpose(0, 1)
    shifted = [
        F.pad(flipped, (column, phases - 1 - column, row, phases - 1 - row))
        for row in range(phases)
        for column in range(phases)
    ]
    kernels = torch.stack(shifted, dim=1).flatten(0, 1)
    squares = F.conv2d(
        value,
        kernels,
        bias.repeat_interleave(phases**2),
        stride=phases,
        padding=[height - 1 - padding[0], width - 1 - padding[1]],
    )
    return F.pixel_shuffle(squares, phases)
