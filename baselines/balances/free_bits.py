"""Free bits: a part of the latent pays no rate below a floor."""

from torch import Tensor

from baselines.balances.base import Balance, Batch
from baselines.options import Positive, balance
from baselines.state import State


@balance("free_bits")
class FreeBits(Balance):
    """Free bits: the rate of each part of the latent costs nothing below `floor` nats.

    Training descends distortion + Σ max(floor, KL of a part), each KL the batch's mean (Kingma et
    al. 2016, arXiv 1606.04934, equation 15). Its gradient is that of a weight of 1 on the parts
    above the floor and of 0 on the others. A single latent is one part; the groups of a hierarchy
    and the frames of a video are one each.

    `floor` is in nats, of each part. Where no part is at the floor, what is descended is the
    negative ELBO.

    >>> import torch
    >>> rule = FreeBits(floor=0.5)
    >>> batch = Batch(None, torch.ones(()), torch.ones(()), torch.tensor([[0.2, 3.0]]))
    >>> weight, state = rule(batch, rule.initial_state(total=1))
    >>> weight, state["balance.weight"]
    (tensor([0., 1.]), tensor(0.5000))
    """

    has_beta = False
    fixes = "the least rate of a part"

    floor: Positive

    def weigh(self, batch: Batch, state: State, step: Tensor) -> tuple[Tensor, State]:
        return (batch.rates > self.floor).float(), {}
