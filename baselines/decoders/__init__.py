"""The p(x|z) families: a decoder turns a network's output into a distribution over images."""

from baselines.decoders.base import Decoder, soft_clip
from baselines.decoders.discrete import (
    BernoulliDecoder,
    BitwiseDecoder,
    CategoricalDecoder,
    LogisticMixtureDecoder,
)
from baselines.decoders.gaussian import (
    BetaGaussian,
    FixedGaussian,
    MeanReducedMse,
    OptimalGaussian,
    PerPixelGaussian,
    SharedGaussian,
    UnitGaussian,
)
from baselines.decoders.remedies import BetaNllGaussian, BetaSigmaGaussian, FaithfulGaussian
from baselines.decoders.student import StudentTDecoder

__all__ = [
    "BernoulliDecoder",
    "BetaGaussian",
    "BetaNllGaussian",
    "BetaSigmaGaussian",
    "BitwiseDecoder",
    "CategoricalDecoder",
    "Decoder",
    "FaithfulGaussian",
    "FixedGaussian",
    "LogisticMixtureDecoder",
    "MeanReducedMse",
    "OptimalGaussian",
    "PerPixelGaussian",
    "SharedGaussian",
    "StudentTDecoder",
    "UnitGaussian",
    "soft_clip",
]
