"""Measures of rollouts where the model's predictions are known."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.crps import crps
from baselines.vae import Vae
from bench.evaluation.reconstruction import BEST_PSNR, psnr, ssim
from bench.evaluation.rollouts import Rollouts, measured
from bench.evaluation.scorer import Scorer, eight_bit
from bench.training.step import scaled
from tests.refusal import refused
from tests.sequences import FUTURE, PAST, SIDE, Walk, clips, gaussian, walk
from tests.specs import decoder_spec

SIGMA = 0.05
PSNR = {"psnr_best", "psnr_mean", "psnr_copy"}
SSIM = {"ssim_best", "ssim_mean", "ssim_copy"}


def rollouts(vae: Vae, videos: Tensor, most: int = 512, seed: int = 0) -> Rollouts:
    return Rollouts(Scorer(vae, vae.initial_state(), torch.float32, most), videos, seed)


def still(count: int) -> Tensor:
    """Videos that do not change."""
    return clips(count)[:, :1].expand(-1, PAST + FUTURE, -1, -1, -1)


def test_two_rollouts_of_a_random_walk_are_apart_by_the_root_of_time() -> None:
    step = 0.03
    found = measured(rollouts(walk(gaussian(SIGMA), step=step), clips(400)), 8, mass=False)
    expected = 2 * step**2 * np.arange(1, FUTURE + 1)  # the variance of a difference
    np.testing.assert_allclose(found["diversity"].mean(0), expected, rtol=0.1)


def test_without_noise_all_rollouts_are_one() -> None:
    videos = clips(5)
    found = measured(rollouts(walk(gaussian(SIGMA), step=0.0), videos), 3, mass=True)
    assert found.keys() == {*PSNR, *SSIM, "diversity", "crps", "pit"}
    assert (found["diversity"] < 1e-12).all()
    for name in ("psnr", "ssim"):
        torch.testing.assert_close(found[f"{name}_best"], found[f"{name}_mean"])
        torch.testing.assert_close(found[f"{name}_best"], found[f"{name}_copy"])
    truth, last = scaled(videos[:, PAST:]), scaled(videos[:, PAST - 1 : PAST])
    law = rollouts(walk(gaussian(SIGMA), step=0.0), videos).predicted(slice(None), range(1))
    assert torch.equal(law.mean, last.expand_as(truth))
    expected = crps(law, truth).mean((-3, -2, -1))
    torch.testing.assert_close(found["crps"], expected, atol=1e-6, rtol=0)


def test_what_stands_still_is_predicted_by_a_copy() -> None:
    found = measured(rollouts(walk(gaussian(SIGMA), step=0.0), still(4)), 2, mass=False)
    assert found["psnr_best"] == pytest.approx(BEST_PSNR)
    assert (found["psnr_copy"] > 58).all()
    torch.testing.assert_close(found["ssim_copy"], torch.ones(4, FUTURE, dtype=torch.float64))


def test_the_best_rollout_is_chosen_by_its_mean_over_the_frames() -> None:
    """By each measure on its own; against all rollouts side by side."""
    count, videos = 7, clips(6, side=16)
    of = rollouts(walk(gaussian(SIGMA), side=16, step=0.05), videos)
    found = measured(of, count, mass=False)
    means = of.predicted(slice(None), range(count)).mean.unflatten(0, (count, -1))
    truth = videos[:, PAST:].double() / 255
    for name, measure in (("psnr", psnr), ("ssim", ssim)):
        values = torch.stack(
            [
                torch.stack([measure(truth[:, at], eight_bit(mean[:, at]).double() / 255)
                             for at in range(FUTURE)], 1)
                for mean in means
            ]
        )  # fmt: skip
        best = values[values.mean(2).argmax(0), torch.arange(len(videos))]
        torch.testing.assert_close(found[f"{name}_best"], best, atol=1e-5, rtol=0)
        torch.testing.assert_close(found[f"{name}_mean"], values.mean(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("said", [SIGMA, 3 * SIGMA])
def test_a_law_is_scored_by_its_spread(said: float) -> None:
    """σ/√π where σ is right; the PIT is uniform there, and in the middle where σ is too wide."""
    last = torch.full((30, PAST, 1, SIDE, SIDE), 128, dtype=torch.uint8)
    rng = torch.Generator().manual_seed(1)
    noise = SIGMA * torch.randn(30, FUTURE, 1, SIDE, SIDE, generator=rng)
    videos = torch.cat([last, eight_bit(128 / 255 + noise)], 1)
    found = measured(rollouts(walk(gaussian(said), step=0.0), videos), 2, mass=True)
    pit = found["pit"].mean((0, 1))
    assert pit.sum().item() == pytest.approx(1)
    inner = pit[50:150].sum().item()
    if said == SIGMA:
        assert inner == pytest.approx(0.5, abs=0.02)
        assert found["crps"].mean().item() == pytest.approx(SIGMA / math.sqrt(math.pi), rel=0.03)
    else:
        # P(|z| < 3 · 0.674) of the true law.
        assert inner == pytest.approx(0.957, abs=0.02)
        assert found["crps"].mean().item() > 1.3 * SIGMA / math.sqrt(math.pi)


def test_more_clips_and_rollouts_leave_the_others_as_they_are() -> None:
    videos, vae = clips(300), walk(gaussian(SIGMA))
    few, many = (measured(rollouts(vae, of), 3, mass=True) for of in (videos[:140], videos))
    assert all(torch.equal(rows[:140], few[name][:140]) for name, rows in many.items())
    of = rollouts(vae, videos[:3])
    more = of.predicted(slice(None), range(5)).mean
    assert torch.equal(of.predicted(slice(None), range(2)).mean, more[:6])
    assert not torch.equal(more[:3], more[3:6])


def test_the_order_of_the_clips_is_the_order_of_the_measures() -> None:
    videos, vae = clips(9), walk(gaussian(SIGMA), step=0.0)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    one, other = (measured(rollouts(vae, of), 2, mass=True) for of in (videos, videos[order]))
    for name in other.keys() - {"pit"}:  # randomised by place
        torch.testing.assert_close(other[name], one[name][order], atol=1e-12, rtol=0)


@pytest.mark.parametrize("decoder", ["beta", "per_pixel", "student_t", "categorical"])
def test_one_prediction_at_a_time_is_as_good_as_many(decoder: str) -> None:
    spec = gaussian(SIGMA) if decoder == "beta" else decoder_spec(decoder)
    videos, vae = clips(7, side=4), walk(spec, side=4)
    many, single = (measured(rollouts(vae, videos, most), 5, mass=True) for most in (512, 1))
    assert many.keys() == {*PSNR, "diversity", "crps", "pit"}
    assert all(torch.equal(rows, single[name]) for name, rows in many.items())


def test_memory_that_runs_out_changes_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    videos, vae = clips(5), walk(gaussian(SIGMA))
    expected = measured(rollouts(vae, videos), 4, mass=True)
    predict, asked = Walk.predict, []

    def scarce(model: Walk, noise: Tensor, *rest: Any) -> Tensor:
        asked.append(len(noise))
        if len(noise) > 2:
            raise MemoryError
        return predict(model, noise, *rest)

    monkeypatch.setattr(Walk, "predict", scarce)
    found = measured(rollouts(vae, videos), 4, mass=True)
    assert max(asked) == 20
    assert 2 in asked
    assert all(torch.equal(rows, found[name]) for name, rows in expected.items())


def test_levels_of_no_information_are_scored_as_such() -> None:
    """All levels equal: E|X - x| - (256² - 1)/(6 · 256 · 255)."""
    videos = clips(3)
    vae = walk(decoder_spec("categorical"))
    # The walk's frame is the logit of level 0: too small to matter.
    found = measured(rollouts(vae, 0 * videos, seed=1), 2, mass=True)["crps"]
    expected = (256 - 1) / 2 / 255 - (256**2 - 1) / (6 * 256 * 255)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_clips_too_short_for_the_prediction_are_refused() -> None:
    vae = walk(gaussian(SIGMA), horizon=9)
    assert "needs clips of 11, not of 5" in refused(lambda: rollouts(vae, clips(3)))
    assert rollouts(vae, clips(3, frames=11)).truth.shape[1] == 9
