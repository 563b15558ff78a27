"""What the rows train: a model with the decoder `optimal`, and 8-bit data for it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.options import DECODERS, MODELS
from bench.run import Evaluation, Precision, Run, Training
from bench.speed.setting import Setting

SIDE = 32
"""The sides of the images and frames of the models beside the release's."""

FRAMES = 10
"""The frames of `svg`'s sequences at its default options."""


@dataclass(frozen=True)
class Workload:
    """A model, its batch, and what makes so many of its data.

    Attributes:
        options: the model's name, and those of its options that are not the default.
        data: from a count N to 8-bit images (N, C, H, W), or clips (N, T, C, H, W), on the device.
        noun: what one of these is.
    """

    options: dict[str, object]
    batch: int
    data: Callable[[int], Tensor]
    noun: str = "image"

    @property
    def name(self) -> str:
        return str(self.options["name"])

    def run(self, precision: Precision, epochs: int) -> Run:
        """A run on such data; nothing of it is measured."""
        return Run(
            dataset="digits",
            content="0" * 64,
            split_seed=0,
            model=MODELS[self.name].model_validate(self.options),
            decoder=DECODERS["optimal"](name="optimal"),
            training=Training(epochs=epochs, batch=self.batch, precision=precision),
            evaluation=Evaluation(samples=0, iwae=0),
            seed=0,
        )


def release(setting: Setting, divisor: int = 1) -> Workload:
    """The release's size: `conv_vae` of width 32 and 20 latents, batch 128, on digits.

    Arguments:
        divisor: of the width, for a smaller model.
    """
    width = max(1, setting.size.width // divisor)
    options = {"name": "conv_vae", "width": width, "latent": 20}
    return Workload(options, setting.size.batch, setting.images)


def others(setting: Setting) -> list[Workload]:
    """The hierarchy and the video model, size tiny, on colour images and clips of 32x32 pixels."""
    batch = setting.size.batch
    return [
        Workload({"name": "hierarchical"}, batch // 2, lambda count: coloured(setting, count)),
        Workload({"name": "svg"}, batch // 4, lambda count: clips(setting, count), "clip"),
    ]


def coloured(setting: Setting, count: int) -> Tensor:
    """Digits in each colour a quarter turn further, (count, 3, 32, 32), 8 bits."""
    digits = _enlarged(setting, count)
    return torch.cat([digits.rot90(turns, (-2, -1)) for turns in range(3)], dim=1)


def clips(setting: Setting, count: int) -> Tensor:
    """Digits that move a pixel a frame to the right, (count, 10, 1, 32, 32), 8 bits."""
    digits = _enlarged(setting, count)
    return torch.stack([digits.roll(step, -1) for step in range(FRAMES)], dim=1)


def _enlarged(setting: Setting, count: int) -> Tensor:
    digits = setting.images(count)
    edge = (SIDE - digits.shape[-1]) // 2
    return F.pad(digits, (edge,) * 4)
