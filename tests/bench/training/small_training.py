"""A training small enough to be looked at step by step."""

from typing import Any

import torch
from torch import Tensor

from baselines.decoders.gaussian import OptimalGaussian
from baselines.models.linear_vae import LinearVae
from baselines.vae import Vae
from bench.run import Training
from bench.training.optimiser import Optimiser
from bench.training.step import Step

BATCH, LATENT, TOTAL = 6, 2, 100


EVERYTHING: dict[str, Any] = {
    "optimizer": "adamw",
    "betas": (0.9, 0.9),
    "weight_decay": 0.01,
    "warm_up": 5,
    "schedule": "cosine",
    "clip": 200.0,
    "skip": 1e6,
    "ema": 0.9,
    "flips": True,
    "dequantise": True,
}
"""Every option of training that is off by default."""


class SmallTraining:
    """A linear VAE, its step, and all that a step may change."""

    def __init__(self, device: str = "cpu", **options: Any) -> None:
        torch.manual_seed(0)
        with torch.device(device):
            model = LinearVae(channels=1, resolution=8, latent=LATENT)
            self.vae = Vae(model, OptimalGaussian(link="identity", over="pixel"))
        self.images = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8).to(device)
        self.state = {name: value.to(device) for name, value in self.vae.initial_state().items()}
        settings = Training(**{"batch": BATCH, "lr": 0.01, **options})
        self.optimiser = Optimiser(self.vae, settings, TOTAL)
        self.step = Step(self.vae, self.state, self.optimiser, self.images, settings)

    def fill(self, number: int) -> tuple[Tensor, Tensor]:
        """Give the step its inputs, which are functions of `number`; returns batch and noise."""
        generator = torch.Generator().manual_seed(number)
        self.step.chosen.copy_(torch.randperm(20, generator=generator)[:BATCH])
        self.step.noise.copy_(torch.randn(BATCH, LATENT, generator=generator))
        if self.step.flipped is not None:
            self.step.flipped.copy_(torch.rand(BATCH, generator=generator) < 0.5)
        if self.step.dither is not None:
            self.step.dither.copy_(torch.rand(BATCH, 1, 8, 8, generator=generator))
        return self.step.chosen, self.step.noise

    def advance(self, *numbers: int) -> None:
        """A step for each of the numbers."""
        for number in numbers:
            self.fill(number)
            self.step()

    def kept(self) -> list[Tensor]:
        """Copies of all that the next step may depend on."""
        content = self.optimiser.state_dict()
        moments = [v for entry in content["optimizer"].values() for v in entry.values()]
        added = [content["taken"], *content["average"].values()]
        values = [*self.vae.parameters(), *self.state.values(), *moments, *added]
        return [value.detach().clone() for value in values]

    def everything(self) -> list[Tensor]:
        """The same and the terms of the last step."""
        return [*self.kept(), self.step.terms.clone()]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    """Whether the tensors are equal to the bit."""
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
