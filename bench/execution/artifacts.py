"""The files that a trained run leaves: weights and pictures."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from bench.data import Dataset
from bench.evaluation.context import Protocol, split
from bench.evaluation.scorer import Scorer, eight_bit
from bench.files import atomic
from bench.rng import normal
from bench.run import Run
from bench.training.checkpoint import HISTORY, Trained
from bench.training.weights import save as save_weights

PICTURES = 64
"""Images in the sample grid; their latents are the same for every run of equal latent size."""


def save(run: Run, trained: Trained, dataset: Dataset, folder: Path) -> Protocol:
    """Write the weights and pictures of a trained run; returns the file names by kind."""
    path = save_weights(trained, folder)
    scorer = Scorer(trained.vae, trained.state, torch.float32)
    images = split(dataset, run)[: PICTURES // 2]
    noise_size = trained.vae.model.noise_size
    latents = normal((PICTURES, noise_size), 0, "pictures", device=images.device)
    again = eight_bit(scorer.reconstruct(images, latents[: len(images)]))
    pairs = torch.stack([images, again], dim=1).flatten(0, 1)
    write_picture(folder / "images" / "samples.png", eight_bit(scorer.generate(latents)))
    write_picture(folder / "images" / "reconstructions.png", pairs)
    return {
        "weights": path.name,
        "samples": "images/samples.png",
        "reconstructions": "images/reconstructions.png",
        "history": HISTORY,
    }


def write_picture(path: Path, images: Tensor, columns: int = 8) -> None:
    """Write 8-bit images (N, C, H, W) as one PNG, `columns` a row, one white pixel apart."""
    tiles = make_grid(images.cpu(), nrow=columns, padding=1, pad_value=255)
    with atomic(path) as file:
        Image.fromarray(tiles.permute(1, 2, 0).numpy()).save(file, format="PNG")
