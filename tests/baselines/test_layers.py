"""Our layers against torch's: the transposed convolution, forward and backward; batch norm."""

import pytest
import torch
from torch import Tensor, nn

from baselines.layers import (
    LANES,
    BatchNorm,
    ConvTranspose2d,
    FusedBatchNorm,
    phases_per_side,
)
from baselines.state import read_average


def results(layer: nn.Module, images: Tensor, precision: torch.dtype) -> list[Tensor]:
    """Output, and the gradients of the images, the weight and the bias."""
    images = images.clone().requires_grad_()
    with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
        output = layer(images)
    generator = torch.Generator().manual_seed(1)
    output.backward(torch.randn(output.shape, generator=generator).to(output.dtype))
    gradients = [images.grad, *(parameter.grad for parameter in layer.parameters())]
    return [output.detach(), *(gradient for gradient in gradients if gradient is not None)]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("channels", "outputs", "kernel", "stride", "side"),
    [(8, 1, 5, 1, 28), (8, 2, 5, 1, 12), (7, 4, 5, 1, 10), (8, 6, 5, 1, 8), (8, 1, 5, 1, 7),
     (8, 1, 3, 1, 8), (8, 4, 6, 2, 7)],
)  # fmt: skip
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_it_is_the_layer_of_torch(
    precision: torch.dtype,
    channels: int,
    outputs: int,
    kernel: int,
    stride: int,
    side: int,
    layout: torch.memory_format,
) -> None:
    torch.manual_seed(0)
    images = torch.randn(5, channels, side, side).contiguous(memory_format=layout)
    peer = nn.ConvTranspose2d(channels, outputs, kernel, stride, padding=2).to(memory_format=layout)
    ours = ConvTranspose2d(channels, outputs, kernel, stride, padding=2).to(memory_format=layout)
    ours.load_state_dict(peer.state_dict())
    got, expected = results(ours, images, precision), results(peer, images, precision)
    assert len(got) == 4
    exact = precision == torch.float32
    for one, other in zip(got, expected, strict=True):
        assert one.stride() == other.stride()
        torch.testing.assert_close(
            one, other, rtol=1e-4 if exact else 2e-2, atol=1e-4 if exact else 2e-2
        )


@pytest.mark.parametrize(
    ("channels", "outputs", "kernel", "stride", "padding", "side"),
    [(16, 8, 6, 2, 2, 14), (16, 8, 4, 2, 1, 8), (16, 8, 5, 2, 2, 7), (8, 1, 5, 1, 2, 28)],
)
def test_in_float32_all_gradients_are_those_of_float64(
    channels: int, outputs: int, kernel: int, stride: int, padding: int, side: int
) -> None:
    """Within the rounding of sums over a batch: the bias's is over 100,000 numbers."""
    torch.manual_seed(0)
    images = torch.randn(128, channels, side, side).contiguous(memory_format=torch.channels_last)
    ours = ConvTranspose2d(channels, outputs, kernel, stride, padding)
    exact = nn.ConvTranspose2d(channels, outputs, kernel, stride, padding).double()
    exact.load_state_dict(ours.state_dict())
    got = results(ours, images, torch.float32)
    for one, other in zip(got, results(exact, images.double(), torch.float64), strict=True):
        error = (one.double() - other).norm() / other.norm()
        assert error < 1e-5


def test_the_phases_fill_the_lanes() -> None:
    """A square of pixels of every output channel, no more than a vector holds."""
    images = torch.zeros(1, 3, 28, 28).contiguous(memory_format=torch.channels_last)
    kernels = [torch.zeros(3, n, 5, 5) for n in range(1, 6)]
    chosen = [phases_per_side(images, kernel, [1, 1], [2, 2]) for kernel in kernels]
    assert chosen == [4, 2, 2, 2, 1]
    assert all(n * phases**2 <= LANES for n, phases in enumerate(chosen, 1))
    assert phases_per_side(images, torch.zeros(3, 1, 6, 6), [2, 2], [2, 2]) == 1
    # The output is larger than the input, whose squares it would have.
    assert phases_per_side(images, torch.zeros(3, 1, 3, 3), [1, 1], [0, 0]) == 1


@pytest.mark.parametrize("options", [{"groups": 2}, {"dilation": 2}, {"output_padding": 1}])
def test_it_takes_the_options_of_torchs_layer(options: dict[str, int]) -> None:
    peer = nn.ConvTranspose2d(4, 2, 3, 2, 1, **options)  # type: ignore[arg-type]
    ours = ConvTranspose2d(4, 2, 3, 2, 1, **options)  # type: ignore[arg-type]
    ours.load_state_dict(peer.state_dict())
    images = torch.randn(5, 4, 6, 6).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours(images), peer(images))


def test_what_has_no_gradient_gets_none() -> None:
    """The first layer of a decoder whose latents come from the prior."""
    layer = ConvTranspose2d(3, 1, 5, padding=2)
    images = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    layer(images).sum().backward()
    assert layer.weight.grad is not None
    with torch.inference_mode():
        assert layer(images).shape == (2, 1, 8, 8)


def test_many_layers_at_once() -> None:
    """Weights stacked and mapped over, as runs trained together would be."""
    layer = ConvTranspose2d(3, 1, 5, padding=2)
    images = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    factors = torch.tensor([1.0, -2.0])

    def loss(factor: Tensor) -> Tensor:
        parameters = {name: factor * value.detach() for name, value in layer.named_parameters()}
        result: Tensor = torch.func.functional_call(layer, parameters, images)
        return result.square().sum()

    together = torch.func.vmap(torch.func.grad(loss))(factors)
    torch.testing.assert_close(together, torch.stack([torch.func.grad(loss)(f) for f in factors]))


def test_batch_norm_is_torchs_with_returned_statistics() -> None:
    torch.manual_seed(0)
    ours, theirs = BatchNorm("norm", 3, decay=0.9), nn.BatchNorm2d(3, eps=1e-3, momentum=0.1)
    state = ours.initial_state()
    weight = 0.0
    for _ in range(4):
        value = torch.randn(8, 3, 5, 5) * 2 + 1
        result, changed = ours(value, state, training=True)
        torch.testing.assert_close(result, theirs(value))
        state = {**state, **changed}
        weight = 0.9 * weight + 0.1
    # torch's running mean starts at 0 and keeps that pull; ours is corrected for it.
    mean, _ = state["norm"] / state["norm.weight"]
    torch.testing.assert_close(mean * weight, theirs.running_mean)
    scored, changed = ours(torch.randn(2, 3, 5, 5), state, training=False)
    assert changed == {}
    assert scored.isfinite().all()


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_fused_batch_norm_is_torchs(
    precision: torch.dtype, layout: torch.memory_format
) -> None:
    """Its running statistics are torch's after one batch, whose variance is that of a sample."""
    torch.manual_seed(0)
    peer = nn.BatchNorm2d(5, eps=BatchNorm.epsilon, momentum=1.0)
    ours = FusedBatchNorm("norm", 5, decay=0.9)
    images = (3 * torch.randn(6, 5, 8, 8) + torch.randn(5, 1, 1)).to(precision)
    images = images.contiguous(memory_format=layout)
    with torch.no_grad():
        for weight in (ours.weight, ours.bias):
            weight.normal_()
        peer.weight.copy_(ours.weight)
        peer.bias.copy_(ours.bias)
    results = []
    state = ours.initial_state()
    for layer in (ours, peer):
        leaf = images.clone().requires_grad_()
        if isinstance(layer, FusedBatchNorm):
            output, changed = layer(leaf, state, training=True)
            state |= changed
        else:
            output = layer(leaf)
        output.float().square().sin().sum().backward()
        results.append([output, leaf.grad, *(weight.grad for weight in layer.parameters())])
    for one, other in zip(*results, strict=True):
        assert one is not None
        torch.testing.assert_close(one, other)
    count = images.numel() / 5
    assert peer.running_mean is not None
    assert peer.running_var is not None
    mean, variance = read_average(state, "norm")
    torch.testing.assert_close(mean, peer.running_mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(variance * count / (count - 1), peer.running_var, rtol=1e-4, atol=0)
    with torch.no_grad():
        scored, changed = ours(images, state, training=False)
        torch.testing.assert_close(
            scored, ours(images, state, training=True)[0], rtol=1e-2, atol=0.02
        )
    assert changed == {}
