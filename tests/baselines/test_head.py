"""A decoder in anybody's training loop, and the loop that docs/library.md prints."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baselines.build import build_decoder
from baselines.decoders.gaussian import OptimalGaussian, SharedGaussian
from baselines.decoders.variance_remedies import FaithfulGaussian
from baselines.head import Head
from baselines.models.linear_vae import LinearVae
from baselines.options import DECODERS
from baselines.vae import Vae, step_terms
from tests.baselines.test_contract import REQUIRED
from tests.specs import decoder_spec

PAGE = Path(__file__).resolve().parents[2] / "docs" / "library.md"
SHAPE = (3, 4, 4)

every = pytest.mark.parametrize("name", list(DECODERS))


def make(name: str) -> Head:
    return Head(build_decoder(decoder_spec(name, **REQUIRED.get(name, {}))), image_shape=SHAPE)


def batch(head: Head, *leading: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    output = torch.randn(*leading, head.decoder.outputs * SHAPE[0], *SHAPE[1:])
    images = torch.rand(*leading, *SHAPE).mul(255).round() / 255
    return output.requires_grad_(), images, torch.rand(leading)


@every
def test_leading_dimensions_are_a_batch(name: str) -> None:
    """(T, B, ...) gives what (T·B, ...) does: the loss, its gradient, the scores, the means."""
    output, images, rate = batch(make(name), 2, 3)
    found = []
    for fold in (False, True):
        head = make(name)
        raw = output.detach().clone()
        raw = (raw.flatten(0, 1) if fold else raw).requires_grad_()
        x, kl = (images.flatten(0, 1), rate.flatten()) if fold else (images, rate)
        loss = head.loss(raw, x, kl)
        loss.backward()
        assert loss.shape == ()
        assert raw.grad is not None
        head.eval()
        with torch.no_grad():
            score, mean = head.score(raw, x), head.mean(raw)
            assert head.sample(raw).shape == mean.shape == x.shape
        assert score.shape == x.shape[:-3]
        sigma = head.decoder.sigma(head(raw))
        found.append([loss.detach(), raw.grad.flatten(), score.flatten(), mean.flatten(), sigma])
    torch.testing.assert_close(*found)


@every
def test_one_image_is_a_batch_of_one(name: str) -> None:
    one, other = make(name), make(name)
    output, images, _ = batch(one, 1)
    torch.testing.assert_close(
        one.loss(output, images, torch.ones(1)), other.loss(output[0], images[0], torch.ones(()))
    )
    score = other.score(output[0], images[0])
    assert score.shape == ()
    torch.testing.assert_close(one.score(output, images)[0], score)
    for name in one.state:
        torch.testing.assert_close(one.state[name], other.state[name])


@pytest.mark.parametrize("name", ["optimal", "shared", "beta_sigma", "faithful", "mse"])
def test_the_loss_is_what_the_benchmark_trains(name: str) -> None:
    torch.manual_seed(0)
    decoder = build_decoder(decoder_spec(name, **REQUIRED.get(name, {})))
    model = LinearVae(
        channels=3, resolution=4, latent=2, outputs=decoder.outputs,
        detached_outputs=decoder.detached_outputs,
    )  # fmt: skip
    vae, head = Vae(model, decoder), Head(decoder, model.image_shape)
    images, noise = torch.rand(5, *SHAPE), torch.randn(5, 2)
    parameters: dict[str, Tensor] = dict(vae.named_parameters())
    terms, after = step_terms(vae, parameters, vae.initial_state(), images, noise)
    draw = model.draw(model.encode(images, {}, training=True)[0], noise, {}, training=True)
    loss = head.loss(draw.output, images, draw.rate.sum(-1))
    torch.testing.assert_close(loss, terms.loss)
    theirs = torch.autograd.grad(terms.loss, list(parameters.values()))
    torch.testing.assert_close(torch.autograd.grad(loss, list(parameters.values())), theirs)
    assert head.state.keys() == after.keys()
    for entry, value in head.state.items():
        assert torch.equal(value, after[entry])


def test_sigma_is_learned_in_training_and_frozen_in_scoring() -> None:
    head = Head(OptimalGaussian(link="identity"), image_shape=SHAPE)
    images, zero = torch.full((4, *SHAPE), 0.25), torch.zeros(4, *SHAPE)
    with pytest.raises(RuntimeError, match="OptimalGaussian takes σ from training batches"):
        head.score(zero, images)
    head.loss(zero, images, torch.zeros(4))
    trained = {name: value.clone() for name, value in head.state_dict().items()}
    head.eval().loss(zero, 2 * images, torch.zeros(4))
    head.score(zero, 2 * images)
    assert all(torch.equal(value, trained[name]) for name, value in head.state_dict().items())
    again = Head(OptimalGaussian(link="identity"), image_shape=SHAPE).eval()
    again.load_state_dict(trained)
    torch.testing.assert_close(again(zero).stddev, images)


def test_a_mean_rate_will_do() -> None:
    head = Head(SharedGaussian(), image_shape=SHAPE)
    output, images, rate = batch(head, 6)
    torch.testing.assert_close(
        head.loss(output, images, rate), head.loss(output, images, rate.mean())
    )


@pytest.mark.parametrize(
    ("output", "images", "rate", "message"),
    [
        ((5, 3, 4, 4), (5, 3, 4, 4), (5,), r"needs \(..., 6, 4, 4\) for images \(3, 4, 4\)"),
        ((5, 6, 4, 4), (4, 3, 4, 4), (5,), r"the images are \(4, 3, 4, 4\), torch.float32; expect"),
        ((5, 6, 4, 4), (5, 3, 4, 4), (4,), r"rate is \(4,\); expected one number per image, \(5,"),
    ],
)
def test_shapes_that_do_not_fit_are_one_plain_line(
    output: tuple[int, ...], images: tuple[int, ...], rate: tuple[int, ...], message: str
) -> None:
    head = Head(FaithfulGaussian(), image_shape=SHAPE)
    with pytest.raises(ValueError, match=message) as caught:
        head.loss(torch.zeros(output), torch.zeros(images), torch.zeros(rate))
    assert "\n" not in str(caught.value)


def test_eight_bit_images_are_refused() -> None:
    head = Head(SharedGaussian(), image_shape=SHAPE)
    with pytest.raises(ValueError, match=r"torch.uint8; expected floats in \[0, 1\]"):
        head.loss(torch.zeros(5, *SHAPE), torch.zeros(5, *SHAPE).byte(), torch.zeros(5))


class Encoder(nn.Module):
    """A draw of two latents, and its KL divergence to the prior."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Linear(784, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.mean(x.flatten(1))
        return mean + torch.randn_like(mean), 0.5 * mean.square().sum(-1)


def test_the_page_runs_and_finds_sigma() -> None:
    """Noise of σ = 0.1 on one constant image is what is left for the decoder to explain."""
    code, parts = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert sum(map(bool, code.splitlines())) <= 10
    torch.manual_seed(0)
    data = (0.5 + 0.1 * torch.randn(640, 1, 28, 28)).clamp(0, 1)
    encoder, network = Encoder(), nn.Sequential(nn.Linear(2, 784), nn.Unflatten(1, (1, 28, 28)))
    optimizer = torch.optim.Adam([*encoder.parameters(), *network.parameters()], lr=0.01)
    yours = {"encoder": encoder, "network": network, "optimizer": optimizer}
    names = {**yours, "batches": 20 * data[:512].split(64), "test": data[512:]}
    exec(compile(code, str(PAGE), "exec"), names)
    head, nats = names["head"], names["nats"]
    assert isinstance(head, Head)
    assert head(torch.zeros(1, 28, 28)).stddev.mean().item() == pytest.approx(0.1, rel=0.1)
    # The entropy of the noise, ½ ln 2πe σ² a pixel, is the least that can be.
    entropy = 784 * 0.5 * math.log(2 * math.pi * math.e * 0.01)
    assert nats.shape == (128,)
    assert entropy - 10 < nats.mean().item() < entropy + 80
    after: dict[str, Any] = {"head": head.train(), "x": data[:64], "torch": torch}
    exec(compile(parts, str(PAGE), "exec"), after)
    assert after["loss"].isfinite()
    assert str(after["model"].parts) in PAGE.read_text()
    assert list(after["by_part"]) == list(after["model"].parts)


def test_the_page_has_a_line_for_every_decoder() -> None:
    bundled = [name for name, spec in DECODERS.items() if spec.source is None]
    assert re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE) == bundled
