"""Encoders, priors and networks: a model maps images and noise to raw decoder output and a rate."""

MODULES = ("conv_vae", "linear_vae", "residual_vae", "hierarchical", "svg")
"""The files with bundled models, in the order in which tables list them."""
