"""One training step on tensors of fixed address, so that CUDA can replay it as a graph."""

import torch
from torch import Generator, Tensor

from baselines.balances.base import WEIGHT
from baselines.models.base import SequenceModel
from baselines.state import State
from baselines.vae import Terms, Vae, step_terms
from bench.run import Training
from bench.training.divergence import COLUMNS
from bench.training.optimiser import Optimiser

INSIDE = 2**-13
"""How near u may come to 0 and 1. Its value then never leaves its bin: rounding in float32 moves it
by less than 2**-14 levels on the way to x and back."""


def scaled(images: Tensor, dither: Tensor | None = None) -> Tensor:
    """8-bit images as data: float32 in [0, 1], channels last; of videos each frame.

    With `dither` they are dequantised: x + (u - ½)/255, half a level beyond [0, 1] at most. A value
    stays in the bin of its level k, [(k-½)/255, (k+½)/255] as in `log_mass`, so `to_level` finds
    the 8-bit image again. By Jensen's inequality the mean over u of -ln p, plus D ln 255 for the
    width of D bins, is at least -ln P of that image (Theis et al. 2016, section 3.1).

    Arguments:
        images: (B, C, H, W) or (B, T, C, H, W), uint8.
        dither: u, uniform on [0, 1), a number for each value, of that shape or flattened.

    >>> grey = torch.full((1, 1, 1, 1), 51, dtype=torch.uint8)
    >>> [scaled(grey, u).mul(255).item() for u in (None, torch.full((1, 1), 0.75))]
    [51.0, 51.25]
    """
    frames = images.flatten(0, -4)
    levels = frames.to(torch.float32, memory_format=torch.channels_last)
    if dither is not None:
        levels.add_(dither.reshape(frames.shape).clamp(INSIDE, 1 - INSIDE).sub_(0.5))
    data: Tensor = levels.div_(255).unflatten(0, images.shape[:-3])
    return data


class Step:
    """A training step that reads and writes the same tensors at every call.

    Parameters, the optimiser's moments and the tensors of `state` are changed in place. No call
    waits for the device.

    Attributes:
        chosen: (B,) int64, the indices of the batch in the 8-bit images (N, C, H, W), or videos
            (N, T, C, H, W).
        start: (B,) int64, the first frame of each video's window; None for images.
        flipped: (B,) bool, which of them are mirrored left to right; None where none ever is.
        noise: (B, noise_size), standard normal.
        dither: (B, C, H, W), uniform on [0, 1), what dequantises the batch; None where nothing
            does. All five are filled before a call.
        terms: (len(columns),), the terms of the last call; NaN where the optimiser skipped it.
        columns: their names: those of `Terms`, and `weight` under a balance that has one.
    """

    def __init__(
        self,
        vae: Vae,
        state: State,
        optimiser: Optimiser,
        images: Tensor,
        training: Training,
    ) -> None:
        device, batch = images.device, training.batch
        self.chosen = torch.zeros(batch, dtype=torch.int64, device=device)
        self.flipped = (
            torch.zeros(batch, dtype=torch.bool, device=device) if training.flips else None
        )
        self.start: Tensor | None = None
        if isinstance(vae.model, SequenceModel):
            self.start = torch.zeros(batch, dtype=torch.int64, device=device)
            self._places = torch.arange(vae.model.frames, device=device)
        self.noise = torch.zeros(batch, vae.model.noise_size, device=device)
        self.dither: Tensor | None = None
        if training.dequantise:
            self.dither = torch.zeros(batch, *vae.model.data_shape, device=device)
            if self.start is None:
                self.dither = self.dither.to(memory_format=torch.channels_last)
        self.columns = COLUMNS if WEIGHT in state else Terms._fields
        self.terms = torch.zeros(len(self.columns), device=device)
        self._images, self._precision = images, getattr(torch, training.precision)
        self._vae = vae
        self._parameters: dict[str, Tensor] = dict(vae.named_parameters())
        self._state, self._optimiser = state, optimiser

    def draw(self, noises: Generator, dithers: Generator) -> None:
        """Fill `noise` and `dither` with the next numbers of their streams."""
        self.noise.normal_(generator=noises)
        if self.dither is not None:
            self.dither.uniform_(generator=dithers)

    def __call__(self) -> None:
        batch = scaled(self._batch(), self.dither)
        try:
            terms, state = step_terms(
                self._vae, self._parameters, self._state, batch, self.noise, self._precision
            )
            terms.loss.backward()
            weight = [state[WEIGHT]] if WEIGHT in state else []
            values = torch.stack([*(term.detach() for term in terms), *weight])
            self._optimiser.update(values)
        finally:
            # Backward adds to a gradient that exists, so none may be left, least of all by a step
            # that raised or by a capture that failed.
            self._optimiser.zero_grad()
        skipped = self._optimiser.skipped
        for name, value in state.items():
            old, new = self._state[name], value.detach()
            old.copy_(new if skipped is None else torch.where(skipped, old, new))
        self.terms.copy_(values if skipped is None else torch.where(skipped, torch.nan, values))

    def _batch(self) -> Tensor:
        if self.start is None:
            images = self._images[self.chosen]
        else:
            images = self._images[self.chosen[:, None], self.start[:, None] + self._places]
        if self.flipped is None:
            return images
        flipped = self.flipped.view(-1, *(1,) * (images.ndim - 1))
        return torch.where(flipped, images.flip(-1), images)
