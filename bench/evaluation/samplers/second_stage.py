"""A second VAE, of codes: what it generates, the first decoder turns into images."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from baselines.models.base import gaussian_draw
from bench.rng import NormalRows, generator, seeded

STEPS, BATCH, RATE, GAMMA_RATE = 2000, 128, 1e-3, 1e-2
WIDTH, HIDDEN = 256, 3

INITIAL = "initialisation of the second stage"
ORDER = "order of the second stage"
NOISE = "noise of the second stage"
DRAWN = "draws of the second stage"


class SecondStage(nn.Module):
    """p(u) = N(0, I), p(z|u) = N(μ(u), γ² I) with one learned γ, q(u|z) diagonal Gaussian.

    u has as many dimensions as z. Both networks are perceptrons whose last layer also sees their
    input (Dai & Wipf 2019, arXiv 1903.05789, section 4 and their code). Codes are standardised
    inside.

    Arguments:
        mean, spread: of the codes, (D,) each.
        seed: of the noise that `draw` adds.

    >>> stage = SecondStage(torch.zeros(3), torch.ones(3))
    >>> stage.loss(torch.randn(5, 3), torch.randn(5, 3)).shape
    torch.Size([])
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, mean: Tensor, spread: Tensor, seed: int = 0) -> None:
        super().__init__()
        size = len(mean)
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)
        self.encoder, self.decoder = _Perceptron(size, 2 * size), _Perceptron(size, size)
        self.log_gamma = nn.Parameter(torch.zeros(()))
        self.seed = seed

    def loss(self, codes: Tensor, noise: Tensor) -> Tensor:
        """The negative ELBO of standardised codes (B, D), nats a code."""
        mean, log_variance = self.encoder(codes).chunk(2, dim=1)
        draw = gaussian_draw(mean, log_variance, noise)
        error = (codes - self.decoder(draw.latent)).square().sum(1)
        constant = codes.shape[1] * (self.log_gamma + 0.5 * math.log(2 * math.pi))
        loss: Tensor = 0.5 * error * (-2 * self.log_gamma).exp() + constant + draw.rate
        return loss.mean()

    @torch.no_grad()
    def draw(self, noise: Tensor, first: int, count: int) -> Tensor:
        """Draws first, first + 1, … of `count` by standard normal noise (B, D), float32.

        The noise is u; that of p(z|u) has a stream of its own.
        """
        added = NormalRows(count, noise.shape[1], self.seed, DRAWN, device=noise.device)
        added_here = added[first : first + len(noise)]
        codes: Tensor = self.decoder(noise) + self.log_gamma.exp() * added_here
        return self.mean + self.spread * codes

    @property
    def told(self) -> dict[str, Any]:
        """What a record says of it."""
        return {
            "steps": STEPS,
            "batch": BATCH,
            "lr": RATE,
            "gamma_lr": GAMMA_RATE,
            "width": WIDTH,
            "hidden": HIDDEN,
            "gamma": self.log_gamma.exp().item(),
        }

    @property
    def name(self) -> str:
        """What it is, in words."""
        return "a second VAE with a learned γ"


class _Perceptron(nn.Module):
    def __init__(self, size: int, outputs: int) -> None:
        super().__init__()
        widths = [size, *[WIDTH] * HIDDEN]
        self.layers = nn.ModuleList(map(nn.Linear, widths[:-1], widths[1:]))
        self.output = nn.Linear(WIDTH + size, outputs)

    def forward(self, values: Tensor) -> Tensor:
        hidden = values
        for layer in self.layers:
            hidden = torch.relu(layer(hidden))
        found: Tensor = self.output(torch.cat([values, hidden], dim=1))
        return found


@dataclass
class _Batches:
    """Batches of rows in an order that is new in each pass."""

    rows: Tensor
    seed: int

    def __iter__(self) -> Iterator[Tensor]:
        epoch, size = 0, min(BATCH, len(self.rows))
        while True:
            random = generator(self.seed, ORDER, epoch, device=self.rows.device)
            order = torch.randperm(len(self.rows), generator=random, device=self.rows.device)
            for start in range(0, len(self.rows) - size + 1, size):
                yield self.rows[order[start : start + size]]
            epoch += 1


def fit(codes: Tensor, seed: int) -> SecondStage:
    """A second stage trained on codes (N, D) for `STEPS` steps of Adam, on their device.

    The learning rate falls to 0 by a cosine. The networks are small and the number of steps is
    fixed, so the cost does not grow with the data.

    Raises:
        ValueError: there are fewer than two codes.
    """
    if len(codes) < 2:
        raise ValueError(f"a second stage needs two codes or more, not {len(codes)}")
    # Evaluation runs without gradients, and its tensors cannot be trained on.
    with torch.inference_mode(False), torch.enable_grad():
        rows = codes.float().clone()
        mean, spread = rows.mean(0), rows.std(0).clamp_min(1e-6)
        with seeded(seed, INITIAL, device="cpu"):
            stage = SecondStage(mean, spread, seed).to(rows.device)
        rows = (rows - mean) / spread
        # γ is a single number far from where it ends: at the networks' rate it would lag behind.
        networks = [*stage.encoder.parameters(), *stage.decoder.parameters()]
        optimiser = torch.optim.Adam(
            [
                {"params": networks, "lr": RATE},
                {"params": [stage.log_gamma], "lr": GAMMA_RATE},
            ]
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
        random = generator(seed, NOISE, device=rows.device)
        for _, batch in zip(range(STEPS), _Batches(rows, seed), strict=False):
            noise = torch.randn(batch.shape, generator=random, device=batch.device)
            optimiser.zero_grad()
            stage.loss(batch, noise).backward()
            optimiser.step()
            schedule.step()
    return stage
