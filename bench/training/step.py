"""One training step on tensors of fixed address, so that CUDA can replay it as a graph."""

import torch
from torch import Tensor

from baselines.state import State
from baselines.vae import Terms, Vae, step_terms


def scaled(images: Tensor) -> Tensor:
    """8-bit images as float32 in [0, 1], channels last."""
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255)


class Step:
    """A training step that reads and writes the same tensors at every call.

    Parameters, the optimiser's moments and the tensors of `state` are changed in place. No call
    waits for the device.

    Attributes:
        chosen: (B,) int64, the indices of the batch in the 8-bit images (N, C, H, W).
        noise: (B, noise_size), standard normal. Both are filled before a call.
        terms: (len(Terms),), the terms of the last call.
    """

    def __init__(
        self,
        vae: Vae,
        state: State,
        optimizer: torch.optim.Optimizer,
        images: Tensor,
        batch: int,
        precision: torch.dtype,
    ) -> None:
        device = images.device
        self.chosen = torch.zeros(batch, dtype=torch.int64, device=device)
        self.noise = torch.zeros(batch, vae.model.noise_size, device=device)
        self.terms = torch.zeros(len(Terms._fields), device=device)
        self._images, self._precision = images, precision
        self._vae = vae
        self._parameters: dict[str, Tensor] = dict(vae.named_parameters())
        self._state, self._optimizer = state, optimizer

    def __call__(self) -> None:
        batch = scaled(self._images[self.chosen])
        try:
            terms, state = step_terms(
                self._vae, self._parameters, self._state, batch, self.noise, self._precision
            )
            terms.loss.backward()
            self._optimizer.step()
        finally:
            # Backward adds to a gradient that exists, so none may be left, least of all by a step
            # that raised or by a capture that failed.
            self._optimizer.zero_grad()
        for name, value in state.items():
            self._state[name].copy_(value.detach())
        torch.stack([term.detach() for term in terms], out=self.terms)
