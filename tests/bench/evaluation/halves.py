"""Images of two numbers, the brightness of their halves, a VAE of them and their features."""

import torch
from torch import Tensor, nn

from baselines.build import build_decoder, build_model
from baselines.vae import Vae
from bench.evaluation.features.base import Extractor
from bench.run import Evaluation, Features, Run, Training
from tests.specs import decoder_spec, model_spec

SIDE = 4

FEATURES = Features(name="torchscript", metric="fd_halves", sha256="0" * 64)


def halves(numbers: Tensor) -> Tensor:
    """Images (B, 1, SIDE, SIDE) whose upper and lower halves have a brightness each."""
    return numbers.repeat_interleave(SIDE**2 // 2, dim=1).view(-1, 1, SIDE, SIDE)


def eight_bits(images: Tensor) -> Tensor:
    return images.clamp(0, 1).mul(255).round().to(torch.uint8)


def weight_of(spread: float) -> Tensor:
    """(SIDE², 2): a code of 1 moves a half's brightness by `spread`."""
    return torch.stack([halves(spread * row[None]).flatten() for row in torch.eye(2)], dim=1)


def linear_vae(spread: float) -> Vae:
    """A linear VAE of two latents whose mean image is 0.5 + `spread` · z in each half."""
    decoder = build_decoder(decoder_spec("gaussian", link="identity"))
    model = build_model(model_spec("linear_vae", latent=2), channels=1, resolution=SIDE, outputs=1)
    with torch.no_grad():
        nn.init.constant_(model.get_parameter("output.bias"), 0.5)
        model.get_parameter("output.weight").copy_(weight_of(spread))
    return Vae(model, decoder)


def distance_run(count: int, content: str, /, **evaluation: object) -> Run:
    """A run that compares as many samples with images of that content by `FEATURES`."""
    return Run(
        dataset="made",
        content=content,
        split_seed=0,
        model=model_spec("linear_vae", latent=2),
        decoder=decoder_spec("gaussian"),
        training=Training(),
        evaluation=Evaluation(samples=count, features=FEATURES, distances=("means",), **evaluation),
        seed=0,
    )


def extractor() -> Extractor:
    """The features of an image are the brightness of its halves."""

    def network(pixels: Tensor) -> Tensor:
        return pixels[:, 0, [0, -1], 0].float() / 255

    return Extractor(FEATURES, network, torch.device("cpu"))
