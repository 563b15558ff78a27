"""Balances whose weight is a function of the step alone: warm-up, once or in cycles."""

from torch import Tensor

from baselines.balances.base import TOTAL, Balance, Batch
from baselines.options import Share, Size, balance
from baselines.state import State


@balance("warm_up")
class WarmUp(Balance):
    """KL warm-up: the weight rises linearly to 1 in the first part of training, and stays there.

    It is min(1, t/(`share`·N)) in step t = 1, 2, …, N (Bowman et al. 2016, arXiv 1511.06349;
    Sønderby et al. 2016, arXiv 1602.02282). From then on the negative ELBO is descended.

    `share` is of the steps of training: 0.5 is half of it, however long it is.

    >>> import torch
    >>> WarmUp(share=0.5).weigh(None, {TOTAL: torch.tensor(8)}, torch.arange(8))[0].tolist()
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]
    """

    ends_at_elbo = True

    share: Share = 0.5

    def weigh(self, batch: Batch, state: State, step: Tensor) -> tuple[Tensor, State]:
        return ramp(step, state[TOTAL], 1, self.share), {}


@balance("cyclical")
class Cyclical(Balance):
    """Cyclical annealing: in each of several cycles the weight rises from 0 to 1 and stays there.

    Training's N steps are divided into `cycles`. The weight is min(1, τ/`share`), where τ is the
    part of its cycle that is done with a step (Fu et al. 2019, arXiv 1903.10145, equation 6 with a
    linear f, where τ counts the steps before it). The last steps of every cycle, and so those of
    training, descend the negative ELBO.

    `share` is of a cycle's steps. Both knobs are independent of how long training is.

    >>> import torch
    >>> rule = Cyclical(cycles=2, share=0.5)
    >>> rule.weigh(None, {TOTAL: torch.tensor(8)}, torch.arange(8))[0].tolist()
    [0.5, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0]
    """

    ends_at_elbo = True

    cycles: Size = 4
    share: Share = 0.5

    def weigh(self, batch: Batch, state: State, step: Tensor) -> tuple[Tensor, State]:
        return ramp(step, state[TOTAL], self.cycles, self.share), {}


def ramp(step: Tensor, total: Tensor, cycles: int, share: float) -> Tensor:
    """The weight after `step` of `total` steps, which rises to 1 in the first `share` of a cycle.

    >>> import torch
    >>> ramp(torch.arange(6), torch.tensor(6), cycles=2, share=1)
    tensor([0.3333, 0.6667, 1.0000, 0.3333, 0.6667, 1.0000])
    """
    total = total.clamp(min=1)
    # Whole numbers: at the end of a cycle nothing is rounded away.
    done = ((step + 1) * cycles - 1) % total + 1
    return (done / total / share).clamp(max=1)
