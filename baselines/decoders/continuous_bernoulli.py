"""The continuous Bernoulli decoder: what makes a cross-entropy on intensities a likelihood."""

from typing import Literal

from torch import Tensor
from torch.distributions import Distribution, Independent

from baselines.continuous_bernoulli import ContinuousBernoulli
from baselines.decoders.base import Decoder
from baselines.options import decoder
from baselines.state import State


@decoder("continuous_bernoulli")
class ContinuousBernoulliDecoder(Decoder):
    """Cross-entropy with the normaliser that makes it a density on [0, 1], C(λ) λ^x (1-λ)^(1-x).

    `bernoulli` leaves C(λ) out (Loaiza-Ganem & Cunningham 2019, arXiv 1907.06845). λ is a sigmoid
    of the output; the mean image is that of the law, which is nearer to ½ than λ is. It has no
    scale to be learned. Its support is [0, 1], which `training.dequantise` leaves by half a level.

    >>> import torch
    >>> law = ContinuousBernoulliDecoder()(torch.full((1, 1, 1, 1), 2.0), {})
    >>> torch.sigmoid(torch.tensor(2.0)), law.mean.flatten()
    (tensor(0.8808), tensor([0.6565]))
    """

    learns_scale = False

    link: Literal["sigmoid"] = "sigmoid"

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        return Independent(ContinuousBernoulli(output.float()), 3, validate_args=False)
