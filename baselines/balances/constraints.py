"""Balances that hold one term at a goal, and let the weight be what it takes."""

import torch
from torch import Tensor

from baselines.balances.base import WEIGHT, Balance, Batch
from baselines.options import Decay, Positive, balance
from baselines.state import State, new_average, read_average, update_average

ERROR, INTEGRAL = "balance.squared_error", "balance.integral"


@balance("geco")
class Geco(Balance):
    """GECO: the least rate whose reconstruction error is `goal`, the weight a Lagrange multiplier.

    The rate is minimised under the constraint that the mean squared error of a value is goal²
    (Rezende & Viola 2018, arXiv 1810.00597, algorithm 1). The multiplier λ of the error is moved by
    λ ← λ exp(speed·C), with the constraint C = MSE/goal² - 1 in units of the goal, at most 1, and
    MSE a moving average over steps. Here the weight is on the rate, so 1/λ stands there. It starts
    at goal²/σ², at which an error of the goal would be calibrated. On a Gaussian of fixed σ the
    rule finds the β at which the error is the goal.

    `goal` is the root mean squared error of a value of the mean image, on data in [0, 1].

    >>> rule, wide = Geco(goal=0.1, speed=0.5), torch.full((1, 1, 2, 2), 0.9)
    >>> law = torch.distributions.Independent(torch.distributions.Normal(wide - 0.1, 1.0), 3)
    >>> batch = Batch(law, wide, torch.ones(()), torch.ones(1, 1))
    >>> round(rule(batch, rule.initial_state(total=1))[0].item(), 3)  # at the goal
    0.01
    """

    sets_scale = True
    fixes = "the error"

    goal: Positive
    speed: Positive = 0.005
    decay: Decay = 0.9
    min_weight: Positive = 1e-6
    max_weight: Positive = 1e6

    def initial_state(self, total: int) -> State:
        return {**super().initial_state(total), **new_average(ERROR)}

    def weigh(self, batch: Batch, state: State, step: Tensor) -> tuple[Tensor, State]:
        error = (batch.target - batch.distribution.mean).square().mean()
        average = update_average(state, ERROR, error, self.decay)
        constraint = (read_average(average, ERROR) / self.goal**2 - 1).clamp(max=1)
        start = self.goal**2 / batch.distribution.variance.mean()
        before = torch.where(step == 0, start, state[WEIGHT])
        weight = before * torch.exp(-self.speed * constraint)
        return weight.clamp(self.min_weight, self.max_weight), average


@balance("control")
class Control(Balance):
    """ControlVAE: a PI controller on the weight holds the rate at `goal` nats.

    With the error e = goal - KL the weight is proportional / (1 + exp e) - integral · Σ e +
    min_weight, clipped to [min_weight, max_weight] (Shao et al. 2020, arXiv 2004.05988, algorithm
    1, whose gains are the defaults). The sum stands still while the weight is at a limit and the
    error would push it further.

    `goal` is in nats an image or sequence, of all parts of the latent.

    >>> rule = Control(goal=5)
    >>> batch = Batch(None, torch.ones(()), torch.ones(()), torch.tensor([[2.0, 3.0]]))
    >>> rule(batch, rule.initial_state(total=1))[0]  # at the goal, half the proportional gain
    tensor(0.0050)
    """

    fixes = "the rate"

    goal: Positive
    proportional: Positive = 0.01
    integral: Positive = 1e-4
    min_weight: float = 0.0
    max_weight: Positive = 1.0

    def initial_state(self, total: int) -> State:
        return {**super().initial_state(total), INTEGRAL: torch.zeros(())}

    def weigh(self, batch: Batch, state: State, step: Tensor) -> tuple[Tensor, State]:
        error = self.goal - batch.rates.sum()
        proportional = self.proportional * torch.sigmoid(-error) + self.min_weight
        moved = state[INTEGRAL] - self.integral * error
        wanted = proportional + moved
        further = torch.where(error > 0, wanted < self.min_weight, wanted > self.max_weight)
        integral = torch.where(further, state[INTEGRAL], moved)
        weight = (proportional + integral).clamp(self.min_weight, self.max_weight)
        return weight, {INTEGRAL: integral}
