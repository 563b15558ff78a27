"""The files that a trained run leaves: weights and pictures."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from baselines.levels import by_level, levels_to_fix
from baselines.models.base import SequenceModel
from bench.data import Dataset
from bench.evaluation.context import Protocol, split
from bench.evaluation.scorer import Scorer, eight_bit
from bench.execution.messages import Keep
from bench.execution.rollout_sheet import rollout_sheet
from bench.files import atomic
from bench.metrics import at_temperature
from bench.rng import normal
from bench.run import HISTORY, Run
from bench.training.checkpoint import WEIGHTS, Trained
from bench.training.weights import save as save_weights

PICTURES = 64
"""Images in the sample grid; their latents are the same for every run of equal latent size."""

COLUMNS = 8


def save(
    run: Run, trained: Trained, dataset: Dataset, folder: Path, keep: Keep = "weights"
) -> Protocol:
    """Write the weights and pictures of a trained run; returns the file names by kind.

    With `keep` at "records" there are no weights, neither now nor from an earlier attempt.
    """
    kept = {}
    if keep == "weights":
        kept["weights"] = save_weights(trained, folder).name
    else:
        (folder / WEIGHTS).unlink(missing_ok=True)
    scorer = Scorer(trained.vae, trained.state, torch.float32)
    images = split(dataset, run)
    if isinstance(trained.vae.model, SequenceModel):
        columns = trained.vae.model.past + trained.vae.model.predicted
        made = rollout_sheet(scorer, images, run.evaluation.rollouts, run.seed)
        sheets = [
            ("rollouts", made, columns),
            ("reconstructions", _frames(scorer, images), COLUMNS),
        ]
    else:
        temperatures = run.evaluation.temperatures
        found = _pictures(scorer, images[: PICTURES // 2], temperatures)
        sheets = [(name, made, COLUMNS) for name, made in found]
    pictures = {}
    for name, made, columns in sheets:
        pictures[name] = f"images/{name}.png"
        write_picture(folder / pictures[name], made, columns)
    return {**kept, **pictures, "history": HISTORY}


def _pictures(
    scorer: Scorer, images: Tensor, temperatures: Sequence[float]
) -> Iterator[tuple[str, Tensor]]:
    """The run's pictures by name, 8-bit images (N, C, H, W) each."""
    model = scorer.vae.model
    latents = normal((PICTURES, model.noise_size), 0, "pictures", device=images.device)
    yield "samples", eight_bit(scorer.generate(latents))
    again = eight_bit(scorer.reconstruct(images, latents[: len(images)]))
    yield "reconstructions", torch.stack([images, again], dim=1).flatten(0, 1)
    for temperature in temperatures:
        tempered = eight_bit(scorer.generate(temperature * latents))
        yield at_temperature("samples", temperature), tempered
    if len(model.parts) > 1:
        yield "groups", eight_bit(scorer.generate(sharing(latents[:COLUMNS], model.parts)))


def _frames(scorer: Scorer, clips: Tensor) -> Tensor:
    """Scored frames of the first clips, each beside its reconstruction, 8-bit (N, C, H, W)."""
    model = scorer.vae.model
    latents = normal((PICTURES, model.noise_size), 0, "pictures", device=clips.device)
    few = model.scored(clips)[: -(-PICTURES // (2 * len(model.parts)))]
    again = eight_bit(scorer.reconstruct(few, latents[: len(few)]))
    return torch.stack([model.target(few), again], dim=2).flatten(0, 2)[:PICTURES]


def sharing(noise: Tensor, parts: Mapping[str, int]) -> Tensor:
    """Rows of noise in which the levels from the top down to the row's share the first one's.

    Arguments:
        noise: (B, noise_size).
        parts: how many numbers each part takes; see `Model.parts`.

    Returns:
        (rows * B, noise_size): the noise itself, then a row for each of `levels_to_fix(parts)`.

    >>> sharing(torch.tensor([[1, 2, 3], [4, 5, 6]]), {"1x1": 1, "4x4.1": 1, "4x4.2": 1})
    tensor([[1, 2, 3],
            [4, 5, 6],
            [1, 2, 3],
            [1, 5, 6]])
    """
    levels, rows, shared = by_level(parts), [noise], 0
    for level in levels_to_fix(parts):
        shared += sum(parts[part] for part in levels[level])
        rows.append(torch.cat([noise[:1, :shared].expand(len(noise), -1), noise[:, shared:]], 1))
    return torch.cat(rows)


def write_picture(path: Path, images: Tensor, columns: int = COLUMNS) -> None:
    """Write 8-bit images (N, C, H, W) as one PNG, `columns` a row, one white pixel apart.

    `torchvision.utils.make_grid` makes the same sheet; its import takes each worker a second.
    """
    images = images.cpu().expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
    columns = min(columns, len(images))
    high, wide = images.shape[1] + 1, images.shape[2] + 1
    rows = -(-len(images) // columns)
    sheet = torch.full((rows * high + 1, columns * wide + 1, 3), 255, dtype=torch.uint8)
    for place, image in enumerate(images):
        top, left = place // columns * high, place % columns * wide
        sheet[top + 1 : top + high, left + 1 : left + wide] = image
    with atomic(path) as file:
        Image.fromarray(sheet.numpy()).save(file, format="PNG")
