"""The p(x|z) families: a decoder turns a network's output into a distribution over images."""

from baselines.decoders.base import Decoder, soft_clip
from baselines.decoders.discrete import BernoulliDecoder
from baselines.decoders.gaussian import (
    BetaGaussian,
    FixedGaussian,
    MeanReducedMse,
    OptimalGaussian,
    PerPixelGaussian,
    SharedGaussian,
    UnitGaussian,
)

__all__ = [
    "BernoulliDecoder",
    "BetaGaussian",
    "Decoder",
    "FixedGaussian",
    "MeanReducedMse",
    "OptimalGaussian",
    "PerPixelGaussian",
    "SharedGaussian",
    "UnitGaussian",
    "soft_clip",
]
