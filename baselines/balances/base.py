"""What every balance is: a rule that weighs the rate in what training descends."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from baselines.options import Configured
from baselines.state import State

STEP, TOTAL, WEIGHT = "balance.step", "balance.total", "balance.weight"


class Batch(NamedTuple):
    """What a rule may look at: one training batch, as the model and the decoder see it.

    Attributes:
        distribution: p(x|z) of the target, with event shape (C, H, W).
        target: what the decoder scores, (..., C, H, W) in [0, 1].
        distortion: -log p(x|z), (), in nats an image or sequence, the batch's mean.
        rate: KL(q(z|x) || p(z)) of each item and part of the latent, (B, parts), in nats.

    >>> Batch(None, torch.ones(()), torch.ones(()), torch.tensor([[1.0, 5.0], [3.0, 5.0]])).rates
    tensor([2., 5.])
    """

    distribution: Distribution
    target: Tensor
    distortion: Tensor
    rate: Tensor

    @property
    def rates(self) -> Tensor:
        """The rate of each part, (parts,), the batch's mean, in nats."""
        return self.rate.mean(0)


class Balance(Configured):
    """A rule (batch, state, step) → (weight, state): training descends distortion + weight · rate.

    The weight has no gradient. What a step reports, and every score, is of the negative ELBO.
    Options are annotated attributes; see `baselines.options`. A subclass has `weigh`; what it
    remembers from step to step is in `initial_state`. All of it is tensors on the device, and
    nothing in `weigh` branches on their values: a training step may be a CUDA graph.

    Class attributes:
        sets_scale: True where the rule sets what an error costs in nats, which a decoder that
            learns its σ does already; the two are then refused together.
        ends_at_elbo: True where the last steps of every training descend the negative ELBO, so
            that its optimum is the ELBO's.
        has_beta: False where the weight is no factor on the whole rate, so that no β says what
            was descended.
        fixes: what the rule holds at a value of its knob, in words.

    >>> class Half(Balance):
    ...     def weigh(self, batch, state, step):
    ...         return torch.full((), 0.5), {}
    >>> images = torch.rand(4, 1, 8, 8)
    >>> flat = torch.distributions.Independent(torch.distributions.Normal(images, 1.0), 3)
    >>> batch = Batch(flat, images, torch.tensor(9.0), torch.tensor([[2.0]]))
    >>> Half()(batch, Half().initial_state(total=100))
    (tensor(0.5000), {'balance.step': tensor(1), 'balance.weight': tensor(0.5000)})
    """

    kind = "balance"
    sets_scale = False
    ends_at_elbo = False
    has_beta = True
    fixes = "nothing"

    def initial_state(self, total: int) -> State:
        """What the rule remembers of training, before the first of `total` steps.

        `WEIGHT` is the weight of the last step, (), the mean over parts where they have one each.
        The names of a subclass's own entries begin with `balance.`.
        """
        step, weight = torch.zeros((), dtype=torch.int64), torch.ones(())
        return {STEP: step, TOTAL: torch.tensor(total), WEIGHT: weight}

    def __call__(self, batch: Batch, state: State) -> tuple[Tensor | None, State]:
        """The weight of the rate in this step, and the entries of `state` that it changes.

        Returns:
            A weight, () or (parts,), or None where the negative ELBO is descended as it is.
        """
        with torch.no_grad():
            weight, changed = self.weigh(batch, state, state[STEP])
            return weight, {**changed, STEP: state[STEP] + 1, WEIGHT: weight.mean()}

    def weigh(self, batch: Batch, state: State, step: Tensor) -> tuple[Tensor, State]:
        """The weight of the rate in this step, and the entries of `state` that it changes.

        Arguments:
            batch: this step's.
            state: as after the last step; never written in place. `state[TOTAL]`, (), int64, is
                how many steps training takes.
            step: (), int64, how many steps were taken before. A step that the optimiser skips
                is not counted.

        Returns:
            A weight, () or, of each part of the latent, (parts,); and entries of `state`.
        """
        raise NotImplementedError
