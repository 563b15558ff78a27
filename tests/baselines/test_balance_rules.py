"""Each rule against what it is defined to do: schedules, floors, goals that are reached.

A linear VAE is probabilistic PCA, so where it ends is known. With a rate of weight w on a Gaussian
of σ = 1 its optimum is that of variance w: an error of w along each principal direction of
variance λ > w, of λ along the others, and a rate of ½ Σ ln(λ/w) over the former.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Independent, Normal

from baselines.balances.base import WEIGHT, Balance, Batch
from baselines.balances.constraints import Control, Geco
from baselines.balances.free_bits import FreeBits
from baselines.balances.schedules import Cyclical, WarmUp
from baselines.decoders.gaussian import UnitGaussian
from baselines.models.linear_vae import LinearVae
from baselines.vae import Vae, step_terms

VARIANCES = torch.tensor([0.09, 0.04, 0.01])
"""λ of the three directions that the data have."""


def batch_of(rates: list[float], error: float = 0.0) -> Batch:
    target = torch.zeros(1, 1, 2, 2)
    law = Independent(Normal(target + error, 1.0), 3)
    return Batch(law, target, torch.ones(()), torch.tensor([rates]))


def weights(rule: Balance, total: int, seen: Batch | None = None) -> list[float]:
    """The weight of each step of a training in which every batch looks the same."""
    state, found = rule.initial_state(total), []
    for _ in range(total):
        weight, changed = rule(seen or batch_of([1.0]), state)
        assert weight is not None
        state |= changed
        found.append(weight.mean().item())
    return found


def trained(balance: Balance, steps: int, scale: float = 1.0) -> dict[str, float]:
    """A linear VAE of σ = 1 on data of `VARIANCES` · scale²; the means of its last 200 steps."""
    torch.manual_seed(0)
    model = LinearVae(channels=1, resolution=2, latent=3)
    vae = Vae(model, UnitGaussian(link="identity"), balance)
    parameters: dict[str, Tensor] = dict(vae.named_parameters())
    adam = torch.optim.Adam(vae.parameters(), lr=0.02, fused=True)
    state, kept = vae.initial_state(steps), []
    spread = torch.cat([VARIANCES.sqrt() * scale, torch.zeros(1)])
    for step in range(steps):
        if step == steps // 2:
            adam.param_groups[0]["lr"] = 0.004
        data = (torch.randn(256, 4) * spread).view(-1, 1, 2, 2)
        terms, state = step_terms(vae, parameters, state, data, torch.randn(256, 3))
        adam.zero_grad()
        terms.loss.backward()
        adam.step()
        kept.append(torch.stack([terms.distortion, terms.rate, state[WEIGHT]]))
    distortion, rate, weight = torch.stack(kept[-200:]).mean(0).tolist()
    error = (distortion - 2 * math.log(2 * math.pi)) / 2  # ½ a value, 4 values
    return {"mse": error, "rate": rate, "weight": weight}


# -- schedules -------------------------------------------------------------------------------------


def test_warm_up_is_linear_and_then_one() -> None:
    assert weights(WarmUp(share=0.4), 10) == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 7)


def test_cycles_are_those_of_the_paper() -> None:
    """Fu et al. with four cycles, half of each rising: their weight at the end of each step."""
    total, cycles, share = 80, 4, 0.5
    period = total // cycles
    paper = [min(1.0, (step % period + 1) / period / share) for step in range(total)]
    assert weights(Cyclical(), total) == pytest.approx(paper)


@given(st.integers(1, 60), st.integers(1, 6), st.floats(0.01, 1))
@settings(max_examples=30, deadline=None)
def test_a_schedule_ends_at_the_elbo_however_long_training_is(
    total: int, cycles: int, share: float
) -> None:
    found = weights(Cyclical(cycles=cycles, share=share), total)
    assert found[-1] == 1
    assert all(0 < weight <= 1 for weight in found)
    once = weights(Cyclical(cycles=1, share=share), total)
    assert once == weights(WarmUp(share=share), total) == sorted(once)
    assert len(found) - found.count(1.0) <= total * share + cycles


# -- free bits -------------------------------------------------------------------------------------


def test_free_bits_have_the_gradient_of_the_larger_of_floor_and_rate() -> None:
    rates = torch.tensor([0.1, 0.5, 0.7, 3.0], requires_grad=True)
    rates.clamp_min(0.6).sum().backward()
    weight, _ = FreeBits(floor=0.6)(batch_of(rates.tolist()), FreeBits(floor=0.6).initial_state(1))
    assert rates.grad is not None
    assert weight is not None
    assert torch.equal(weight, rates.grad)


def test_free_bits_hold_their_floor_where_the_elbo_collapses() -> None:
    """No λ is above σ² = 1, so the ELBO's optimum is a rate of 0; at the floor steps take turns."""
    found = trained(FreeBits(floor=0.5), 600)
    assert found["rate"] == pytest.approx(0.5, rel=0.1)
    assert 0 < found["weight"] < 1


# -- goals -----------------------------------------------------------------------------------------


def test_geco_reaches_its_goal_at_the_weight_of_pca() -> None:
    """Two directions above w, one below: 4·goal² = 2w + λ₃."""
    weight, scale = 0.18, 3.0
    variances = VARIANCES * scale**2
    goal = math.sqrt((2 * weight + variances[2].item()) / 4)
    found = trained(Geco(goal=goal, speed=0.01), 1200, scale)
    assert found["mse"] == pytest.approx(goal**2, rel=0.02)
    assert found["weight"] == pytest.approx(weight, rel=0.05)
    rate = 0.5 * (variances[:2] / weight).log().sum().item()
    assert found["rate"] == pytest.approx(rate, rel=0.05)


def test_geco_stops_at_its_limits() -> None:
    far = weights(Geco(goal=0.1, speed=1, min_weight=0.001), 20, batch_of([1.0], error=3.0))
    near = weights(Geco(goal=0.1, speed=1, max_weight=5), 20, batch_of([1.0], error=0.0))
    assert far[-1] == pytest.approx(0.001)
    assert near[-1] == pytest.approx(5)


def test_geco_starts_at_the_weight_that_is_calibrated_at_its_goal() -> None:
    """With a variance of goal² in place of 1 the error's cost is that of a σ-VAE at the goal."""
    (first,) = weights(Geco(goal=0.1), 1, batch_of([1.0], error=0.1))
    assert first == pytest.approx(0.01)


def test_control_reaches_its_rate_at_the_weight_of_pca() -> None:
    """½ Σ ln(λ/w) = goal, over all three directions."""
    weight, scale = 0.05, 3.0
    goal = 0.5 * (VARIANCES * scale**2 / weight).log().sum().item()
    found = trained(Control(goal=goal, integral=5e-4), 1200, scale)
    assert found["rate"] == pytest.approx(goal, rel=0.02)
    assert found["weight"] == pytest.approx(weight, rel=0.1)


@pytest.mark.parametrize("error", [2.0, -2.0])
def test_control_of_a_rate_that_never_moves(error: float) -> None:
    """The integral is a straight line, until the weight's limit stops it."""
    rule = Control(goal=5, integral=0.01)
    found = weights(rule, 80, batch_of([5 - error]))
    line = [0.01 / (1 + math.exp(error)) - 0.01 * error * step for step in range(1, 81)]
    inside = [weight for weight in line if 0 <= weight <= 1]
    assert found[: len(inside)] == pytest.approx(inside, abs=1e-6)
    assert 0 <= min(found) <= max(found) <= 1


def test_control_turns_round_at_once_after_a_long_time_at_a_limit() -> None:
    rule = Control(goal=5, integral=0.01)
    state = rule.initial_state(200)
    for rate, steps in ((50.0, 100), (4.0, 1)):
        before = state[WEIGHT].item()
        for _ in range(steps):
            state |= rule(batch_of([rate]), state)[1]
    assert before > 0.5
    assert state[WEIGHT] < before
