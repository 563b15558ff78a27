"""Encoders, priors and networks: a model maps images and noise to raw decoder output and a rate."""

from baselines.models.base import Context, Draw, GaussianLatentModel, Model
from baselines.models.conv_vae import ConvVae, ConvVaeTf
from baselines.models.linear_vae import LinearVae

__all__ = ["Context", "ConvVae", "ConvVaeTf", "Draw", "GaussianLatentModel", "LinearVae", "Model"]
