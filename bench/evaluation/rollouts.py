"""Rollouts of a model of videos, and what is kept of each clip while its K rollouts pass by."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.distributions import Distribution

from baselines.distributions import LEVELS
from baselines.law_mixture import LawMixture
from baselines.models.base import SequenceModel
from bench.errors import RequestError
from bench.evaluation.calibration import CELLS, cell_counts
from bench.evaluation.out_of_memory import cat
from bench.evaluation.reconstruction import by_frame, qualities
from bench.evaluation.scorer import CHUNK_VALUES, Scorer
from bench.rng import NormalRows, uniform
from bench.training.step import scaled

RANDOMISED = "randomised PIT of predictions"
"""The stream of the uniform numbers of PIT values, by clip: one a value, for all rollouts."""


@dataclass(frozen=True)
class Rollouts:
    """Rollouts of clips from their first `past` frames; decoder means are fed back.

    Rollout k of a clip is the same however many rollouts and clips there are.

    Attributes:
        clips: 8-bit videos (N, T, C, H, W).
        seed: of the noise.

    Raises `RequestError` where the clips are too short to compare a prediction with.
    """

    scorer: Scorer
    clips: Tensor
    seed: int

    def __post_init__(self) -> None:
        needed = self.model.past + self.model.predicted
        if self.clips.shape[1] < needed:
            raise RequestError(
                f"a prediction of {self.model.predicted} frames from {self.model.past} needs clips "
                f"of {needed}, not of {self.clips.shape[1]}; set the model's `horizon`"
            )

    @property
    def model(self) -> SequenceModel:
        model = self.scorer.vae.model
        assert isinstance(model, SequenceModel)
        return model

    @property
    def given(self) -> Tensor:
        """The frames that a prediction knows, (N, past, C, H, W)."""
        return self.clips[:, : self.model.past]

    @property
    def truth(self) -> Tensor:
        """Those that it predicts, (N, predicted, C, H, W)."""
        return self.clips[:, self.model.past :][:, : self.model.predicted]

    def noise(self, k: int) -> NormalRows:
        """The noise of rollout k of each clip, (N, rollout_size)."""
        return rollout_noise(self.model, len(self.clips), self.seed, k, self.clips.device)

    def predicted(self, clips: slice, ks: range) -> Distribution:
        """p(x|z) of some rollouts of B clips, of batch shape (len(ks) · B, predicted).

        First comes rollout ks[0] of all B clips, then the next.
        """
        given = self.given[clips].repeat(len(ks), 1, 1, 1, 1)
        noise = torch.cat([self.noise(k)[clips] for k in ks])
        return self.scorer.predicted(given, noise)

    def in_groups(
        self, clips: slice, count: int, size: int
    ) -> Iterator[tuple[range, Distribution]]:
        """All `count` rollouts of some clips, as many together as make `size` predictions."""
        together = max(1, size // len(self.clips[clips]))
        for first in range(0, count, together):
            ks = range(first, min(first + together, count))
            yield ks, self.predicted(clips, ks)


def rollout_noise(
    model: SequenceModel, clips: int, seed: int, k: int, device: torch.device
) -> NormalRows:
    """What rollout k of each of so many clips consumes, (clips, rollout_size)."""
    return NormalRows(clips, model.rollout_size, seed, f"rollout {k}", device=device)


@torch.inference_mode()
def measured(rollouts: Rollouts, count: int, *, mass: bool) -> dict[str, Tensor]:
    """Measures of `count` rollouts of each clip by predicted frame, float64, on the CPU.

    Memory grows with the clips by what is returned alone, and not with the rollouts: a block of
    clips has at most `CHUNK_VALUES` levels of its mixtures' F, or is one clip, 1020 bytes for each
    predicted value.

    Arguments:
        mass: whether p(x|z) gives single 8-bit values a probability.

    Returns:
        `psnr_best`, `psnr_mean`, `psnr_copy`, the same of SSIM where the frames have it, and of
        two rollouts or more `diversity`, the mean squared difference of two rollouts' means, all
        (N, H); with `mass`, `crps` of the mixture, (N, H), and `pit`, the shares of its PIT values
        in `CELLS` cells, (N, H, CELLS).
    """
    scorer, total = rollouts.scorer, len(rollouts.clips)
    levels = LEVELS * rollouts.truth[0].numel() if mass else 1
    block = max(1, min(scorer.chunk, CHUNK_VALUES // levels))
    kept: dict[str, Tensor] = {}
    for start in range(0, total, block):
        clips = range(start, min(start + block, total))
        work = partial(_of_clips, rollouts, clips, count, mass)
        for name, rows in scorer.chunks.attempt(len(clips) * count, work).items():
            if name not in kept:
                kept[name] = torch.empty(total, *rows.shape[1:], dtype=torch.float64)
            kept[name][start : clips.stop] = rows
    return kept


def _of_clips(
    rollouts: Rollouts, clips: range, count: int, mass: bool, size: int
) -> dict[str, Tensor]:
    """The measures of some clips, of which `size` predictions are made at once."""
    parts = []
    for start in range(clips.start, clips.stop, size):
        some = range(start, min(start + size, clips.stop))
        passed = _Passed(rollouts, some, mass)
        for ks, law in rollouts.in_groups(slice(some.start, some.stop), count, size):
            passed.add(law, len(ks))
        parts.append(passed.measures())
    return {name: cat([part[name] for part in parts]) for name in parts[0]}


class _Passed:
    """What is kept of some clips from the rollouts that have passed."""

    def __init__(self, rollouts: Rollouts, clips: range, mass: bool) -> None:
        rows = slice(clips.start, clips.stop)
        self._truth, self._given = rollouts.truth[rows], rollouts.given[rows]
        self._clips, self._seed = clips, rollouts.seed
        self._count = 0
        self._mixture = LawMixture() if mass else None
        self._sum = torch.zeros(self._truth.shape, dtype=torch.float64, device=self._truth.device)
        self._squares = torch.zeros_like(self._sum)
        self._qualities = qualities(self._truth.shape)
        nothing = self._sum.new_zeros(self._truth.shape[:2])
        self._mean = {name: nothing.clone() for name in self._qualities}
        self._best = {name: nothing - torch.inf for name in self._qualities}

    def add(self, law: Distribution, rollouts: int) -> None:
        """Let so many rollouts of all clips pass, one after the other in the batch of `law`."""
        for mean in law.mean.chunk(rollouts):
            for name, measure in self._qualities.items():
                found, best = by_frame(measure, self._truth, mean), self._best[name]
                self._mean[name] += found
                better = found.mean(1, keepdim=True) > best.mean(1, keepdim=True)
                self._best[name] = torch.where(better, found, best)
            self._sum += mean
            self._squares += mean.double().square()
        if self._mixture is not None:
            self._mixture.add(law, rollouts)
        self._count += rollouts

    def measures(self) -> dict[str, Tensor]:
        """As `measured` returns them, of these clips."""
        copied = scaled(self._given[:, -1:].expand_as(self._truth))
        found: dict[str, Tensor] = {}
        for name, measure in self._qualities.items():
            found[f"{name}_best"] = self._best[name]
            found[f"{name}_mean"] = self._mean[name] / self._count
            found[f"{name}_copy"] = by_frame(measure, self._truth, copied)
        if self._count > 1:
            pairs = self._count * (self._count - 1) / 2
            apart = (self._count * self._squares - self._sum.square()) / pairs
            found["diversity"] = apart.mean((-3, -2, -1)).clamp_min(0)
        if self._mixture is not None:
            truth = scaled(self._truth)
            found["crps"] = self._mixture.crps(truth).mean((-3, -2, -1))
            shape, device = self._truth.shape[1:], truth.device
            numbers = torch.stack(
                [
                    uniform(shape, self._seed, RANDOMISED, clip, device=device)
                    for clip in self._clips
                ]
            )
            places = self._mixture.pit(truth, numbers).flatten(0, 1)
            found["pit"] = cell_counts(places).view(*truth.shape[:2], CELLS)
        return found
