"""Layers that torch lacks: a faster transposed convolution, a batch norm without side effects."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.state import State, new_average, read_average, update_average

LANES = 16
"""Output channels that oneDNN computes together; fewer cost as much."""

LOWEST = -20.0
"""The smallest raw scale; there the scale is 1.4e-6."""


def scale_of(raw: Tensor) -> Tensor:
    """A positive scale, 1 at 0: s(a) = softplus(a ln 2) / ln 2, of slope below 1.

    An exponential's unbounded slope makes deep hierarchies unstable (Dehaene & Brossard 2021,
    arXiv 2106.13739).

    >>> scale_of(torch.tensor([0.0, 30.0]))
    tensor([ 1., 30.])
    """
    return F.softplus(raw.clamp_min(LOWEST), beta=math.log(2))


def full_precision(module: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    """Apply `module` in float32 inside an autocast region.

    For the layers whose outputs are exponentiated (log variances) or scored (images): eight bits
    of mantissa in ln σ are a visible error in nats.

    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     full_precision(nn.Linear(3, 2), torch.zeros(5, 3, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    with torch.autocast(value.device.type, enabled=False):
        result: Tensor = module(value.float())
    return result


def output_head(output: nn.Module, detached: nn.Module | None, features: Tensor) -> Tensor:
    """Raw decoder output in float32, from features that only the layer `output` may move.

    The outputs of `detached` come last along dimension 1 and send no gradient to `features`
    (Stirn et al. 2023).

    >>> features = torch.ones(1, 3, requires_grad=True)
    >>> raw = output_head(nn.Linear(3, 2), nn.Linear(3, 1), features)
    >>> raw[:, 2].sum().backward()
    >>> raw.shape, features.grad
    (torch.Size([1, 3]), tensor([[0., 0., 0.]]))
    """
    result = full_precision(output, features)
    if detached is None:
        return result
    return torch.cat([result, full_precision(detached, features.detach())], dim=1)


def affine(layers: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Apply layers without an activation between them to rows (B, n) as one matrix product.

    They are an affine map, whose weights are what they make of the n unit vectors and of zero: for
    more rows than that this takes fewer operations. Equal up to rounding, (B, C, H, W).

    >>> layers = nn.Sequential(nn.Linear(3, 8), nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 5, 2))
    >>> rows = torch.rand(9, 3)
    >>> torch.allclose(affine(layers, rows), layers(rows), atol=1e-5)
    True
    """
    if len(rows) <= rows.shape[1]:
        return layers(rows)
    units = torch.eye(rows.shape[1] + 1, rows.shape[1], dtype=rows.dtype, device=rows.device)
    made = full_precision(layers, units).permute(0, 2, 3, 1)
    # The last row is zero. Channels last, as the layers that follow would have them.
    zero = made[-1]
    weights = (made[:-1] - zero).flatten(1)
    maps: Tensor = F.linear(rows, weights.T, zero.flatten()).unflatten(1, zero.shape)
    return maps.permute(0, 3, 1, 2)


class BatchNorm(nn.Module):
    """Batch normalisation that returns its running statistics instead of writing them.

    Normalises (B, C, H, W) by the batch in training, otherwise by bias-corrected running averages
    (Ioffe & Szegedy 2015; ε = 1e-3 as the TensorFlow release).

    >>> norm = BatchNorm("norm", 3, decay=0.9)
    >>> state = norm.initial_state()
    >>> value, changed = norm(torch.randn(8, 3, 5, 5), state, training=True)
    >>> sorted(changed), bool(value.mean().abs() < 1e-5)
    (['norm', 'norm.weight'], True)
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


class FusedBatchNorm(BatchNorm):
    """A `BatchNorm` that keeps the statistics by which it normalised: no second pass over the data.

    Equal up to rounding. `BatchNorm` keeps the bits of earlier runs.

    >>> norm = FusedBatchNorm("norm", 3, decay=0.9)
    >>> value, changed = norm(torch.randn(8, 3, 5, 5), norm.initial_state(), training=True)
    >>> sorted(changed), bool(value.mean().abs() < 1e-5)
    (['norm', 'norm.weight'], True)
    """

    def forward(self, value: Tensor, state: State, *, training: bool) -> tuple[Tensor, State]:
        if not training:
            return super().forward(value, state, training=False)
        value, mean, inverse = torch.native_batch_norm(
            value, self.weight, self.bias, None, None, True, 0.0, self.epsilon
        )
        # In float32 of any precision's data, which tensors without values do not know.
        mean, inverse = mean.float(), inverse.float()
        moments = torch.stack([mean, (inverse.pow(-2) - self.epsilon).clamp_min(0)])
        return value, update_average(state, self.name, moments, self.decay)


class ConvTranspose2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` of channels-last images, faster on a CPU, and equal up to rounding.

    Most results are torch's to the bit; the bias gradient is summed in another order, so that a
    training leaves torch's path: at once in float32, after some hundreds of steps in bfloat16.

    oneDNN fills its vectors with output channels, of which the layer that ends in an image has
    one; and it sums the gradient of a bias in a loop that takes up to a quarter of the layer's
    whole backward pass. On other devices this is torch's layer, and so it is with groups, dilation
    or output padding.

    >>> ours, torchs = ConvTranspose2d(3, 1, 5, padding=2), nn.ConvTranspose2d(3, 1, 5, padding=2)
    >>> _ = ours.load_state_dict(torchs.state_dict())
    >>> images = torch.rand(4, 3, 8, 8)
    >>> torch.allclose(ours(images), torchs(images), atol=1e-5)
    True
    """

    def forward(self, value: Tensor, output_size: list[int] | None = None) -> Tensor:
        other = self.groups > 1 or self.dilation != (1, 1) or any(self.output_padding)
        if value.device.type != "cpu" or self.bias is None or output_size is not None or other:
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
        phases = phases_per_side(value, weight, stride, padding)
        if phases == 1:
            return F.conv_transpose2d(value, weight, bias, stride, padding)
        return _by_phase(value, weight, bias, phases)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        value, weight, _, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(value, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        value, weight = ctx.saved_tensors
        gradient = gradients[0]
        needs = ctx.needs_input_grad[:3]
        value_gradient, weight_gradient, _ = torch.ops.aten.convolution_backward(
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
            [needs[0], needs[1], False],
        )
        bias_gradient = gradient.sum((0, 2, 3)) if needs[2] else None
        return value_gradient, weight_gradient, bias_gradient, None, None


def phases_per_side(value: Tensor, weight: Tensor, stride: list[int], padding: list[int]) -> int:
    """How many neighbouring pixels per side can share the vectors of one output channel.

    1 where the output is not as large as the input.

    >>> images = torch.zeros(1, 3, 28, 28).contiguous(memory_format=torch.channels_last)
    >>> phases_per_side(images, torch.zeros(3, 1, 5, 5), [1, 1], [2, 2])
    4
    """
    channels_last = value.stride(-3) == 1
    if stride != [1, 1] or value.dtype != torch.float32 or not channels_last:
        return 1
    if any(size != 1 + 2 * width for size, width in zip(weight.shape[-2:], padding, strict=True)):
        return 1
    for phases in (4, 2):
        fits = weight.shape[1] * phases**2 <= LANES
        if fits and value.shape[-2] % phases == 0 and value.shape[-1] % phases == 0:
            return phases
    return 1


def _by_phase(value: Tensor, weight: Tensor, bias: Tensor, phases: int) -> Tensor:
    """A transposed convolution that keeps the size, a square of `phases`² pixels at a time.

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
        padding=[height // 2, width // 2],
    )
    return F.pixel_shuffle(squares, phases)


def image_convolution(width: int, channels: int) -> ConvTranspose2d:
    """A 3x3 convolution from features to an image, faster than `nn.Conv2d` on a CPU.

    Transposed and of stride 1, it is the convolution with the flipped kernel. It begins as one.

    >>> image_convolution(16, 3)(torch.zeros(5, 16, 8, 8)).shape
    torch.Size([5, 3, 8, 8])
    """
    layer = ConvTranspose2d(width, channels, 3, padding=1)
    bound = 1 / math.sqrt(9 * width)
    nn.init.uniform_(layer.weight, -bound, bound)
    return layer
