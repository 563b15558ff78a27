"""A model of videos whose predictions are known in closed form."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from baselines.build import build_decoder
from baselines.models.base import Context, Draw, SequenceModel
from baselines.options import DecoderSpec
from baselines.state import State
from baselines.vae import Vae
from bench.data import Dataset
from bench.data.dataset import Description
from bench.run import Evaluation, Run, Training
from tests.specs import decoder_spec, model_spec

SIDE, PAST, FUTURE = 12, 2, 3


class Walk(SequenceModel):
    """Every frame is the one before it plus a multiple of a standard normal number.

    The first output channels are the frame, the others are `other`. Posterior and prior agree.
    """

    step: float = 0.1
    drift: float = 0.0
    other: float = 0.0
    latent: int = 1

    def _output(self, before: Tensor, noise: Tensor) -> Tensor:
        frame = before + self.drift + self.step * noise[..., None, None, None]
        rest = torch.full_like(frame, self.other).repeat_interleave(self.outputs - 1, dim=-3)
        return torch.cat([frame, rest], dim=-3)

    def encode(self, images: Tensor, state: State, *, training: bool) -> tuple[Context, State]:
        return (images,), {}

    def draw(self, context: Context, noise: Tensor, state: State, *, training: bool) -> Draw:
        (images,) = context
        nothing = torch.zeros_like(noise)
        return Draw(self._output(images[:, :-1], noise), nothing, nothing.sum(1), {})

    def predict(
        self, noise: Tensor, state: State, given: Tensor, mean: Callable[[Tensor], Tensor]
    ) -> Tensor:
        frame, outputs = given[:, -1], []
        for number in noise[:, self.past - 1 :].unbind(1):
            outputs.append(self._output(frame, number))
            frame = mean(outputs[-1])
        return torch.stack(outputs, dim=1)


def walk(decoder: DecoderSpec, *, channels: int = 1, side: int = SIDE, **options: Any) -> Vae:
    made = build_decoder(decoder)
    chosen = {"past": PAST, "future": FUTURE, **options}
    model = Walk(channels=channels, resolution=side, outputs=made.outputs, **chosen)
    return Vae(model, made).eval()


def gaussian(sigma: float) -> DecoderSpec:
    return decoder_spec("beta", link="identity", beta=2 * sigma**2)


def clips(count: int, frames: int = PAST + FUTURE, side: int = SIDE, seed: int = 0) -> Tensor:
    """8-bit noise around a level of each clip's own, (count, frames, 1, side, side)."""
    rng = torch.Generator().manual_seed(seed)
    level = 0.3 + 0.4 * torch.rand(count, 1, 1, 1, 1, generator=rng)
    noise = 0.05 * torch.randn(count, frames, 1, side, side, generator=rng)
    return (level + noise).clamp(0, 1).mul(255).round().to(torch.uint8)


def dataset(test: Tensor) -> Dataset:
    description = Description("made", "0" * 64, test.shape[2], test.shape[-1], *3 * (len(test),))
    return Dataset(description, test, test[:4], test)


def run_of(decoder: DecoderSpec, seed: int = 0, **evaluation: object) -> Run:
    """A run of these measures; its model is not what is measured."""
    return Run(
        dataset="made",
        content="0" * 64,
        split_seed=0,
        model=model_spec("linear_vae"),
        decoder=decoder,
        training=Training(),
        evaluation=Evaluation(**{"iwae": 0, "samples": 0, **evaluation}),
        seed=seed,
    )
