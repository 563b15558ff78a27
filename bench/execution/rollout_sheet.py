"""The picture of a model of videos: the truth, its best and its worst rollout, and their mean."""

from functools import partial

import torch
from torch import Tensor

from bench.evaluation.reconstruction import by_frame, qualities
from bench.evaluation.rollouts import Rollouts
from bench.evaluation.scorer import Scorer, eight_bit

CLIPS = 4

FEWEST = 4
"""Rollouts to choose from, where fewer are measured."""


def rollout_sheet(scorer: Scorer, clips: Tensor, rollouts: int, seed: int) -> Tensor:
    """Four strips for each of the first `CLIPS` clips, as 8-bit images (N, C, H, W).

    They are the truth, the rollouts with the best and the worst SSIM (PSNR, where the frames are
    smaller than its window) and the mean over rollouts of the decoder means, each with the given
    frames before it: past + predicted frames. The rollouts are the measured ones.

    Arguments:
        clips: 8-bit videos (N, T, C, H, W).
        rollouts: how many are measured; at least `FEWEST` are made.
    """
    of = Rollouts(scorer, clips[:CLIPS], seed)
    count = max(rollouts, FEWEST)
    chosen = scorer.chunks.attempt(len(of.clips) * count, partial(_chosen, of, count))
    strips = torch.stack([of.truth, *chosen], dim=1)
    given = of.given.unsqueeze(1).expand(-1, strips.shape[1], -1, -1, -1, -1)
    return torch.cat([given, strips], dim=2).flatten(0, 2)


@torch.inference_mode()
def _chosen(of: Rollouts, count: int, size: int) -> list[Tensor]:
    """The best and the worst rollout and the mean of all, 8 bits, (B, predicted, C, H, W) each."""
    measure = list(qualities(of.truth.shape).values())[-1]
    best = worst = torch.zeros_like(of.truth)
    highest = torch.full((len(of.clips), 1, 1, 1, 1), -torch.inf, device=of.clips.device).double()
    lowest, total = -highest, torch.zeros(of.truth.shape, device=of.clips.device)
    for ks, law in of.in_groups(slice(None), count, size):
        for mean in law.mean.chunk(len(ks)):
            quality = by_frame(measure, of.truth, mean).mean(1).view_as(highest)
            best = torch.where(quality > highest, eight_bit(mean), best)
            worst = torch.where(quality < lowest, eight_bit(mean), worst)
            highest, lowest = quality.maximum(highest), quality.minimum(lowest)
            total += mean
    return [best, worst, eight_bit(total / count)]
